//! Custody: which key signs a tenant's stream, and what was done to the stream from outside.

use serde::{Deserialize, Serialize};

use super::id::Actor;
use super::{Event, Refusal};

/// Hand the stream to another signing key. The operator alone may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateSigner {
    /// The Ed25519 public key (RFC 8032, 32 raw bytes) that checks every later entry.
    pub public_key: [u8; 32],
}

/// Record that the stream was rebuilt after damage. The operator alone may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRepair {
    /// Entries from the start of the stream that were sound where they were.
    pub kept: u64,
    /// Entries after them that were taken from elsewhere.
    pub restored: u64,
    /// Entries after those that are known to have existed and are lost.
    pub lost: u64,
    /// What was wrong with the first bad entry.
    pub damage: String,
    /// Where the restored entries came from; empty when there are none.
    pub source: String,
}

/// The stream was handed to another signing key: this event is the last that the old key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerRotated {
    /// The Ed25519 public key that checks every later entry.
    pub public_key: [u8; 32],
}

/// The stream was rebuilt after damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRepaired {
    /// Entries from the start of the stream that were sound where they were.
    pub kept: u64,
    /// Entries after them that were taken from elsewhere.
    pub restored: u64,
    /// Entries after those that are known to have existed and are lost.
    pub lost: u64,
    /// What was wrong with the first bad entry.
    pub damage: String,
    /// Where the restored entries came from; empty when there are none.
    pub source: String,
}

/// Who signs a stream, as far as the stream itself tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custody {
    signer: Option<[u8; 32]>,
    repairs: u64,
}

impl Custody {
    /// The public key that the last rotation named; `None` while the key that signed the first entry still signs.
    #[must_use]
    pub const fn signer(&self) -> Option<&[u8; 32]> {
        self.signer.as_ref()
    }

    /// How often the stream was rebuilt.
    #[must_use]
    pub const fn repairs(&self) -> u64 {
        self.repairs
    }
}

pub(super) fn rotate(
    custody: &Custody,
    actor: &Actor,
    command: &RotateSigner,
) -> Result<Vec<Event>, Refusal> {
    check_operator(actor)?;
    if custody.signer == Some(command.public_key) {
        return Err(Refusal::SignerUnchanged);
    }
    Ok(vec![Event::SignerRotated(SignerRotated { public_key: command.public_key })])
}

pub(super) fn record_repair(actor: &Actor, command: &RecordRepair) -> Result<Vec<Event>, Refusal> {
    check_operator(actor)?;
    Ok(vec![Event::LedgerRepaired(LedgerRepaired {
        kept: command.kept,
        restored: command.restored,
        lost: command.lost,
        damage: command.damage.clone(),
        source: command.source.clone(),
    })])
}

fn check_operator(actor: &Actor) -> Result<(), Refusal> {
    match actor {
        Actor::Operator => Ok(()),
        Actor::Key(_) | Actor::Bootstrap | Actor::FirstCaller | Actor::System | Actor::ApprovalLink => {
            Err(Refusal::OperatorOnly)
        }
    }
}

pub(super) const fn apply_rotated(custody: &mut Custody, event: &SignerRotated) {
    custody.signer = Some(event.public_key);
}

pub(super) const fn apply_repaired(custody: &mut Custody, _event: &LedgerRepaired) {
    custody.repairs += 1;
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{given, key, minted};

    use super::*;

    #[test]
    fn the_operator_hands_the_stream_to_another_key_and_nobody_else_does() {
        let rotate = |byte| Command::RotateSigner(RotateSigner { public_key: [byte; 32] });
        let rotated = |byte| Event::SignerRotated(SignerRotated { public_key: [byte; 32] });
        let story = given([minted("k", "*")]);
        assert_eq!(story.state().custody.signer(), None);
        let story = story.when(rotate(1)).by(key("k")).refused(Refusal::OperatorOnly);
        let story = story.when(rotate(1)).by(Actor::System).refused(Refusal::OperatorOnly);
        let story = story.when(rotate(1)).by(Actor::Operator).then([rotated(1)]);
        let story = story.when(rotate(1)).by(Actor::Operator).refused(Refusal::SignerUnchanged);
        let story = story.when(rotate(2)).by(Actor::Operator).then([rotated(2)]);
        assert_eq!(story.state().custody.signer(), Some(&[2; 32]));
    }

    #[test]
    fn a_repair_is_on_record() {
        let (damage, source) = ("hash".to_owned(), "backup".to_owned());
        let repair = RecordRepair { kept: 3, restored: 2, lost: 1, damage, source };
        let command = Command::RecordRepair(repair.clone());
        let story = given([]).when(command.clone()).by(key("k")).refused(Refusal::ActorInactive);
        let story = story.when(command.clone()).by(Actor::System).refused(Refusal::OperatorOnly);
        let RecordRepair { kept, restored, lost, damage, source } = repair;
        let event = Event::LedgerRepaired(LedgerRepaired { kept, restored, lost, damage, source });
        let story = story.when(command).by(Actor::Operator).then([event]);
        assert_eq!(story.state().custody.repairs(), 1);
    }
}
