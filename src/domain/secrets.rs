//! Secrets: who stored, read and erased what. The values themselves are never here; the vault has them, sealed.
//!
//! A secret is a name with versions, each the digest of a sealed value. Storing a name again adds a version, and the one
//! that is then too many is erased. What was decided to be erased is named in the event, so that whoever carries it out, now or
//! after a crash, knows what must be gone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{AgentId, SessionId};
use super::limits::{SECRET_NAME_CHARS_MAX, SECRET_VERSION_COUNT_MAX};
use super::sessions::{Sessions, Standing};
use super::table::Table;
use super::time::Timestamp;
use super::{Event, Refusal};

/// Names a sealed value: a digest of its ciphertext, and of nothing else.
pub type SealDigest = [u8; 32];

/// The name of a secret, as it can stand in the path of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// Takes a text as a name: 1 to 256 characters, no control characters. Between slashes there must be something, and
    /// neither `.` nor `..`, because clients shorten such paths before they send them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=SECRET_NAME_CHARS_MAX).contains(&text.chars().count());
        let is_plain = !text.chars().any(char::is_control);
        let is_addressable = text.split('/').all(|part| !matches!(part, "" | "." | ".."));
        (fits && is_plain && is_addressable).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Store a value that is sealed already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSecret {
    /// Under which name.
    pub name: SecretName,
    /// The session scope that reading it needs; an empty one is met by `admin` alone.
    pub required_scope: String,
    /// The sealed value.
    pub digest: SealDigest,
    /// Bytes of its ciphertext.
    pub sealed_len: u64,
}

/// Read a value on behalf of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSecret {
    /// The session that reads; it need not exist.
    pub session_id: SessionId,
    /// The name; it need not exist.
    pub name: SecretName,
    /// Which version; the newest when absent.
    pub version: Option<u64>,
    /// The sealed value that was opened for the reader, if any was. Only this one can be released.
    pub opened: Option<SealDigest>,
}

/// Erase a secret, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteSecret {
    /// Which secret.
    pub name: SecretName,
    /// Which version; all when absent.
    pub version: Option<u64>,
}

/// Record that sealed values were wrapped under another master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordVaultRotation {
    /// What was done.
    pub rotation: VaultRotated,
}

/// One version of a secret, as an event names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRef {
    /// Its number.
    pub version: u64,
    /// Its sealed value.
    pub digest: SealDigest,
}

/// A value was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretStored {
    /// Under which name.
    pub name: SecretName,
    /// As which version: one more than the last.
    pub version: u64,
    /// The session scope that reading it needs.
    pub required_scope: String,
    /// The sealed value.
    pub digest: SealDigest,
    /// Bytes of its ciphertext.
    pub sealed_len: u64,
    /// The oldest version, which was one too many and is erased.
    pub erased: Option<VersionRef>,
}

/// A value was released to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRead {
    /// Of which secret.
    pub name: SecretName,
    /// Which version.
    pub version: u64,
    /// To which session.
    pub session_id: SessionId,
    /// Its agent.
    pub agent_id: AgentId,
    /// The sealed value.
    pub digest: SealDigest,
}

/// A value was not released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretDenied {
    /// The name as asked for; it need not exist.
    pub name: SecretName,
    /// The version as asked for.
    pub version: Option<u64>,
    /// The session as asked for; it need not exist.
    pub session_id: SessionId,
    /// Its agent, if there is such a session.
    pub agent_id: Option<AgentId>,
    /// Why not.
    pub reason: SecretDenial,
    /// The scope that was missing.
    pub required_scope: Option<String>,
}

/// Why a value was not released. The first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretDenial {
    /// There is no such session.
    SessionUnknown,
    /// The session was revoked.
    SessionRevoked,
    /// The session's time is over.
    SessionExpired,
    /// There is no such secret, or no such version of it.
    SecretUnknown,
    /// The session does not hold the scope.
    ScopeMissing,
}

