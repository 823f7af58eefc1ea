//! API keys: who may call on a tenant's behalf, and for what.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{Actor, KeyPrefix};
use super::scope::KeyScopes;
use super::table::Table;
use super::time::Timestamp;
use super::usage::UsageMetered;
use super::{Envelope, Event, Refusal};

/// Mint an API key. The key itself never comes here: only its SHA-256 does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintKey {
    /// The key's public handle.
    pub prefix: KeyPrefix,
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// A name for people.
    pub name: String,
    /// What the key may do.
    pub scopes: KeyScopes,
}

/// Revoke an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeKey {
    /// Which key.
    pub prefix: KeyPrefix,
}

/// Record that the calling key lacked a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyAccess {
    /// The scope that was needed.
    pub required: String,
    /// What was asked for, for example `POST /v1/audit`.
    pub operation: String,
}

/// An API key was minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMinted {
    /// The key's public handle.
    pub prefix: KeyPrefix,
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// A name for people.
    pub name: String,
    /// What the key may do.
    pub scopes: KeyScopes,
}

/// An API key was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRevoked {
    /// Which key.
    pub prefix: KeyPrefix,
}

/// The calling key lacked a scope. The key is the recorded actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDenied {
    /// The scope that was needed.
    pub required: String,
    /// What was asked for, for example `POST /v1/audit`.
    pub operation: String,
}

/// The tenant's keys, revoked ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    by_prefix: Table<KeyPrefix, Arc<Key>>,
}

/// One API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// A name for people.
    pub name: String,
    /// What the key may do.
    pub scopes: KeyScopes,
    /// When it was minted.
    pub created_at: Timestamp,
    /// The last use that was metered.
    pub last_used: Option<Timestamp>,
    /// Whether it no longer works.
    pub is_revoked: bool,
}

impl Keys {
    /// The key with this prefix, revoked or not.
    #[must_use]
    pub fn get(&self, prefix: &KeyPrefix) -> Option<&Key> {
        self.by_prefix.get(prefix).map(|key| &**key)
    }

    /// All keys, newest first.
    #[must_use]
    pub fn newest_first(&self) -> Vec<(&KeyPrefix, &Key)> {
        let mut keys: Vec<_> = self.by_prefix.into_iter().map(|(prefix, key)| (prefix, &**key)).collect();
        keys.sort_by_key(|(_, key)| std::cmp::Reverse(key.created_at));
        keys
    }

    fn active(&self, prefix: &KeyPrefix) -> Option<&Key> {
        self.get(prefix).filter(|key| !key.is_revoked)
    }
}

/// Refuses actors whose key does not, or no longer, exist.
///
/// # Errors
///
/// [`Refusal::ActorInactive`].
pub(super) fn check_standing(keys: &Keys, actor: &Actor) -> Result<(), Refusal> {
    match actor {
        Actor::Key(prefix) if keys.active(prefix).is_none() => Err(Refusal::ActorInactive),
        Actor::Key(_)
        | Actor::Operator
        | Actor::Bootstrap
        | Actor::FirstCaller
        | Actor::System
        | Actor::ApprovalLink => Ok(()),
    }
}

pub(super) fn mint(keys: &Keys, envelope: &Envelope, command: &MintKey) -> Result<Vec<Event>, Refusal> {
    if envelope.actor == Actor::FirstCaller && !envelope.is_deployment_new {
        return Err(Refusal::NotFirstCaller);
    }
    if keys.get(&command.prefix).is_some() {
        return Err(Refusal::KeyPrefixTaken);
    }
    if let Actor::Key(minter) = &envelope.actor {
        let held = keys.active(minter).ok_or(Refusal::ActorInactive)?;
        if !held.scopes.covers(&command.scopes) {
            return Ok(vec![Event::AccessDenied(AccessDenied {
                required: command.scopes.as_slice().join(" "),
                operation: "mint key".to_owned(),
            })]);
        }
    }
    Ok(vec![Event::KeyMinted(KeyMinted {
        prefix: command.prefix.clone(),
        hash: command.hash,
        name: command.name.clone(),
        scopes: command.scopes.clone(),
    })])
}

