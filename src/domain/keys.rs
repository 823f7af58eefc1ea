//! API keys: who may call on a tenant's behalf, and for what.

use std::collections::BTreeMap;

use super::id::{Actor, KeyPrefix};
use super::scope::KeyScopes;
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    by_prefix: BTreeMap<KeyPrefix, Key>,
}

/// One API key.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        self.by_prefix.get(prefix)
    }

    /// All keys, newest first.
    #[must_use]
    pub fn newest_first(&self) -> Vec<(&KeyPrefix, &Key)> {
        let mut keys: Vec<_> = self.by_prefix.iter().collect();
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
        Actor::Key(_) | Actor::Operator | Actor::Bootstrap | Actor::FirstCaller | Actor::System => Ok(()),
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
    keys.by_prefix.insert(event.prefix.clone(), key);
}

pub(super) fn apply_revoked(keys: &mut Keys, event: &KeyRevoked) {
    if let Some(key) = keys.by_prefix.get_mut(&event.prefix) {
        key.is_revoked = true;
    }
}

pub(super) fn apply_metered(keys: &mut Keys, event: &UsageMetered) {
    for reading in &event.keys {
        if let Some(key) = keys.by_prefix.get_mut(&reading.prefix) {
            key.last_used = key.last_used.max(Some(reading.last_used));
        }
    }
}