/// A secret was erased, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretDeleted {
    /// Which secret.
    pub name: SecretName,
    /// The version as asked for; all when absent.
    pub version: Option<u64>,
    /// What is erased, oldest first.
    pub erased: Vec<VersionRef>,
}

/// Sealed values were wrapped under another master key. The values, and the digests that name them, are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRotated {
    /// The id of the master key that wraps now.
    pub to: [u8; 8],
    /// How many values were wrapped anew, by the id of the master key that wrapped them before, ascending.
    pub from: Vec<Rewrapped>,
    /// Values that it wrapped already.
    pub already_current: u64,
    /// Values that could not be wrapped anew.
    pub failed: u64,
}

/// Values that another master key wrapped before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrapped {
    /// The id of that key.
    pub key_id: [u8; 8],
    /// How many.
    pub count: u64,
}

/// The tenant's secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    by_name: Table<SecretName, Arc<Secret>>,
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What is kept, oldest first; never empty.
    pub versions: Vec<Version>,
    /// The number of the version that was stored last, erased or not.
    pub last_version: u64,
    /// How often it was read since it was stored last.
    pub reads: u64,
    /// When it was read last since then.
    pub last_read_at: Option<Timestamp>,
}

/// One version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// From 1, one more each time.
    pub number: u64,
    /// The session scope that reading it needs.
    pub required_scope: String,
    /// The sealed value.
    pub digest: SealDigest,
    /// Bytes of its ciphertext.
    pub sealed_len: u64,
    /// When it was stored.
    pub created_at: Timestamp,
}

impl Version {
    fn to_ref(&self) -> VersionRef {
        VersionRef { version: self.number, digest: self.digest }
    }
}

impl Secret {
    /// A version, or the newest.
    #[must_use]
    pub fn version(&self, number: Option<u64>) -> Option<&Version> {
        match number {
            None => self.versions.last(),
            Some(number) => self.versions.iter().find(|version| version.number == number),
        }
    }
}

impl Secrets {
    /// The secret with this name.
    #[must_use]
    pub fn get(&self, name: &SecretName) -> Option<&Secret> {
        self.by_name.get(name).map(|secret| &**secret)
    }

    /// All secrets, by name.
    pub fn all(&self) -> impl Iterator<Item = (&SecretName, &Secret)> {
        self.by_name.into_iter().map(|(name, secret)| (name, &**secret))
    }
}

/// What a reader may have: the version, or the reason why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged<'a> {
    /// This version, for this agent.
    Granted(&'a Version, &'a AgentId),
    /// Nothing.
    Denied(Denial<'a>),
}

/// A reason with what is known of the circumstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial<'a> {
    reason: SecretDenial,
    agent_id: Option<&'a AgentId>,
    required_scope: Option<&'a str>,
}

/// Judges a reader: the session first, then the secret, then the scope. The order is part of the contract.
#[must_use]
pub fn judge<'a>(
    sessions: &'a Sessions,
    secrets: &'a Secrets,
    at: Timestamp,
    ask: &ReadSecret,
) -> Judged<'a> {
    let denied =
        |reason, agent_id, required_scope| Judged::Denied(Denial { reason, agent_id, required_scope });
    let Some(session) = sessions.get(&ask.session_id) else {
        return denied(SecretDenial::SessionUnknown, None, None);
    };
    let agent_id = Some(&session.agent_id);
    match sessions.standing(session, at) {
        Standing::Revoked => return denied(SecretDenial::SessionRevoked, agent_id, None),
        Standing::Expired => return denied(SecretDenial::SessionExpired, agent_id, None),
        Standing::Live => {}
    }
    let Some(version) = secrets.get(&ask.name).and_then(|secret| secret.version(ask.version)) else {
        return denied(SecretDenial::SecretUnknown, agent_id, None);
    };
    if !session.grants(&version.required_scope) {
        return denied(SecretDenial::ScopeMissing, agent_id, Some(&version.required_scope));
    }
    Judged::Granted(version, &session.agent_id)
}

