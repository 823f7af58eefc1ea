//! How much of anything one request or event may hold, each with its reason.
//!
//! Together they keep every event below the entry limit of the ledger format (65,535 bytes), which a test of
//! `format` holds.

/// Characters of an agent id. The contract's limit.
pub const AGENT_ID_CHARS_MAX: usize = 128;
/// Characters of a session id as a client may send it. The contract's limit; issued ones have 36.
pub const SESSION_ID_CHARS_MAX: usize = 128;
/// Characters of one session scope. Room for `resource:action:object` with long names.
pub const SCOPE_CHARS_MAX: usize = 128;
/// Scopes of one session. At four bytes a character, all of them take 32 KiB, half an entry.
pub const SESSION_SCOPE_COUNT_MAX: usize = 64;
/// Seconds a session may live, 30 days. The contract's limit.
pub const SESSION_TTL_S_MAX: u64 = 2_592_000;
/// Characters of an API key's name.
pub const KEY_NAME_CHARS_MAX: usize = 256;
/// Scopes of one API key. The vocabulary has 26 words; duplicates are dropped before this is checked.
pub const KEY_SCOPE_COUNT_MAX: usize = 64;
/// Characters of a currency code. The contract's limit.
pub const CURRENCY_CHARS_MAX: usize = 8;
/// Characters of a payment's description. The contract's limit.
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Characters of an audited action's name.
pub const ACTION_CHARS_MAX: usize = 512;
/// Characters of a tool's name.
pub const TOOL_CHARS_MAX: usize = 256;
/// Characters of a schedule's name. The contract's limit.
pub const SCHEDULE_NAME_CHARS_MAX: usize = 128;
/// Characters of where a schedule's packs go. The contract's limit.
pub const DELIVERY_CHARS_MAX: usize = 256;
/// Characters of what went wrong in a run. The contract's limit.
pub const RUN_ERROR_CHARS_MAX: usize = 512;
/// Schedules of one tenant. Each one that is due builds a pack, and one that cannot deliver tries again at every scan.
pub const SCHEDULE_COUNT_MAX: usize = 100;
/// Characters of a secret's name. At four bytes each, one kibibyte of an address.
pub const SECRET_NAME_CHARS_MAX: usize = 256;
/// Versions of one secret that are kept. Enough to go back to; each is a value that could leak.
pub const SECRET_VERSION_COUNT_MAX: usize = 10;
/// API keys named in one meter reading; a reading with more is split. 64 bytes each, a fifth of an entry.
pub const METERED_KEY_COUNT_MAX: usize = 200;
/// Sessions above a session at most. The contract's limit; it bounds what every decision of the lowest one looks at.
pub const DELEGATION_DEPTH_MAX: u8 = 8;
/// Reservations of a tenant that may be open. At 200 bytes each, all of them take 20 MB.
pub const RESERVATION_COUNT_MAX: usize = 100_000;
/// Seconds for which an amount may be set aside, 7 days: as long as card networks hold one.
pub const RESERVATION_TTL_S_MAX: u64 = 604_800;
/// Approval rules of a tenant. Every payment looks at all of them.
pub const APPROVAL_RULE_COUNT_MAX: usize = 256;
/// Requests of a tenant that may wait for a decision. More than people can decide.
pub const APPROVAL_PENDING_COUNT_MAX: usize = 10_000;
/// Deciders that one request may need.
pub const APPROVERS_MAX: u8 = 16;
/// Tools that one approval rule may name. At four bytes a character, all of them take 32 KiB, half an entry.
pub const RULE_TOOL_COUNT_MAX: usize = 32;
/// Characters of a rule's type.
pub const RULE_KIND_CHARS_MAX: usize = 64;
/// Characters of why an approval is asked for.
pub const REASON_CHARS_MAX: usize = 2000;
/// Characters of what a decider says about a decision.
pub const NOTE_CHARS_MAX: usize = 2000;
/// Characters of a decider's name.
pub const DECIDER_CHARS_MAX: usize = 128;
/// Seconds for which a request waits that a payment led to. The contract's hour.
pub const PAYMENT_APPROVAL_TTL_S: u64 = 3600;
/// Seconds for which a request may wait, 30 days, unless it waits for ever.
pub const APPROVAL_TTL_S_MAX: u64 = 2_592_000;
/// Seconds for which a first outcome is replayed to retries with the same idempotency key. The contract's day.
pub const IDEMPOTENCY_TTL_S: u64 = 86_400;
/// Characters of a URL. What servers and browsers commonly take.
pub const URL_CHARS_MAX: usize = 2048;
/// Webhooks of one tenant at once. Every one of them is called for each event that it subscribes to.
pub const WEBHOOK_COUNT_MAX: usize = 64;
/// Characters of a webhook's name.
pub const WEBHOOK_NAME_CHARS_MAX: usize = 256;
/// Names of events that one webhook subscribes to. There are fewer than ten; room for those to come.
pub const WEBHOOK_EVENT_COUNT_MAX: usize = 64;
/// Characters of an event's name in a subscription.
pub const WEBHOOK_EVENT_CHARS_MAX: usize = 64;
/// Notifications that wait for one webhook. What comes on top is given up at once, so that a receiver that is gone for good
/// does not take more memory every day: 10,000 of them take about 2 MiB.
pub const OUTSTANDING_COUNT_MAX: u64 = 10_000;
/// Notifications that one webhook was given up on and that can be tried again. Older ones stay in the ledger only.
pub const DEAD_LETTER_COUNT_MAX: u64 = 10_000;
/// Anomaly rules of one tenant. Each that matches adds an entry to the decision.
pub const ANOMALY_RULE_COUNT_MAX: usize = 32;
/// Tools that one anomaly rule names. At 1 KiB each, all of them take half an entry.
pub const ANOMALY_RULE_TOOL_COUNT_MAX: usize = 32;
/// Characters of what a flag says. Room for a tool's name and a sentence.
pub const ANOMALY_REASON_CHARS_MAX: usize = 512;
/// The most that a rule counts to. Of an agent that does as much, this many deeds are kept, 16 bytes each.
pub const ANOMALY_COUNT_MAX: u64 = 10_000;
/// Seconds that a rule looks back, 30 days.
pub const ANOMALY_WINDOW_S_MAX: u64 = 2_592_000;
/// Times the average that a spike can be, a million.
pub const ANOMALY_FACTOR_MAX: u64 = 1_000_000;
/// Deeds that a rule may want to know of before it compares an agent with itself.
pub const ANOMALY_SAMPLE_COUNT_MAX: u64 = 1_000_000;
/// Events that an anomaly names as its evidence, its subject included. Enough to see the pattern.
pub const ANOMALY_EVIDENCE_COUNT_MAX: usize = 32;
/// Tools of an agent that are remembered. At 1 KiB each, 256 KiB for an agent that uses ever new ones; what it uses beyond
/// them never becomes usual.
pub const ANOMALY_KNOWN_TOOL_COUNT_MAX: usize = 256;
/// Upstreams of one tenant. Each keeps connections, or a process.
pub const UPSTREAM_COUNT_MAX: usize = 64;
/// Bytes of an upstream's name. With a tool's name behind it, it fits what models take for a name.
pub const UPSTREAM_NAME_LEN_MAX: usize = 64;
/// Tools of one upstream. At 170 bytes each, all of them take two thirds of an entry.
pub const UPSTREAM_TOOL_COUNT_MAX: usize = 256;
/// Bytes of the name of an upstream's tool. The protocol's limit.
pub const UPSTREAM_TOOL_LEN_MAX: usize = 128;
/// Headers, or variables of the environment, of one upstream.
pub const UPSTREAM_SETTING_COUNT_MAX: usize = 16;
/// Arguments of an upstream's command.
pub const UPSTREAM_ARG_COUNT_MAX: usize = 32;
/// Bytes of a command, of one of its arguments, and of a name or value that is set. All of them together take 17 KiB, which
/// fits an entry beside as many tools as there may be.
pub const UPSTREAM_TEXT_LEN_MAX: usize = 256;
/// Policies of one tenant. Every call is held against all of them.
pub const POLICY_COUNT_MAX: usize = 64;
/// Tools that one policy names. At 201 bytes each, all of them take 25 KiB.
pub const POLICY_TOOL_COUNT_MAX: usize = 128;
/// Bytes of a tool's name in a policy: an upstream's, a dot, and its tool's.
pub const POLICY_TOOL_LEN_MAX: usize = UPSTREAM_NAME_LEN_MAX + 1 + UPSTREAM_TOOL_LEN_MAX;
/// Arguments, and parts of results, that one policy names. At four bytes a character, both lists take 33 KiB, which fits an
/// entry beside as many tools as there may be.
pub const POLICY_PATH_COUNT_MAX: usize = 16;
/// Characters of the name of a time zone. The longest of the IANA database has 32.
pub const POLICY_ZONE_CHARS_MAX: usize = 64;
/// Characters of a pattern.
pub const POLICY_PATTERN_CHARS_MAX: usize = 512;
/// Characters of a path of names to an argument.
pub const POLICY_PATH_CHARS_MAX: usize = 256;
/// Calls a minute that a limit may allow. Of an agent that makes as many, the last minute's are kept, 40 bytes each.
pub const RATE_LIMIT_MAX: u64 = 100_000;
/// Calls of a tenant that may be without an outcome. At 500 bytes each, all of them take 5 MB.
pub const OPEN_CALL_COUNT_MAX: usize = 10_000;
/// Seconds for which a request waits that a call led to. The contract's hour.
pub const CALL_APPROVAL_TTL_S: u64 = 3600;
/// Secrets that one call may need.
pub const CALL_SECRET_COUNT_MAX: usize = 16;
/// Characters of what is called: a tool's name, or a resource's address.
pub const CALL_NAME_CHARS_MAX: usize = 2048;
