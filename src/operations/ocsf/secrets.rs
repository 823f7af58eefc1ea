//! Secrets in the words of OCSF.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{Class, Mapped};
use crate::domain::secrets::{
    SecretDeleted, SecretDenial, SecretDenied, SecretName, SecretRead, SecretStored, VaultRotated, VersionRef,
};

/// A secret as a resource: its name, and what is known of its value, which is nothing.
fn resource_of(name: &SecretName, data: Value) -> Value {
    let mut resource = json!({ "type": "secret", "name": name.as_str() });
    resource["data"] = data;
    json!([resource])
}

fn erased(versions: &[VersionRef]) -> Value {
    let one = |it: &VersionRef| json!({ "version": it.version, "digest": HEXLOWER.encode(&it.digest) });
    versions.iter().map(one).collect()
}

pub(super) fn stored(event: &SecretStored) -> Mapped {
    let data = json!({
        "version": event.version,
        "digest": HEXLOWER.encode(&event.digest),
        "sealed_len": event.sealed_len,
        "required_scope": event.required_scope,
        "erased": event.erased.as_ref().map(|it| erased(std::slice::from_ref(it))),
    });
    let attributes =
        json!({ "api": { "operation": "store secret" }, "resources": resource_of(&event.name, data) });
    Mapped::new(Class::ApiActivity, (1, "Create"), attributes)
}

pub(super) fn read(event: &SecretRead) -> Mapped {
    let data = json!({ "version": event.version, "digest": HEXLOWER.encode(&event.digest) });
    let attributes =
        json!({ "api": { "operation": "read secret" }, "resources": resource_of(&event.name, data) });
    Mapped::new(Class::ApiActivity, (2, "Read"), attributes).by(&event.agent_id).within(&event.session_id)
}

pub(super) fn denied(event: &SecretDenied) -> Mapped {
    let is_known = event.version.is_some() || event.required_scope.is_some();
    let data =
        is_known.then(|| json!({ "version": event.version, "required_scope": event.required_scope })).into();
    let attributes =
        json!({ "api": { "operation": "read secret" }, "resources": resource_of(&event.name, data) });
    let mapped = Mapped::new(Class::ApiActivity, (2, "Read"), attributes).within(&event.session_id);
    let mapped = mapped.failed(match event.reason {
        SecretDenial::SessionUnknown => "there is no such session",
        SecretDenial::SessionRevoked => "the session was revoked",
        SecretDenial::SessionExpired => "the session has expired",
        SecretDenial::SecretUnknown => "there is no such secret",
        SecretDenial::ScopeMissing => "the session does not hold the scope",
    });
    match &event.agent_id {
        Some(agent) => mapped.by(agent),
        None => mapped,
    }
}

pub(super) fn deleted(event: &SecretDeleted) -> Mapped {
    let data = json!({ "version": event.version, "erased": erased(&event.erased) });
    let attributes =
        json!({ "api": { "operation": "delete secret" }, "resources": resource_of(&event.name, data) });
    Mapped::new(Class::ApiActivity, (4, "Delete"), attributes)
}

pub(super) fn rotated(event: &VaultRotated) -> Mapped {
    let entity = json!({ "type_id": 99, "type": "master key", "uid": HEXLOWER.encode(&event.to) });
    let from =
        event.from.iter().map(|it| json!({ "key_id": HEXLOWER.encode(&it.key_id), "count": it.count }));
    let attributes = json!({
        "entity": entity,
        "unmapped": {
            "from": from.collect::<Vec<_>>(),
            "already_current": event.already_current,
            "failed": event.failed,
        },
    });
    Mapped::new(Class::EntityManagement, (3, "Update"), attributes)
}
