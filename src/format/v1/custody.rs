//! Payloads of schema version 1 about the custody of a stream, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::custody::{LedgerRepaired, SignerRotated};

#[derive(Encode, Decode)]
pub(super) struct SignerRotatedWire {
    public_key: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct LedgerRepairedWire {
    kept: u64,
    restored: u64,
    lost: u64,
    damage: String,
    source: String,
}

impl From<&SignerRotated> for SignerRotatedWire {
    fn from(e: &SignerRotated) -> Self {
        Self { public_key: e.public_key }
    }
}

impl Wire for SignerRotatedWire {
    type Event = SignerRotated;
    fn into_event(self) -> Result<SignerRotated, &'static str> {
        Ok(SignerRotated { public_key: self.public_key })
    }
}

impl From<&LedgerRepaired> for LedgerRepairedWire {
    fn from(e: &LedgerRepaired) -> Self {
        let (damage, source) = (e.damage.clone(), e.source.clone());
        Self { kept: e.kept, restored: e.restored, lost: e.lost, damage, source }
    }
}

impl Wire for LedgerRepairedWire {
    type Event = LedgerRepaired;
    fn into_event(self) -> Result<LedgerRepaired, &'static str> {
        let Self { kept, restored, lost, damage, source } = self;
        Ok(LedgerRepaired { kept, restored, lost, damage, source })
    }
}
