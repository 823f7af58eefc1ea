//! What a ledger held, to compare others with that should hold the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use haldir::domain::Event;
use haldir::domain::id::TenantId;
use haldir::format::chain::{PublicKey, Signer};
use haldir::format::entry;
use haldir::format::verify::{Trust, Verifier};
use haldir::ledger::clock::SystemClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::store::embedded::EmbeddedStore;
use haldir::store::memory::MemorySnapshots;
use haldir::store::{EventStore, SideKind};
use serde_json::Value;

use crate::stores::once_free;
use crate::writing::ledger::{meter, request, wait};

/// The only stream of a ledger.
pub(crate) struct Truth {
    pub(crate) tenant: TenantId,
    pub(crate) entries: Vec<Vec<u8>>,
    /// What stands beside each entry, if anything does.
    side: Vec<Option<(Vec<u8>, Vec<u8>)>>,
    /// What nobody can make again: the keys that sign, digest and open.
    secrets: Vec<Option<String>>,
}

/// What became of a ledger that something happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is served, and holds so many entries.
    Served(u64),
    /// It is not served, and this is why.
    Refused(String),
    /// It is served, and something is wrong with it.
    Wrong(String),
}

impl Truth {
    /// What is in a data directory that nobody uses. Opening it may change it.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let store = once_free(|| EmbeddedStore::open(&data_dir.join("ledger"))).unwrap();
        let heads = store.heads().unwrap();
        let [(tenant, head)] = heads.as_slice() else { panic!("{heads:?}") };
        let entries = store.read(tenant, 0, usize::MAX).unwrap();
        assert_eq!(entries.len() as u64, head.size);
        let side = entries.iter().map(|bytes| {
            let id = details_id(bytes)?;
            let value = store.side(tenant, SideKind::Details, &id).unwrap().expect("details are there");
            Some((id, value))
        });
        let side = side.collect();
        Self { tenant: tenant.clone(), entries, side, secrets: secrets(data_dir) }
    }

    /// Starts a ledger on a data directory as a server would, looks at everything, and writes to it. It must hold at least
    /// `needed` entries, and none that are not in this truth.
    pub(crate) fn fate_of(&self, data_dir: &Path, needed: u64) -> Fate {
        // sled may panic rather than report what it cannot understand.
        match catch_unwind(AssertUnwindSafe(|| self.look_at(data_dir, needed))) {
            Ok(fate) => fate,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
                Fate::Wrong(format!("panic: {}", text.unwrap_or_default()))
            }
        }
    }

    fn look_at(&self, data_dir: &Path, needed: u64) -> Fate {
        let key = match signing_key(data_dir) {
            Some(key) => key,
            // A server would make a new key.
            None if needed == 0 && !data_dir.join("ledger/db").exists() => return Fate::Served(0),
            None => return Fate::Refused("there is no signing key".to_owned()),
        };
        let signer = Signer::new(SigningKey::from_bytes(&key));
        let public_key = signer.public_key();
        let store = match once_free(|| EmbeddedStore::open(&data_dir.join("ledger"))) {
            Ok(store) => Arc::new(store),
            Err(error) => return Fate::Refused(format!("store: {error}")),
        };
        let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandom::default()));
        let snapshots = Arc::new(MemorySnapshots::default());
        let parts = Parts {
            store: store.clone(),
            snapshots,
            signer,
            former_keys: Vec::new(),
            clock,
            random,
            sizes: Sizes::default(),
        };
        let ledger = match LedgerHandle::open(parts) {
            Ok((ledger, _)) => ledger,
            Err(error) => return Fate::Refused(format!("ledger: {error}")),
        };
        // The first entry is the key that a server mints for its operator; it is written down after that, and then told.
        let fate = match secrets(data_dir) {
            secrets if needed > 1 && secrets != self.secrets => {
                Err("a key beside the ledger is not what it was".to_owned())
            }
            _ => self.compare(&store, public_key, &ledger, needed),
        };
        ledger.close();
        fate.map_or_else(Fate::Wrong, Fate::Served)
    }

    fn compare(
        &self,
        store: &EmbeddedStore,
        public_key: PublicKey,
        ledger: &LedgerHandle,
        needed: u64,
    ) -> Result<u64, String> {
        let entries = store.read(&self.tenant, 0, usize::MAX).map_err(|error| format!("read: {error}"))?;
        if (entries.len() as u64) < needed {
            return Err(format!("{} entries, and {needed} were acknowledged", entries.len()));
        }
        let mut verifier = Verifier::new(self.tenant.clone(), Trust::keys(vec![public_key]));
        for (seq, bytes) in entries.iter().enumerate() {
            if needed > 0 && self.entries.get(seq) != Some(bytes) {
                return Err(format!("entry {seq} is not what was written"));
            }
            // A history that nobody was told of may be another one.
            if needed == 0 {
                verifier.push(bytes).map_err(|flaw| format!("entry {seq}: {flaw}"))?;
            }
        }
        for (id, value) in self.side.iter().take(entries.len()).flatten() {
            let found = store.side(&self.tenant, SideKind::Details, id);
            if needed > 0 && found.as_ref() != Ok(&Some(value.clone())) {
                return Err(format!("details of {} are wrong", String::from_utf8_lossy(id)));
            }
        }
        let receipt = wait(ledger.submit(request(self.tenant.as_str(), meter())));
        let seq = receipt.map_err(|error| format!("write: {error}"))?.events[0].recorded.seq;
        let size = entries.len() as u64;
        if seq != size {
            return Err(format!("the next entry became {seq}, and there were {size}"));
        }
        Ok(size)
    }
}

fn secrets(data_dir: &Path) -> Vec<Option<String>> {
    let read = |name: &str| std::fs::read_to_string(data_dir.join(name)).ok();
    let mut secrets: Vec<_> = ["signing.key", "retry.secret"].map(read).into();
    // It says where the server listens, too.
    let config: Option<Value> = read("config.json").and_then(|text| serde_json::from_str(&text).ok());
    secrets.push(config.and_then(|it| Some(it["api_key"].as_str()?.to_owned())));
    secrets
}

fn signing_key(data_dir: &Path) -> Option<[u8; 32]> {
    let pem = std::fs::read_to_string(data_dir.join("signing.key")).ok()?;
    SigningKey::from_pkcs8_pem(&pem).ok().map(|key| key.to_bytes())
}

/// Under which name an entry's details are kept.
fn details_id(bytes: &[u8]) -> Option<Vec<u8>> {
    match entry::open(bytes).unwrap().recorded.event {
        Event::ActionLogged(logged) => {
            logged.details_digest.map(|_| logged.entry_id.as_str().as_bytes().to_vec())
        }
        _ => None,
    }
}