pub(super) fn store(secrets: &Secrets, command: &StoreSecret) -> Vec<Event> {
    let secret = secrets.get(&command.name);
    let oldest = secret.filter(|secret| secret.versions.len() >= SECRET_VERSION_COUNT_MAX);
    vec![Event::SecretStored(SecretStored {
        name: command.name.clone(),
        version: secret.map_or(1, |secret| secret.last_version + 1),
        required_scope: command.required_scope.clone(),
        digest: command.digest,
        sealed_len: command.sealed_len,
        erased: oldest.and_then(|secret| secret.versions.first()).map(Version::to_ref),
    })]
}

pub(super) fn read(
    sessions: &Sessions,
    secrets: &Secrets,
    at: Timestamp,
    command: &ReadSecret,
) -> Result<Vec<Event>, Refusal> {
    let (name, session_id) = (command.name.clone(), command.session_id.clone());
    let event = match judge(sessions, secrets, at, command) {
        // Nothing is released but what was opened, and nothing that is not the version's any more.
        Judged::Granted(version, _) if command.opened != Some(version.digest) => {
            return Err(Refusal::SecretMoved);
        }
        Judged::Granted(version, agent_id) => Event::SecretRead(SecretRead {
            name,
            version: version.number,
            session_id,
            agent_id: agent_id.clone(),
            digest: version.digest,
        }),
        Judged::Denied(denial) => Event::SecretDenied(SecretDenied {
            name,
            version: command.version,
            session_id,
            agent_id: denial.agent_id.cloned(),
            reason: denial.reason,
            required_scope: denial.required_scope.map(str::to_owned),
        }),
    };
    Ok(vec![event])
}

pub(super) fn delete(secrets: &Secrets, command: &DeleteSecret) -> Result<Vec<Event>, Refusal> {
    let secret = secrets.get(&command.name).ok_or(Refusal::SecretUnknown)?;
    let is_asked = |version: &&Version| command.version.is_none_or(|number| number == version.number);
    let erased: Vec<_> = secret.versions.iter().filter(is_asked).map(Version::to_ref).collect();
    if erased.is_empty() {
        return Err(Refusal::SecretUnknown);
    }
    let name = command.name.clone();
    Ok(vec![Event::SecretDeleted(SecretDeleted { name, version: command.version, erased })])
}

pub(super) fn record_rotation(command: &RecordVaultRotation) -> Vec<Event> {
    vec![Event::VaultRotated(command.rotation.clone())]
}

pub(super) fn apply_stored(secrets: &mut Secrets, at: Timestamp, event: &SecretStored) {
    let mut versions = secrets.get(&event.name).map(|secret| secret.versions.clone()).unwrap_or_default();
    if let Some(erased) = &event.erased {
        versions.retain(|version| version.number != erased.version);
    }
    versions.push(Version {
        number: event.version,
        required_scope: event.required_scope.clone(),
        digest: event.digest,
        sealed_len: event.sealed_len,
        created_at: at,
    });
    let secret = Secret { versions, last_version: event.version, reads: 0, last_read_at: None };
    secrets.by_name.insert_cow(event.name.clone(), Arc::new(secret));
}

pub(super) fn apply_read(secrets: &mut Secrets, at: Timestamp, event: &SecretRead) {
    if let Some(secret) = secrets.by_name.get_mut_cow(&event.name) {
        let secret = Arc::make_mut(secret);
        secret.reads += 1;
        secret.last_read_at = Some(at);
    }
}