pub(super) fn revoke(keys: &Keys, command: &RevokeKey) -> Result<Vec<Event>, Refusal> {
    keys.active(&command.prefix).ok_or(Refusal::KeyUnknown)?;
    Ok(vec![Event::KeyRevoked(KeyRevoked { prefix: command.prefix.clone() })])
}

pub(super) fn deny_access(command: &DenyAccess) -> Vec<Event> {
    vec![Event::AccessDenied(AccessDenied {
        required: command.required.clone(),
        operation: command.operation.clone(),
    })]
}

pub(super) fn apply_minted(keys: &mut Keys, at: Timestamp, event: &KeyMinted) {
    let key = Key {
        hash: event.hash,
        name: event.name.clone(),
        scopes: event.scopes.clone(),
        created_at: at,
        last_used: None,
        is_revoked: false,
    };
    keys.by_prefix.insert_cow(event.prefix.clone(), Arc::new(key));
}

pub(super) fn apply_revoked(keys: &mut Keys, event: &KeyRevoked) {
    if let Some(key) = keys.by_prefix.get_mut_cow(&event.prefix) {
        Arc::make_mut(key).is_revoked = true;
    }
}

pub(super) fn apply_metered(keys: &mut Keys, event: &UsageMetered) {
    for reading in &event.keys {
        if let Some(key) = keys.by_prefix.get_mut_cow(&reading.prefix) {
            let key = Arc::make_mut(key);
            key.last_used = key.last_used.max(Some(reading.last_used));
        }
    }
}

/// The tests of this area, and the words in which the tests of all areas are told.
#[cfg(test)]
pub(in crate::domain) mod tests {
    use crate::domain::budgets::PaymentAuthorized;
    use crate::domain::id::{AgentId, AuthorizationId, RequestId, SessionId};
    use crate::domain::money::Money;
    use crate::domain::replays::Idempotency;
    use crate::domain::sessions::{SessionOpened, SessionRevoked};
    use crate::domain::time::Month;
    use crate::domain::usage::KeyReading;
    use crate::domain::{Command, Decision, Tenant, apply, decide, record};

    use super::*;

    #[test]
    fn the_first_caller_mints_only_in_a_new_deployment() {
        given([]).when(mint("k", "*")).by(Actor::FirstCaller).then([minted("k", "*")]);
        given([]).in_use().when(mint("k", "*")).by(Actor::FirstCaller).refused(Refusal::NotFirstCaller);
        given([]).in_use().when(mint("k", "*")).by(Actor::Bootstrap).then([minted("k", "*")]);
    }

    #[test]
    fn a_key_acts_from_its_minting_to_its_revocation() {
        given([])
            .when(mint("k", "*"))
            .by(key("k"))
            .refused(Refusal::ActorInactive)
            .when(mint("k", "*"))
            .then([minted("k", "*")])
            .when(mint("l", "*"))
            .by(key("k"))
            .then([minted("l", "*")])
            .when(revoke_key("k"))
            .by(key("k"))
            .then([key_revoked("k")])
            .when(mint("m", "*"))
            .by(key("k"))
            .refused(Refusal::ActorInactive)
            .when(mint("m", "*"))
            .by(key("l"))
            .then([minted("m", "*")]);
    }

    #[test]
    fn a_key_mints_only_what_it_may_do_itself_and_what_it_may_not_is_on_record() {
        let story = given([minted("k", "audit:write payments:*")]);
        let story = story.when(mint("l", "audit:read payments:write")).by(key("k"));
        let story = story.then([minted("l", "audit:read payments:write")]);
        for asked in ["*", "audit:*", "audit:read sessions:read"] {
            let denied = AccessDenied { required: asked.to_owned(), operation: "mint key".to_owned() };
            story.clone().when(mint("m", asked)).by(key("k")).then([Event::AccessDenied(denied)]);
            story.clone().when(mint("m", asked)).then([minted("m", asked)]);
        }
    }

