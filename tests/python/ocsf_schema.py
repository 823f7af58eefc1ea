"""The OCSF schema that events are held against: 1.8.0 as it is published, and what 1.9.0 changed in it.

`ocsf-json-schema` carries the published schemas up to 1.8.0 and turns them into JSON Schema. What 1.9.0
added or deprecated among the classes and objects that Haldir uses is written down here, from the schema's
change log for 1.9.0 (github.com/ocsf/ocsf-schema, CHANGELOG.md, pull requests 1603, 1618, 1641, 1661, 1662,
1684, 1702) and the files under `events`, `objects` and `profiles` that it names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.9.0"
BASE_VERSION = "1.8.0"

Part = dict[str, Any]

SERIALIZATIONS = ["Unknown", "Flat", "JCS", "JWS", "COSE", "DSSE", "Authenticode", "Code Signing", "App Package"]
USER_ACTIVITIES = [
    "Unknown", "Create", "Update", "Delete", "Enable", "Disable", "Lock", "Unlock", "Password Change", "Password Reset",
    "Attach Policies", "Detach Policies", "MFA Factor Enable", "MFA Factor Disable", "Assign Privileges",
    "Remove Privileges", "Assign Roles", "Remove Roles", "Add Programmatic Credentials", "Remove Programmatic Credentials",
]


def text(requirement: str = "optional") -> Part:
    return {"type": "string_t", "requirement": requirement, "caption": ""}


def number(captions: list[str], requirement: str = "recommended") -> Part:
    return {"type": "integer_t", "requirement": requirement, "caption": "", "enum": enum(captions)}


def enum(captions: list[str]) -> Part:
    return {str(value): {"caption": caption} for value, caption in [*enumerate(captions), (99, "Other")]}


def item(name: str, requirement: str = "optional", **more: Any) -> Part:
    return {"type": "object_t", "object_type": name, "requirement": requirement, "caption": "", **more}


def items(name: str, requirement: str = "optional", **more: Any) -> Part:
    return item(name, requirement, is_array=True, **more)


@cache
def schema() -> Part:
    """The schema of 1.9.0, as far as Haldir uses it."""
    schema = copy.deepcopy(get_ocsf_schema(BASE_VERSION))
    schema["version"] = VERSION
    classes, objects = schema["classes"], schema["objects"]

    # 1603: User Management replaces Account Change and User Access.
    managed = copy.deepcopy(classes["account_change"])
    managed.update(name="user_management", uid=3007, caption="User Management")
    attributes = managed["attributes"]
    for gone in ["user_result", "policy"]:
        del attributes[gone]
    attributes["activity_id"]["enum"] = enum(USER_ACTIVITIES)
    attributes["class_uid"]["enum"] = {"3007": {"caption": "User Management"}}
    attributes["type_uid"]["enum"] = {
        str(300700 + int(value)): {"caption": f"User Management: {activity['caption']}"}
        for value, activity in enum(USER_ACTIVITIES).items()
    }
    attributes["privileges"] = {**text("recommended"), "is_array": True}
    attributes["updated_user"] = item("user", "recommended")
    attributes["resources"] = items("resource_details", "recommended")
    classes["user_management"] = managed
    for old in ["account_change", "user_access"]:
        for attribute in classes[old]["attributes"].values():
            attribute["@deprecated"] = {"since": VERSION}
    attributes = classes["authorize_session"]["attributes"]
    attributes["groups"] = items("group", "recommended")
    classes["authorize_session"]["constraints"] = {"at_least_one": ["privileges", "groups"]}

    # 1618
    attributes = classes["entity_management"]["attributes"]
    attributes["entity_result"]["@deprecated"] = {"since": VERSION}
    attributes["updated_entity"] = item("managed_entity", "recommended")

    # 1641
    objects["ai_agent"] = {
        "caption": "AI Agent",
        "attributes": {name: text() for name in ["instance_uid", "name", "type", "uid", "version"]},
        "constraints": {"at_least_one": ["name", "uid"]},
    }
    for described in classes.values():
        if described["category_uid"] in (3, 6):
            described["attributes"]["ai_agent"] = item("ai_agent", profiles=["ai_operation"])

    # 1661, 1662, 1684
    for described in classes.values():
        described["attributes"]["attestation_list"] = items("attestation", profiles=["record_integrity"])
    objects["attestation"] = {
        "caption": "Attestation",
        "attributes": {
            "uid": text(),
            "authority_uid": text("recommended"),
            "signatures": items("digital_signature", "recommended"),
            "fingerprint": item("fingerprint", "recommended"),
            "prev_event": item("prev_event", "recommended"),
            "chain_uid": text("recommended"),
        },
        "constraints": {"at_least_one": ["fingerprint", "signatures"]},
    }
    objects["prev_event"] = {
        "caption": "Previous Event",
        "attributes": {
            "uid": text("required"),
            "type_uid": {"type": "long_t", "requirement": "recommended", "caption": ""},
            "fingerprint": item("fingerprint"),
        },
    }
    for name in ["digital_signature", "fingerprint"]:
        objects[name]["attributes"]["serialization"] = text()
        objects[name]["attributes"]["serialization_id"] = number(SERIALIZATIONS)
    objects["fingerprint"]["attributes"]["encoding"] = text()
    objects["fingerprint"]["attributes"]["encoding_id"] = number(["Unknown", "Hex", "Base64", "Base64URL"])

    # 1702
    for old in ["app_name", "app_uid"]:
        objects["actor"]["attributes"][old]["@deprecated"] = {"since": VERSION}
    return schema


def class_of(event: Part) -> Part:
    """The class that an event names."""
    return next(described for described in schema()["classes"].values() if described["uid"] == event["class_uid"])


@cache
def _json_schema(class_name: str, profiles: tuple[str, ...]) -> Part:
    return OcsfJsonSchemaEmbedded(schema()).get_class_schema(class_name, list(profiles))


def flaws(event: Part) -> list[str]:
    """What is wrong with an event: what JSON Schema says, and the use of anything deprecated."""
    of_class = _json_schema(class_of(event)["name"], tuple(event["metadata"]["profiles"]))
    errors = Draft202012Validator(of_class).iter_errors(event)
    return [f"{error.json_path}: {error.message}" for error in errors] + list(deprecated(event, of_class, of_class))


def deprecated(value: Any, described: Part, whole: Part, place: str = "$") -> Iterator[str]:
    """Where a value uses what is deprecated."""
    if "$ref" in described:
        described = whole["$defs"][described["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from deprecated(inner, described.get("items", {}), whole, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name, inner in value.items():
            attribute = described.get("properties", {}).get(name, {})
            if attribute.get("deprecated"):
                yield f"{place}.{name}: deprecated"
            yield from deprecated(inner, attribute, whole, f"{place}.{name}")
