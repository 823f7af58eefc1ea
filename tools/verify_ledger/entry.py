"""Sections 3 and 4: entries, and the events in them."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

from .verdict import Malformed

HEADER_LENGTH = 180
SHORTEST_ENTRY = 284
LONGEST_ENTRY = 65_535

MAGIC = b"HLDR"
FORMAT_VERSION = 1
LATEST_TIME = 253_370_764_799_999_999
NO_HASH = bytes(32)
SIGNER_ROTATED = 80

# Section 3.2, row by row. "<" is little-endian without padding.
HEADER_LAYOUT = struct.Struct("<4s H H H H I Q Q 24s 24s 64s 32s I")


class Header(NamedTuple):
    """The header, row by row; short texts are as they stand, with their zero bytes."""

    magic: bytes
    format_version: int
    kind: int
    schema_version: int
    reserved: int
    rules_revision: int
    seq: int
    time: int
    tenant: bytes
    actor: bytes
    request_id: bytes
    previous_hash: bytes
    payload_length: int


class Entry(NamedTuple):
    """The parts of an entry (section 3.1)."""

    header: Header
    payload: bytes
    hash: bytes
    key_id: bytes
    signature: bytes


def split_entry(raw: bytes) -> Entry:
    """The parts of an entry that is not too short. Nothing is checked."""
    header = Header(*HEADER_LAYOUT.unpack_from(raw))
    return Entry(header, raw[HEADER_LENGTH:-104], raw[-104:-72], raw[-72:-64], raw[-64:])


def short_text(form: str) -> re.Pattern[bytes]:
    """Section 3.3: a text of this form, then only zero bytes."""
    return re.compile(rb"(%b)\x00*" % form.encode("ascii"))


TENANT_FORM = r"[a-z0-9_]{1,24}"
KEY_PREFIX_FORM = r"[\x21-\x7e]{12}"

SHORT_TEXTS = {
    "tenant": short_text(TENANT_FORM),
    "actor": short_text(f"key:{KEY_PREFIX_FORM}|operator|bootstrap|first-caller|system|approval-link"),
    "request_id": short_text(r"[\x21-\x7e]{1,64}"),
}


def check_header(header: Header) -> None:
    """What is in the header for itself (section 7, step 4)."""
    if header.reserved != 0:
        raise Malformed("its reserved field is not 0")
    if header.time > LATEST_TIME:
        raise Malformed("its time is after the year 9998")
    for name, form in SHORT_TEXTS.items():
        if not form.fullmatch(getattr(header, name)):
            raise Malformed(f"its {name} is not one that is allowed")


# --- Sections 4.1 to 4.3: payloads ---


class Field(NamedTuple):
    """One row of a table in section 4.3. The type is in the words of section 4.1."""

    type: str
    name: str


class Kind(NamedTuple):
    """A kind of event in one schema version."""

    name: str
    fields: list[Field]
    schema_version: int = 1


def fields(rows: str) -> list[Field]:
    return [Field(*row.split()) for row in rows.split(",")]


def kind(name: str, *rows: str) -> Kind:
    return Kind(name, fields(",".join(rows)))


# Types that are made of fields.
RECORDS = {
    "idempotency": fields("[32] key_digest, [32] fingerprint"),
    "version": fields("u64 number, [32] digest"),
    "rewrapped": fields("[8] key_id, u64 count"),
    "reading": fields("text prefix, u64 calls, u64 last"),
    "pack": fields("[32] digest, u64 size"),
    "account": fields("u8 level, text name"),
    "bound": fields("account account, u8 window"),
    "setting": fields("text name, text value"),
    "pin": fields("text tool, [32] digest"),
    "sighting": fields("text tool, [32] digest, u8 is_trusted"),
    "policy": fields(
        "u8 policy_type, text* tools, text* arguments, text* results, u128? amount, u64 count,"
        "u16 start, u16 end, u8 days, text zone, u8 test, text pattern"
    ),
    "amount": fields("u8 kind, u128? nanos"),
    "minute": fields("u64 policy_id, u16 minute"),
    "facts": fields("u64 revision, amount amount, amount price, u64* broken, minute* minutes"),
    "use": fields("text name, [32]? digest"),
}

# Section 4.2: what every payload starts with.
FIRST_FIELD = Field("idempotency?", "idempotency")

# Section 4.3, by event kind and schema version.
KINDS = {
    (1, 1): kind("key.minted", "text prefix, [32] hash, text name, text* scopes"),
    (2, 1): kind("key.revoked", "text prefix"),
    (3, 1): kind("access.denied", "text required, text operation"),
    (16, 1): kind(
        "session.opened",
        "text session_id, text agent_id, text* scopes, u128? cap",
        "u64 ttl, u64? expires_at, u64? agent_limit",
    ),
    (17, 1): kind("session.revoked", "text session_id"),
    (18, 1): kind("session.denied", "text agent_id, u64 agent_limit, u64 agents_live"),
    (19, 1): kind("permission.checked", "text session_id, text scope, u8 verdict"),
    (32, 1): kind(
        "payment.authorized",
        "text authorization_id, text session_id, text agent_id",
        "u128 amount, text currency, text description, u128? remaining",
    ),
    (33, 1): kind(
        "payment.denied",
        "text authorization_id, text session_id, text agent_id",
        "u128 amount, text currency, text description, u128? remaining, u8 reason",
    ),
    (20, 1): kind(
        "delegation.denied",
        "text parent_session_id, text agent_id, text* scopes, u128? cap, u8 reason",
    ),
    (34, 1): kind(
        "payment.reserved",
        "text authorization_id, text session_id, text agent_id",
        "u128 amount, text currency, text description, text tool, text action",
        "text? approval_id, u128? remaining, u64 ttl, u64 expires_at",
    ),
    (35, 1): kind(
        "payment.settled",
        "text authorization_id, text session_id, text agent_id, u128 amount, u128 reserved",
    ),
    (36, 1): kind(
        "payment.released",
        "text authorization_id, text session_id, text agent_id, u128 amount, u8 reason",
    ),
    (37, 1): kind(
        "settlement.denied",
        "text authorization_id, text session_id, text agent_id, u128 amount, u128 reserved",
    ),
    (38, 1): kind("budget.set", "account account, u8 window, u128? limit"),
    (48, 1): kind(
        "action.logged",
        "text entry_id, text session_id, text agent_id, text action, text tool",
        "u128 cost, [32]? details_digest, text? flag",
    ),
    (49, 1): kind("action.rejected", "text session_id, text action, text tool, u8 reason"),
    (64, 1): kind("usage.metered", "u16 year, u8 month, reading* keys"),
    (80, 1): kind("signer.rotated", "[32] public_key"),
    (96, 1): kind(
        "approval_rule.added", "u64 rule_id, text type, u128 threshold, text* tools, u8 required"
    ),
    (97, 1): kind("approval_rule.removed", "u64 rule_id"),
    (98, 1): kind(
        "approval.requested",
        "text approval_id, text session_id, text agent_id, text tool, text action",
        "u128 amount, text currency, text description, [32]? arguments_digest, text reason",
        "u64 ttl, u64? expires_at, u8 required, u8 origin",
    ),
    (99, 1): kind(
        "approval.granted",
        "text approval_id, text decider, text note, u128? amount, u64? ttl",
        "u64? usable_until, u8 missing",
    ),
    (100, 1): kind("approval.denied", "text approval_id, text decider, text note"),
    (101, 1): kind("approval.expired", "text approval_id"),
    (81, 1): kind("ledger.repaired", "u64 kept, u64 restored, u64 lost, text damage, text source"),
    (112, 1): kind(
        "webhook.registered",
        "u64 webhook_id, text url, text name, text* events, [32] secret_digest",
    ),
    (113, 1): kind("webhook.removed", "u64 webhook_id"),
    (114, 1): kind("webhook.rotated", "u64 webhook_id, [32] secret_digest, u64 grace"),
    (115, 1): kind(
        "webhook.attempted",
        "u64 webhook_id, u64 source_seq, u8 topic, u32 attempt, u16 status, u8 failure",
        "u64 duration, [32]? excerpt_digest, u64? retry_at",
    ),
    (116, 1): kind("webhook.redelivered", "u64 webhook_id, u64 source_seq"),
    (117, 1): kind("webhook.tested", "u64 webhook_id"),
    (144, 1): kind(
        "anomaly_rule.added",
        "u64 rule_id, u8 rule_type, u128 threshold, text* tools",
        "u64 look_back, u64 min_samples, text? reason",
    ),
    (145, 1): kind("anomaly_rule.removed", "u64 rule_id"),
    (146, 1): kind(
        "anomaly.detected",
        "u64 rule_id, u8 rule_type, text agent_id, text? session_id, u64 subject, text tool",
        "text action, u128 amount, text reason, u64* evidence",
    ),
    (176, 1): kind(
        "upstream.registered",
        "text name, u8 transport, text target, text* args, setting* settings, pin*? tools",
    ),
    (177, 1): kind("upstream.removed", "text name"),
    (178, 1): kind("tools.observed", "text name, sighting* tools"),
    (179, 1): kind("tool.accepted", "text name, text tool, [32] digest, text decider, text note"),
    (184, 1): kind("policy.added", "u64 policy_id, policy policy, u64 revision"),
    (185, 1): kind("policy.removed", "u64 policy_id, u64 revision"),
    (192, 1): kind(
        "call.authorized",
        "text call_id, text session_id, text agent_id, u8 method, text upstream, u64 registration",
        "text name, facts facts, [32] arguments_digest, u128? price, u128? remaining",
        "text? approval_id, use* secrets",
    ),
    (193, 1): kind(
        "call.denied",
        "text call_id, text session_id, text agent_id, u8 method, text? upstream, u64? registration",
        "text name, facts facts, [32] arguments_digest, u8 reason, u64? policy_id, u128? price",
        "u128? remaining, bound? bound, text? approval_id, text? secret",
    ),
    (194, 1): kind(
        "call.completed",
        "text call_id, u8 outcome, u64 duration, u128? charged, [32]? details_digest",
    ),
    (160, 1): kind(
        "schedule.created", "text schedule_id, text name, u8 cadence, text delivery"
    ),
    (161, 1): kind("schedule.removed", "text schedule_id"),
    (162, 1): kind(
        "schedule.ran",
        "text schedule_id, u64 period_start, u64 period_end, u8 outcome, text error, pack? pack",
    ),
    (128, 1): kind(
        "secret.stored",
        "text name, u64 version, text required_scope, [32] digest, u64 sealed_len, version? erased",
    ),
    (129, 1): kind(
        "secret.read", "text name, u64 version, text session_id, text agent_id, [32] digest"
    ),
    (130, 1): kind(
        "secret.denied",
        "text name, u64? version, text session_id, text? agent_id, u8 reason, text? required_scope",
    ),
    (131, 1): kind("secret.deleted", "text name, u64? version, version* erased"),
    (132, 1): kind(
        "vault.rotated", "[8] to, rewrapped* from, u64 already_current, u64 failed"
    ),
}

# Section 4.4: what stands after the fields of schema version 1.
LATER_FIELDS = {
    16: fields("text parent_session_id"),
    32: fields("text tool, text action, text? approval_id"),
    33: fields("text tool, text action, bound? bound, text? approval_id"),
}

KINDS |= {
    (number, 2): Kind(KINDS[number, 1].name, [*KINDS[number, 1].fields, *later], 2)
    for number, later in LATER_FIELDS.items()
}


def kind_of(header: Header) -> Kind:
    """The kind that a header names."""
    found = KINDS.get((header.kind, header.schema_version))
    if found is None:
        named = f"kind {header.kind} with schema version {header.schema_version}"
        raise Malformed(f"{named} is not known")
    return found


class Payload:
    """Reads the bytes of a payload from the front.

    Section 4.1 leaves no choice in writing a value, and nothing else is read as that value: so
    encoding an event again gives the same bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.rest = memoryview(data)

    def take(self, count: int) -> bytes:
        if count > len(self.rest):
            raise Malformed("its payload ends too early")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return bytes(taken)

    def value(self, form: str) -> Any:
        """The table of section 4.1. An absent value is None."""
        if form.endswith("?"):
            return self.value(form[:-1]) if self.is_present() else None
        if form.endswith("*"):
            # Every item takes bytes, so a count that is too high runs into the payload's end.
            return [self.value(form[:-1]) for _ in range(self.number(64))]
        if form in RECORDS:
            return self.record(RECORDS[form])
        if form == "text":
            return self.text()
        if form.startswith("["):
            return self.take(int(form.strip("[]")))
        return self.number(int(form.removeprefix("u")))

    def record(self, wanted: list[Field]) -> dict[str, Any]:
        return {field.name: self.value(field.type) for field in wanted}

    def number(self, bits: int) -> int:
        return int.from_bytes(self.take(bits // 8), "little")

    def text(self) -> str:
        try:
            return self.take(self.number(64)).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a text in its payload is not UTF-8") from None

    def is_present(self) -> bool:
        first = self.number(8)
        if first > 1:
            raise Malformed("the first byte of an optional value in its payload is not 0 or 1")
        return first == 1


def read_event(kind: Kind, data: bytes) -> dict[str, Any]:
    """The event that a payload encodes."""
    payload = Payload(data)
    event = payload.record([FIRST_FIELD, *kind.fields])
    if payload.rest:
        raise Malformed("its payload goes on after the last field")
    check_values(kind, event)
    check_version(kind, event)
    return event


# --- Section 4.4: values ---

KEY_SCOPE_FORM = (
    r"\*|vault:rotate"
    r"|(sessions|vault|audit|payments|webhooks|proxy|approvals|admin):(read|write|\*)"
)


def is_key_prefix(text: str) -> bool:
    return re.fullmatch(KEY_PREFIX_FORM, text) is not None


def are_key_scopes(scopes: list[str]) -> bool:
    """They are ASCII, so that sorted by characters is sorted by bytes."""
    all_known = all(re.fullmatch(KEY_SCOPE_FORM, scope) for scope in scopes)
    return 1 <= len(scopes) <= 64 and all_known and scopes == sorted(set(scopes))


def at_most_characters(count: int) -> Callable[[str | None], bool]:
    return lambda text: text is None or len(text) <= count


def is_secret_name(text: str) -> bool:
    is_plain = not any(unicodedata.category(character) == "Cc" for character in text)
    is_addressable = not {"", ".", ".."} & set(text.split("/"))
    return 1 <= len(text) <= 256 and is_plain and is_addressable


def is_account(account: dict[str, Any]) -> bool:
    longest = {0: 128, 1: 128, 2: 0}
    return account["level"] in longest and len(account["name"]) <= longest[account["level"]]


def is_upstream_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None


def is_amount(amount: dict[str, Any]) -> bool:
    """An amount is given where there is one, and nowhere else."""
    return amount["kind"] <= 2 and (amount["kind"] == 1) == (amount["nanos"] is not None)


# Parameters of a policy, and the types that have them.
POLICY_PARAMETERS = {
    "tools": {0, 1, 2, 6, 7, 8, 9},
    "arguments": {7, 8, 9},
    "results": {9},
    "amount": {3, 6, 7},
    "count": {4, 6},
    "start": {5},
    "end": {5},
    "days": {5},
    "zone": {5},
    "test": {8},
    "pattern": {8},
}


def is_policy(policy: dict[str, Any]) -> bool:
    """A policy has the parameters of its type, and no others."""
    which = policy["policy_type"]
    if which > 9:
        return False
    for name, types in POLICY_PARAMETERS.items():
        is_given = policy[name] is not None if name == "amount" else bool(policy[name])
        if is_given and which not in types:
            return False
    if which == 7:
        return len(policy["arguments"]) == (1 if policy["amount"] is None else 0)
    if which == 8:
        takes_pattern = policy["test"] in {2, 3}
        if policy["pattern"] and not takes_pattern:
            return False
        return len(policy["arguments"]) == 1 and policy["test"] <= 3
    return (
        (which != 0 or len(policy["tools"]) == 1)
        and (which != 3 or policy["amount"] is not None)
        and (which != 6 or policy["count"] <= 255)
    )


def between(low: int, high: int) -> Callable[[int], bool]:
    return lambda number: low <= number <= high


# By the name of the field; where that is not enough, by the kind and the name.
ALLOWED_VALUES: dict[str, Callable[[Any], bool]] = {
    "prefix": is_key_prefix,
    "key.minted scopes": are_key_scopes,
    "session_id": at_most_characters(128),
    "agent_id": at_most_characters(128),
    "parent_session_id": at_most_characters(128),
    "approval_id": lambda text: text is None or len(text) <= 64,
    "account": lambda account: is_account(account),
    "bound": lambda bound: bound is None or (is_account(bound["account"]) and bound["window"] <= 3),
    "window": between(0, 3),
    "origin": between(0, 2),
    "call_id": at_most_characters(60),
    "method": between(0, 2),
    "transport": between(0, 1),
    "facts": lambda facts: is_amount(facts["amount"]) and is_amount(facts["price"]),
    "secrets": lambda secrets: all(is_secret_name(secret["name"]) for secret in secrets),
    "secret": is_secret_name,
    "upstream": is_upstream_name,
    "upstream.registered name": is_upstream_name,
    "upstream.removed name": is_upstream_name,
    "tools.observed name": is_upstream_name,
    "tools.observed tools": lambda tools: all(tool["is_trusted"] <= 1 for tool in tools),
    "tool.accepted name": is_upstream_name,
    "policy": lambda policy: is_policy(policy),
    "call.denied reason": between(0, 11),
    "call.completed outcome": between(0, 7),
    "entry_id": at_most_characters(64),
    "authorization_id": at_most_characters(64),
    "schedule_id": at_most_characters(64),
    "delivery": lambda text: text.startswith(("webhook:", "email:")),
    "schedule.created cadence": between(0, 3),
    "schedule.ran outcome": between(0, 5),
    "permission.checked verdict": between(0, 4),
    "payment.denied reason": between(0, 6),
    "delegation.denied reason": between(0, 4),
    "payment.released reason": between(0, 1),
    "action.rejected reason": between(0, 1),
    "secret.stored name": is_secret_name,
    "secret.read name": is_secret_name,
    "secret.denied name": is_secret_name,
    "secret.deleted name": is_secret_name,
    "secret.denied reason": between(0, 4),
    "topic": between(1, 9),
    "failure": between(0, 7),
    "rule_type": between(0, 7),
    "year": between(1970, 9999),
    "month": between(1, 12),
}


def check_version(kind: Kind, event: dict[str, Any]) -> None:
    """An event is written in the oldest schema version that can carry it (section 4.4)."""
    is_later_reason = kind.name == "payment.denied" and event["reason"] > 3
    if kind.schema_version == 1:
        if is_later_reason:
            raise Malformed("reason in its payload has a value that is not allowed")
        return
    says_more = kind.name == "session.opened" or is_later_reason
    says_more |= any(event.get(name) for name in ("tool", "action", "bound"))
    if not says_more and event["approval_id"] is None:
        raise Malformed("schema version 1 can carry it")


def check_values(kind: Kind, record: dict[str, Any]) -> None:
    for name, value in record.items():
        allowed = ALLOWED_VALUES.get(name) or ALLOWED_VALUES.get(f"{kind.name} {name}")
        if allowed and value is not None and not allowed(value):
            raise Malformed(f"{name} in its payload has a value that is not allowed")
    if kind.name == "upstream.registered" and record["transport"] == 0 and record["args"]:
        raise Malformed("args in its payload has a value that is not allowed")
    if kind.name == "webhook.attempted" and (record["status"] == 0) == (record["failure"] == 0):
        raise Malformed("its payload has neither a status nor a failure, or both")
    for reading in record.get("keys", []):
        check_values(kind, reading)
    if kind.name == "anomaly_rule.added":
        check_rule(record)


# Parameters of a rule, and the rule types that have them.
RULE_PARAMETERS = {"threshold": {0, 1, 3, 4, 7}, "tools": {2}, "look_back": {3, 7}, "min_samples": {4, 5, 6}}


def check_rule(rule: dict[str, Any]) -> None:
    """A rule has the parameters of its type, and only an amount may need more than 64 bits."""
    for name, types in RULE_PARAMETERS.items():
        if rule[name] and rule["rule_type"] not in types:
            raise Malformed(f"{name} in its payload has a value that is not allowed")
    if rule["rule_type"] != 0 and rule["threshold"] >= 2**64:
        raise Malformed("threshold in its payload has a value that is not allowed")