    #[test]
    fn a_prefix_is_taken_for_ever() {
        let story = given([minted("k", "*")]);
        let story = story.when(mint("k", "*")).refused(Refusal::KeyPrefixTaken);
        let story = story.when(revoke_key("k")).then([key_revoked("k")]);
        story.when(mint("k", "*")).refused(Refusal::KeyPrefixTaken);
    }

    #[test]
    fn only_active_keys_are_revoked() {
        let story = given([minted("k", "*"), key_revoked("k")]);
        story.clone().when(revoke_key("k")).refused(Refusal::KeyUnknown);
        story.when(revoke_key("l")).refused(Refusal::KeyUnknown);
    }

    #[test]
    fn keys_are_listed_newest_first_and_their_last_use_never_goes_back() {
        let reading =
            |name, seconds| KeyReading { prefix: prefix(name), calls: 1, last_used: moment(seconds) };
        let metered = |keys| Event::UsageMetered(UsageMetered { month: Month::new(1970, 1).unwrap(), keys });
        let story = given([
            minted("z", "*"),
            minted("a", "*"),
            metered(vec![reading("z", 50), reading("nobody", 60)]),
            metered(vec![reading("z", 40)]),
        ]);
        let keys = &story.state().keys;
        let list: Vec<_> =
            keys.newest_first().into_iter().map(|(it, key)| (it.clone(), key.last_used)).collect();
        assert_eq!(list, [(prefix("a"), None), (prefix("z"), Some(moment(50)))]);
    }

    /// A tenant with a history: the first word of `given(events).when(command).then(events)`.
    ///
    /// Each event happens a second after the one before, from the epoch on.
    pub(in crate::domain) fn given(events: impl IntoIterator<Item = Event>) -> Story {
        let nothing = Story { state: Tenant::default(), seq: 0, is_deployment_new: true };
        let whatever_led_to_it = || revoke_key("any");
        events.into_iter().fold(nothing, |story, event| story.when(whatever_led_to_it()).happens([event]))
    }

    #[derive(Clone)]
    pub(in crate::domain) struct Story {
        state: Tenant,
        seq: u64,
        is_deployment_new: bool,
    }

    impl Story {
        /// Somebody, perhaps another tenant, has a key already.
        pub(in crate::domain) fn in_use(self) -> Self {
            Self { is_deployment_new: false, ..self }
        }

        pub(in crate::domain) fn state(&self) -> &Tenant {
            &self.state
        }

        /// More that happened, whatever led to it.
        pub(in crate::domain) fn tells<const LEN: usize>(self, events: [Event; LEN]) -> Self {
            self.when(revoke_key("any")).happens(events)
        }

        /// The same, at a moment.
        pub(in crate::domain) fn tells_at(self, at: Timestamp, events: Vec<Event>) -> Self {
            let question = self.when(revoke_key("any")).at(at);
            question.happened(events)
        }

        /// A command by the operator, a second after the last event.
        pub(in crate::domain) fn when(self, command: Command) -> Question {
            let envelope = Envelope {
                seq: self.seq,
                at: moment(self.seq),
                actor: Actor::Operator,
                request_id: RequestId::parse("request").unwrap(),
                idempotency: None,
                is_deployment_new: self.is_deployment_new,
                command,
            };
            Question { story: self, envelope }
        }
    }

    pub(in crate::domain) struct Question {
        story: Story,
        envelope: Envelope,
    }

    impl Question {
        pub(in crate::domain) fn by(mut self, actor: Actor) -> Self {
            self.envelope.actor = actor;
            self
        }

        pub(in crate::domain) fn at(mut self, at: Timestamp) -> Self {
            self.envelope.at = at;
            self
        }