pub(super) fn apply_deleted(secrets: &mut Secrets, event: &SecretDeleted) {
    let Some(secret) = secrets.by_name.get_mut_cow(&event.name) else {
        return;
    };
    let is_erased = |version: &Version| event.erased.iter().any(|erased| erased.version == version.number);
    let secret = Arc::make_mut(secret);
    secret.versions.retain(|version| !is_erased(version));
    if secret.versions.is_empty() {
        secrets.by_name.remove_cow(&event.name);
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{agent_id, given, moment, opened, session_id, session_revoked};
    use crate::domain::sessions::SessionOpened;

    use super::*;

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    fn store(text: &str, scope: &str, digest: u8) -> Command {
        let (name, required_scope) = (name(text), scope.to_owned());
        Command::StoreSecret(StoreSecret { name, required_scope, digest: [digest; 32], sealed_len: 20 })
    }

    fn stored(text: &str, scope: &str, version: u64, digest: u8) -> SecretStored {
        let (name, required_scope, digest) = (name(text), scope.to_owned(), [digest; 32]);
        SecretStored { name, version, required_scope, digest, sealed_len: 20, erased: None }
    }

    fn read(session: &str, text: &str, version: Option<u64>, opened: Option<u8>) -> Command {
        let (session_id, name) = (session_id(session), name(text));
        Command::ReadSecret(ReadSecret { session_id, name, version, opened: opened.map(|it| [it; 32]) })
    }

    fn was_read(text: &str, version: u64, digest: u8) -> Event {
        let (name, session_id, agent_id) = (name(text), session_id("s"), agent_id("agent"));
        Event::SecretRead(SecretRead { name, version, session_id, agent_id, digest: [digest; 32] })
    }

    fn delete(text: &str, version: Option<u64>) -> Command {
        Command::DeleteSecret(DeleteSecret { name: name(text), version })
    }

    fn deleted(text: &str, version: Option<u64>, erased: &[(u64, u8)]) -> Event {
        let erased =
            erased.iter().map(|(version, digest)| VersionRef { version: *version, digest: [*digest; 32] });
        Event::SecretDeleted(SecretDeleted { name: name(text), version, erased: erased.collect() })
    }

    fn reader(scopes: &[&str]) -> SessionOpened {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        SessionOpened { scopes, expires_at: Some(moment(60)), ..opened("s", None) }
    }

    #[test]
    fn a_name_can_stand_in_an_address() {
        for good in ["a", "a/b", "a b", "%2F", "+?#&", "ключ", ".env", "a/...", " ", &"x".repeat(256)] {
            assert_eq!(SecretName::parse(good).map(|name| name.to_string()).as_deref(), Some(good));
        }
        for bad in
            ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "./a", "a\n", "\0", "\u{85}", &"x".repeat(257)]
        {
            assert!(SecretName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn storing_a_name_again_makes_a_version_and_forgets_the_oldest_of_too_many() {
        let mut story = given([]);
        for version in 1..=10 {
            let digest = u8::try_from(version).unwrap();
            let event = Event::SecretStored(stored("a", "read", version, digest));
            story = story.when(store("a", "read", digest)).then([event]);
        }
        let erased = Some(VersionRef { version: 1, digest: [1; 32] });
        let event = Event::SecretStored(SecretStored { erased, ..stored("a", "read", 11, 11) });
        let story = story.when(store("a", "read", 11)).then([event]);
        let secret = story.state().secrets.get(&name("a")).unwrap();
        let numbers: Vec<_> = secret.versions.iter().map(|version| version.number).collect();
        assert_eq!(numbers, (2..=11).collect::<Vec<_>>());
        assert_eq!(secret.version(None).unwrap().digest, [11; 32]);
        assert!(secret.version(Some(1)).is_none());
    }

    #[test]
    fn what_was_opened_is_released_and_nothing_else() {
        let story = given([
            Event::SessionOpened(reader(&["read"])),
            Event::SecretStored(stored("a", "read", 1, 1)),
            Event::SecretStored(stored("a", "read", 2, 2)),
        ]);
        let story = story.when(read("s", "a", None, None)).refused(Refusal::SecretMoved);
        let story = story.when(read("s", "a", None, Some(1))).refused(Refusal::SecretMoved);
        let story = story.when(read("s", "a", None, Some(2))).at(moment(9)).then([was_read("a", 2, 2)]);
        let story = story.when(read("s", "a", Some(1), Some(1))).at(moment(10)).then([was_read("a", 1, 1)]);
        let secret = story.state().secrets.get(&name("a")).unwrap();
        assert_eq!((secret.reads, secret.last_read_at), (2, Some(moment(10))));
        let story = story.when(store("a", "read", 3)).then([Event::SecretStored(stored("a", "read", 3, 3))]);
        let secret = story.state().secrets.get(&name("a")).unwrap();
        assert_eq!((secret.reads, secret.last_read_at), (0, None), "counted anew from each storing on");
    }

    #[test]
    fn a_denial_says_the_first_reason() {
        let session = Event::SessionOpened(reader(&["read", "db"]));
        let with = |scope| Event::SecretStored(stored("a", scope, 1, 1));
        let live = given([session.clone(), with("write")]);
        let revoked = given([session.clone(), with("write"), session_revoked("s")]);
        let nothing = given([session.clone()]);
        let admin_only = given([session, with("")]);
        let of_agent = Some("agent");
        for (story, session, seconds, agent, reason, scope) in [
            (&live, "t", 61, None, SecretDenial::SessionUnknown, None),
            (&revoked, "s", 61, of_agent, SecretDenial::SessionRevoked, None),
            (&live, "s", 61, of_agent, SecretDenial::SessionExpired, None),
            (&nothing, "s", 60, of_agent, SecretDenial::SecretUnknown, None),
            (&live, "s", 60, of_agent, SecretDenial::ScopeMissing, Some("write")),
            (&admin_only, "s", 60, of_agent, SecretDenial::ScopeMissing, Some("")),
        ] {
            let event = Event::SecretDenied(SecretDenied {
                name: name("a"),
                version: None,
                session_id: session_id(session),
                agent_id: agent.map(agent_id),
                reason,
                required_scope: scope.map(str::to_owned),
            });
            // Opened in vain: the session ended between the look and the decision.
            let after =
                story.clone().when(read(session, "a", None, Some(1))).at(moment(seconds)).then([event]);
            assert_eq!(after.state(), story.state(), "a denial changes nothing");
        }
        let narrowed = given([Event::SessionOpened(reader(&["db"])), with("db:prod")]);
        narrowed.when(read("s", "a", None, Some(1))).then([was_read("a", 1, 1)]);
    }

    #[test]
    fn each_version_keeps_the_scope_it_was_stored_with() {
        let story = given([
            Event::SessionOpened(reader(&["read"])),
            Event::SecretStored(stored("a", "write", 1, 1)),
            Event::SecretStored(stored("a", "read", 2, 2)),
        ]);
        let story = story.when(read("s", "a", None, Some(2))).then([was_read("a", 2, 2)]);
        let denied = Event::SecretDenied(SecretDenied {
            name: name("a"),
            version: Some(1),
            session_id: session_id("s"),
            agent_id: Some(agent_id("agent")),
            reason: SecretDenial::ScopeMissing,
            required_scope: Some("write".to_owned()),
        });
        story.when(read("s", "a", Some(1), Some(1))).then([denied]);
    }

    #[test]
    fn erasing_names_what_must_be_gone() {
        let story = given(
            [1, 2, 3].map(|version| Event::SecretStored(stored("a", "read", u64::from(version), version))),
        );
        let story = story.when(delete("b", None)).refused(Refusal::SecretUnknown);
        let story = story.when(delete("a", Some(4))).refused(Refusal::SecretUnknown);
        let story = story.when(delete("a", Some(3))).then([deleted("a", Some(3), &[(3, 3)])]);
        let again = Event::SecretStored(stored("a", "read", 4, 4));
        let story = story.when(store("a", "read", 4)).then([again]);
        let story = story.when(delete("a", None)).then([deleted("a", None, &[(1, 1), (2, 2), (4, 4)])]);
        assert_eq!(story.state().secrets.all().count(), 0);
        let story = story.when(delete("a", None)).refused(Refusal::SecretUnknown);
        story.when(store("a", "read", 5)).then([Event::SecretStored(stored("a", "read", 1, 5))]);
    }
}
