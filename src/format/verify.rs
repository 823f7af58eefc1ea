//! The oracle: whether a stream of entries is what Haldir would have written. See "Verification" in ledger-format.md.
//!
//! The same code runs in `haldir audit verify`, at start-up and in the tests.

use super::chain::{EntryHash, KeyId, PublicKey};
use super::entry::{self, Entry, EntryError};
use super::merkle::{Tree, TreeHash, leaf_hash};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;

/// Why a stream is not sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The bytes at this place are not an entry.
    #[error("not an entry: {0}")]
    Malformed(#[from] EntryError),
    /// The entry belongs to another tenant's stream.
    #[error("belongs to tenant {0}")]
    Tenant(TenantId),
    /// The entry says that it stands elsewhere.
    #[error("says that it is entry {0}")]
    Seq(u64),
    /// The entry does not name the entry before it.
    #[error("does not follow the entry before it")]
    Link,
    /// The entry is not later than the one before it.
    #[error("is not later than the entry before it")]
    Time,
    /// The entry is signed by a key that the verifier was not told to trust.
    #[error("signed by key {0}, which is not trusted")]
    Signer(KeyId),
    /// The signature is not that of the key it names.
    #[error("the signature is wrong")]
    Signature,
    /// The stream ends before the place where it is known to have ended.
    #[error("the stream ends here, but is known to hold {0} entries")]
    Truncated(u64),
    /// The stream goes on after the place where it is known to have ended, or ends in another entry.
    #[error("the stream does not end in the entry it is known to end in")]
    Head,
}

/// How much of a signature's meaning is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Entries must be signed by one of these keys.
    Keys(Vec<PublicKey>),
    /// Signatures are not looked at: for a start from the own disk, where hashes find every accident.
    ChainOnly,
}

/// Walks a stream from its first entry and keeps what a summary needs.
#[derive(Debug)]
pub struct Verifier {
    tenant: TenantId,
    trust: Trust,
    next_seq: u64,
    prev: EntryHash,
    prev_at: Option<Timestamp>,
    tree: Tree,
}

/// What a sound stream amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Entries in the stream.
    pub size: u64,
    /// Hash of the last entry, or [`EntryHash::GENESIS`].
    pub head: EntryHash,
    /// Root of the Merkle tree over all entries.
    pub root: TreeHash,
}

impl Verifier {
    /// Starts before the first entry of a tenant's stream.
    #[must_use]
    pub fn new(tenant: TenantId, trust: Trust) -> Self {
        Self { tenant, trust, next_seq: 0, prev: EntryHash::GENESIS, prev_at: None, tree: Tree::default() }
    }

    /// Checks the next entry.
    ///
    /// # Errors
    ///
    /// The first [`Flaw`]; it is located at [`Verifier::next_seq`], which then does not move.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Entry, Flaw> {
        let entry = entry::open(bytes)?;
        if entry.tenant != self.tenant {
            return Err(Flaw::Tenant(entry.tenant));
        }
        if entry.recorded.seq != self.next_seq {
            return Err(Flaw::Seq(entry.recorded.seq));
        }
        if entry.prev != self.prev {
            return Err(Flaw::Link);
        }
        if self.prev_at.is_some_and(|prev_at| entry.recorded.at <= prev_at) {
            return Err(Flaw::Time);
        }
        if let Trust::Keys(keys) = &self.trust {
            let key = keys.iter().find(|key| key.id() == entry.key_id).ok_or(Flaw::Signer(entry.key_id))?;
            if !key.has_signed(&entry.hash, &entry.signature) {
                return Err(Flaw::Signature);
            }
        }

        self.next_seq += 1;
        self.prev = entry.hash;
        self.prev_at = Some(entry.recorded.at);
        self.tree.push(leaf_hash(bytes));
        Ok(entry)
    }

    /// The place of the entry that is expected next.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Compares what was walked with where the stream is known to end.
    ///
    /// # Errors
    ///
    /// [`Flaw::Truncated`] or [`Flaw::Head`].
    pub fn check_end(&self, size: u64, head: &EntryHash) -> Result<(), Flaw> {
        if self.next_seq < size {
            return Err(Flaw::Truncated(size));
        }
        if self.next_seq > size || self.prev != *head {
            return Err(Flaw::Head);
        }
        Ok(())
    }

    /// What was walked so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { size: self.next_seq, head: self.prev, root: self.tree.root() }
    }
}