        pub(in crate::domain) fn once(mut self, key: u8, fingerprint: u8) -> Self {
            let idempotency = Idempotency { key: [key; 32], fingerprint: [fingerprint; 32] };
            self.envelope.idempotency = Some(idempotency);
            self
        }

        /// These things are decided, and happen.
        pub(in crate::domain) fn then<const LEN: usize>(self, events: [Event; LEN]) -> Story {
            assert_eq!(decide(&self.story.state, &self.envelope), Ok(Decision::Events(events.to_vec())));
            self.happens(events)
        }

        pub(in crate::domain) fn refused(self, refusal: Refusal) -> Story {
            assert_eq!(decide(&self.story.state, &self.envelope), Err(refusal));
            self.story
        }

        pub(in crate::domain) fn replays(self, seq: u64) -> Story {
            assert_eq!(decide(&self.story.state, &self.envelope), Ok(Decision::Replay { seq }));
            self.story
        }

        fn happens<const LEN: usize>(self, events: [Event; LEN]) -> Story {
            self.happened(events.into())
        }

        fn happened(mut self, events: Vec<Event>) -> Story {
            for recorded in record(&self.envelope, events) {
                apply(&mut self.story.state, &recorded);
                self.story.seq += 1;
            }
            self.story
        }
    }

    pub(in crate::domain) fn moment(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    pub(in crate::domain) fn usd(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    pub(in crate::domain) fn session_id(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    pub(in crate::domain) fn agent_id(name: &str) -> AgentId {
        AgentId::parse(name).unwrap()
    }

    pub(in crate::domain) fn authorization_id() -> AuthorizationId {
        AuthorizationId::parse("auth").unwrap()
    }

    pub(in crate::domain) fn prefix(name: &str) -> KeyPrefix {
        KeyPrefix::parse(&format!("{name:-<12}")).unwrap()
    }

    pub(in crate::domain) fn key(name: &str) -> Actor {
        Actor::Key(prefix(name))
    }

    fn key_scopes(words: &str) -> KeyScopes {
        KeyScopes::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    pub(in crate::domain) fn mint(name: &str, scopes: &str) -> Command {
        Command::MintKey(MintKey {
            prefix: prefix(name),
            hash: [1; 32],
            name: name.to_owned(),
            scopes: key_scopes(scopes),
        })
    }

    pub(in crate::domain) fn minted(name: &str, scopes: &str) -> Event {
        Event::KeyMinted(KeyMinted {
            prefix: prefix(name),
            hash: [1; 32],
            name: name.to_owned(),
            scopes: key_scopes(scopes),
        })
    }

    pub(in crate::domain) fn revoke_key(name: &str) -> Command {
        Command::RevokeKey(RevokeKey { prefix: prefix(name) })
    }

    pub(in crate::domain) fn key_revoked(name: &str) -> Event {
        Event::KeyRevoked(KeyRevoked { prefix: prefix(name) })
    }

    /// A session of `agent` that may spend `cap` and never expires.
    pub(in crate::domain) fn opened(name: &str, cap: Option<&str>) -> SessionOpened {
        SessionOpened {
            session_id: session_id(name),
            agent_id: agent_id("agent"),
            scopes: vec!["spend".to_owned()],
            cap: cap.map(usd),
            ttl_s: 0,
            expires_at: None,
            agent_limit: None,
            parent: None,
        }
    }

    pub(in crate::domain) fn session_revoked(name: &str) -> Event {
        Event::SessionRevoked(SessionRevoked { session_id: session_id(name) })
    }

    pub(in crate::domain) fn paid(name: &str, amount: &str, remaining: Option<&str>) -> Event {
        Event::PaymentAuthorized(PaymentAuthorized {
            authorization_id: authorization_id(),
            session_id: session_id(name),
            agent_id: agent_id("agent"),
            amount: usd(amount),
            currency: "USD".to_owned(),
            description: "what for".to_owned(),
            tool: String::new(),
            action: String::new(),
            approval_id: None,
            remaining: remaining.map(usd),
        })
    }
}
