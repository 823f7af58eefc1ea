//! A stream about secrets, fixed for ever: stored twice, read, denied, wrapped anew, erased.

use haldir::domain::Event;
use haldir::domain::id::{AgentId, SessionId};
use haldir::domain::keys::KeyMinted;
use haldir::domain::scope::KeyScopes;
use haldir::domain::secrets::{
    Rewrapped, SecretDeleted, SecretDenial, SecretDenied, SecretName, SecretRead, SecretStored, VaultRotated,
    VersionRef,
};
use haldir::domain::sessions::SessionOpened;

use super::prefix;

/// The events of a stream of its own. The rules decided them.
pub(crate) fn vault_events() -> Vec<Event> {
    let session_id = SessionId::issue([7; 24]);
    let agent_id = AgentId::parse("agent-1").unwrap();
    let name = || SecretName::parse("stripe/key").unwrap();
    let stored = |version, digest, required_scope: &str| {
        Event::SecretStored(SecretStored {
            name: name(),
            version,
            required_scope: required_scope.into(),
            digest: [digest; 32],
            sealed_len: 23,
            erased: None,
        })
    };
    let denied = |name: &str, version, reason, required_scope: Option<&str>| {
        Event::SecretDenied(SecretDenied {
            name: SecretName::parse(name).unwrap(),
            version,
            session_id: session_id.clone(),
            agent_id: Some(agent_id.clone()),
            reason,
            required_scope: required_scope.map(str::to_owned),
        })
    };
    vec![
        Event::KeyMinted(KeyMinted {
            prefix: prefix(),
            hash: [0x11; 32],
            name: "first".into(),
            scopes: KeyScopes::all(),
        }),
        Event::SessionOpened(SessionOpened {
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            scopes: vec!["read".into()],
            cap: None,
            ttl_s: 0,
            expires_at: None,
            agent_limit: None,
            parent: None,
        }),
        stored(1, 0x44, "admin"),
        stored(2, 0x55, "read"),
        Event::SecretRead(SecretRead {
            name: name(),
            version: 2,
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            digest: [0x55; 32],
        }),
        denied("stripe/key", Some(1), SecretDenial::ScopeMissing, Some("admin")),
        denied("other", None, SecretDenial::SecretUnknown, None),
        Event::VaultRotated(VaultRotated {
            to: [0x66; 8],
            from: vec![Rewrapped { key_id: [0x77; 8], count: 1 }],
            already_current: 1,
            failed: 0,
        }),
        Event::SecretDeleted(SecretDeleted {
            name: name(),
            version: None,
            erased: vec![
                VersionRef { version: 1, digest: [0x44; 32] },
                VersionRef { version: 2, digest: [0x55; 32] },
            ],
        }),
        Event::SecretDenied(SecretDenied {
            name: name(),
            version: None,
            session_id: SessionId::parse("nobody's").unwrap(),
            agent_id: None,
            reason: SecretDenial::SessionUnknown,
            required_scope: None,
        }),
    ]
}
