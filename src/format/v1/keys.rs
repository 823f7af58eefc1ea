//! Payloads of schema version 1 about API keys and their use, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::id::KeyPrefix;
use crate::domain::keys::{AccessDenied, KeyMinted, KeyRevoked};
use crate::domain::scope::KeyScopes;
use crate::domain::time::{Month, Timestamp};
use crate::domain::usage::{KeyReading, UsageMetered};

#[derive(Encode, Decode)]
pub(super) struct KeyMintedWire {
    prefix: String,
    hash: [u8; 32],
    name: String,
    scopes: Vec<String>,
}

#[derive(Encode, Decode)]
pub(super) struct KeyRevokedWire {
    prefix: String,
}

#[derive(Encode, Decode)]
pub(super) struct AccessDeniedWire {
    required: String,
    operation: String,
}

#[derive(Encode, Decode)]
pub(super) struct UsageMeteredWire {
    year: u16,
    month: u8,
    keys: Vec<KeyReadingWire>,
}

#[derive(Encode, Decode)]
struct KeyReadingWire {
    prefix: String,
    calls: u64,
    last_used_us: u64,
}

impl From<&KeyMinted> for KeyMintedWire {
    fn from(e: &KeyMinted) -> Self {
        Self {
            prefix: e.prefix.to_string(),
            hash: e.hash,
            name: e.name.clone(),
            scopes: e.scopes.as_slice().to_vec(),
        }
    }
}

impl Wire for KeyMintedWire {
    type Event = KeyMinted;
    fn into_event(self) -> Result<KeyMinted, &'static str> {
        // Scopes are kept sorted: a list in another order would not survive a second encoding.
        let scopes = KeyScopes::parse(&self.scopes).map_err(|_| "scopes")?;
        if scopes.as_slice() != self.scopes {
            return Err("scopes");
        }
        Ok(KeyMinted {
            prefix: KeyPrefix::parse(&self.prefix).ok_or("prefix")?,
            hash: self.hash,
            name: self.name,
            scopes,
        })
    }
}

impl From<&KeyRevoked> for KeyRevokedWire {
    fn from(e: &KeyRevoked) -> Self {
        Self { prefix: e.prefix.to_string() }
    }
}

impl Wire for KeyRevokedWire {
    type Event = KeyRevoked;
    fn into_event(self) -> Result<KeyRevoked, &'static str> {
        Ok(KeyRevoked { prefix: KeyPrefix::parse(&self.prefix).ok_or("prefix")? })
    }
}

impl From<&AccessDenied> for AccessDeniedWire {
    fn from(e: &AccessDenied) -> Self {
        Self { required: e.required.clone(), operation: e.operation.clone() }
    }
}

impl Wire for AccessDeniedWire {
    type Event = AccessDenied;
    fn into_event(self) -> Result<AccessDenied, &'static str> {
        Ok(AccessDenied { required: self.required, operation: self.operation })
    }
}

impl From<&UsageMetered> for UsageMeteredWire {
    fn from(e: &UsageMetered) -> Self {
        let keys = e.keys.iter().map(|reading| KeyReadingWire {
            prefix: reading.prefix.to_string(),
            calls: reading.calls,
            last_used_us: reading.last_used.micros(),
        });
        Self { year: e.month.year(), month: e.month.month(), keys: keys.collect() }
    }
}

impl Wire for UsageMeteredWire {
    type Event = UsageMetered;
    fn into_event(self) -> Result<UsageMetered, &'static str> {
        let keys = self.keys.into_iter().map(|reading| {
            Ok(KeyReading {
                prefix: KeyPrefix::parse(&reading.prefix).ok_or("keys")?,
                calls: reading.calls,
                last_used: Timestamp::from_micros(reading.last_used_us),
            })
        });
        Ok(UsageMetered {
            month: Month::new(self.year, self.month).ok_or("month")?,
            keys: keys.collect::<Result<_, &'static str>>()?,
        })
    }
}
