//! Names of things: tenants, keys, sessions, entries, requests, and who acted.
//!
//! Ids that Haldir issues are a prefix and URL-safe base64 of bytes from the operating system's random source;
//! this module only shapes those bytes. Copies of an id share its text.

use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

/// Bytes a fixed header field has for a tenant or an actor.
pub const SHORT_NAME_LEN_MAX: usize = 24;
/// Bytes a fixed header field has for a request id; also the contract's limit in characters.
pub const REQUEST_ID_LEN_MAX: usize = 64;

/// A tenant, the owner of one ledger stream.
///
/// The first 16 hex digits of the SHA-256 of the tenant's first API key. Any 1 to 24 bytes of `a-z 0-9 _` are
/// accepted as the id of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Reads a tenant id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = (1..=SHORT_NAME_LEN_MAX).contains(&text.len());
        (fits && text.bytes().all(legal)).then(|| Self(text.into()))
    }

    /// The tenant that a first API key with this SHA-256 founds.
    #[must_use]
    pub fn of_first_key(key_hash: &[u8; 32]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&key_hash[..8]).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Declares an id that is a short text in the domain.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, chars_max = $chars_max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text as an id; `None` when it is longer than any id of this kind may be.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                (text.chars().count() <= $chars_max).then(|| Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A session. Issued as `ses_` and 32 characters; clients may send any text of up to 128 characters.
    SessionId,
    chars_max = super::limits::SESSION_ID_CHARS_MAX
);
text_id!(
    /// An agent, named by the tenant. Any text of up to 128 characters.
    AgentId,
    chars_max = super::limits::AGENT_ID_CHARS_MAX
);
text_id!(
    /// An audit entry. Issued as `aud_` and 22 characters.
    EntryId,
    chars_max = 64
);
text_id!(
    /// A payment authorisation. Issued as `auth_` and 22 characters.
    AuthorizationId,
    chars_max = 64
);

text_id!(
    /// A call through the proxy. Issued as `call_` and 22 characters; the id of its audit entry is made of it.
    CallId,
    chars_max = 60
);
text_id!(
    /// A schedule of evidence packs. Issued as `sched_` and 16 characters.
    ScheduleId,
    chars_max = 64
);
text_id!(
    /// A request for an approval. Issued as `apr_` and 22 characters.
    ApprovalId,
    chars_max = 64
);

impl ApprovalId {
    /// The id made of 16 random bytes.
    #[must_use]
    pub fn issue(random: [u8; 16]) -> Self {
        Self(format!("apr_{}", BASE64URL_NOPAD.encode(&random)).into())
    }
}

impl CallId {
    /// The id made of 16 random bytes.
    #[must_use]
    pub fn issue(random: [u8; 16]) -> Self {
        Self(format!("call_{}", BASE64URL_NOPAD.encode(&random)).into())
    }
}

impl SessionId {
    /// The id made of 24 random bytes.
    #[must_use]
    pub fn issue(random: [u8; 24]) -> Self {
        Self(format!("ses_{}", BASE64URL_NOPAD.encode(&random)).into())
    }
}

impl EntryId {
    /// The id made of 16 random bytes.
    #[must_use]
    pub fn issue(random: [u8; 16]) -> Self {
        Self(format!("aud_{}", BASE64URL_NOPAD.encode(&random)).into())
    }
}

impl EntryId {
    /// The audit entry of a call: `aud_` and what follows `call_` in the call's id.
    #[must_use]
    pub fn of_call(call_id: &CallId) -> Self {
        let own = call_id.as_str();
        Self(format!("aud_{}", own.strip_prefix("call_").unwrap_or(own)).into())
    }
}

impl AuthorizationId {
    /// The id made of 16 random bytes.
    #[must_use]
    pub fn issue(random: [u8; 16]) -> Self {
        Self(format!("auth_{}", BASE64URL_NOPAD.encode(&random)).into())
    }
}

impl ScheduleId {
    /// The id made of 12 random bytes.
    #[must_use]
    pub fn issue(random: [u8; 12]) -> Self {
        Self(format!("sched_{}", BASE64URL_NOPAD.encode(&random)).into())
    }
}

/// The first 12 characters of an API key: its public handle, safe to show and to log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// Characters of a prefix.
    pub const LEN: usize = 12;

    /// Reads a prefix: 12 characters of visible ASCII.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = text.len() == Self::LEN && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal.then(|| Self(text.into()))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Correlates an event with the request that caused it: 1 to 64 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Reads a request id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=REQUEST_ID_LEN_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.into()))
    }

    /// The id made of 16 random bytes: 32 hex digits.
    #[must_use]
    pub fn issue(random: [u8; 16]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&random).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// On whose authority something was done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Actor {
    /// A caller with an API key of the tenant.
    Key(KeyPrefix),
    /// Whoever runs the process on the machine that holds the data directory.
    Operator,
    /// A caller who presented the bootstrap token.
    Bootstrap,
    /// A keyless caller from loopback, while no key existed anywhere.
    FirstCaller,
    /// Haldir itself, on a timer.
    System,
    /// Whoever holds the signed link of a request for an approval.
    ApprovalLink,
}

impl Actor {
    /// Reads the text form that the ledger holds.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "operator" => Some(Self::Operator),
            "bootstrap" => Some(Self::Bootstrap),
            "first-caller" => Some(Self::FirstCaller),
            "system" => Some(Self::System),
            "approval-link" => Some(Self::ApprovalLink),
            other => KeyPrefix::parse(other.strip_prefix("key:")?).map(Self::Key),
        }
    }
}

impl fmt::Display for Actor {
    /// `key:<prefix>`, `operator`, `bootstrap`, `first-caller`, `system` or `approval-link`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(prefix) => write!(f, "key:{prefix}"),
            Self::Operator => f.write_str("operator"),
            Self::Bootstrap => f.write_str("bootstrap"),
            Self::FirstCaller => f.write_str("first-caller"),
            Self::System => f.write_str("system"),
            Self::ApprovalLink => f.write_str("approval-link"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_ids_have_the_contracts_shapes() {
        assert_eq!(SessionId::issue([0xff; 24]).as_str().len(), 4 + 32);
        assert_eq!(EntryId::issue([0; 16]).as_str().len(), 4 + 22);
        assert_eq!(AuthorizationId::issue([0; 16]).as_str().len(), 5 + 22);
        assert_eq!(ScheduleId::issue([0; 12]).as_str().len(), 6 + 16);
        assert_eq!(RequestId::issue([0xab; 16]).as_str(), "ab".repeat(16));
    }

    #[test]
    fn actors_survive_their_text_form_and_fit_their_field() {
        let prefix = KeyPrefix::parse("hld_AbC-_012").unwrap();
        for actor in
            [Actor::Key(prefix), Actor::Operator, Actor::Bootstrap, Actor::FirstCaller, Actor::System]
        {
            let text = actor.to_string();
            assert!(text.len() <= SHORT_NAME_LEN_MAX, "{text}");
            assert_eq!(Actor::parse(&text), Some(actor));
        }
        assert_eq!(Actor::parse("key:short"), None);
        assert_eq!(Actor::parse("nobody"), None);
    }

    #[test]
    fn names_with_odd_bytes_are_not_ids() {
        for text in ["", "UPPER", "a/b", "0123456789012345678901234"] {
            assert_eq!(TenantId::parse(text), None, "{text}");
        }
        for text in ["", "a b", "é", "line\nbreak"] {
            assert_eq!(RequestId::parse(text), None, "{text}");
        }
    }
}
