//! The oracle: whether a stream of entries is what Haldir would have written. See "Verification" in ledger-format.md.
//!
//! The same code runs in `haldir audit verify`, in the background scrub, at start-up and in the tests. What can be said of
//! an entry alone ([`examine`]) and its signature may be checked on many cores at once; what depends on the entries before
//! it ([`Verifier::place`], [`Verifier::take`]) is checked in order.

use super::chain::{EntryHash, KeyId, PublicKey};
use super::entry::{self, Entry, EntryError};
use super::merkle::{Tree, TreeHash, leaf_hash};
use crate::domain::id::TenantId;
use crate::domain::rederive::{Due, Rederived, rederive};
use crate::domain::time::Timestamp;
use crate::domain::{Event, Tenant, apply};

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
    /// The entry is signed by a key that nobody named, so that its signature cannot be checked.
    #[error("signed by key {0}, which is not trusted")]
    Signer(KeyId),
    /// The entry is signed by another key than the one that signs the stream at this place.
    #[error("signed by key {found}, but at this place key {current} signs")]
    NotCurrent {
        /// The key that the entry names.
        found: KeyId,
        /// The key that signs here.
        current: KeyId,
    },
    /// The entry hands the stream to what is no key, or to the key that signs already.
    #[error("hands the stream to a key that cannot follow")]
    Rotation,
    /// The signature is not that of the key it names.
    #[error("the signature is wrong")]
    Signature,
    /// The rules give another decision than the recorded one.
    #[error("the rules do not give this decision: {0}")]
    Decision(String),
    /// The stream ends before the place where it is known to have ended.
    #[error("the stream ends here, but is known to hold {0} entries")]
    Truncated(u64),
    /// The stream goes on after the place where it is known to have ended, or ends in another entry.
    #[error("the stream does not end in the entry it is known to end in")]
    Head,
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The first entry is signed by one of the named keys, and each later one by the same key or the one that took over.
    /// When no named key signed the first entry, one that was only offered with the data is used to check signatures;
    /// the [`Summary`] then says so.
    Keys {
        /// Keys that whoever verifies trusts, by their own knowledge or by a certificate.
        named: Vec<PublicKey>,
        /// Keys that came with the data.
        offered: Vec<PublicKey>,
        /// Whether a key that takes over must be named too, because a root key vouches for every key.
        must_name_successors: bool,
    },
    /// Signatures and decisions are not looked at: for a start from the own disk, where hashes find every accident.
    ChainOnly,
}

impl Trust {
    /// Trusts these keys and whatever key they hand a stream to.
    #[must_use]
    pub const fn keys(named: Vec<PublicKey>) -> Self {
        Self::Keys { named, offered: Vec::new(), must_name_successors: false }
    }
}

/// A key and where it began to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// The key.
    pub key: PublicKey,
    /// The first entry that it signs.
    pub from: u64,
    /// Whether whoever verifies trusts it.
    pub is_named: bool,
}

/// An entry of which everything is known that can be known of it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The entry.
    pub entry: Entry,
    /// Its leaf in the tree.
    pub leaf: TreeHash,
}

/// Checks what can be checked of an entry alone: its form and its hash.
///
/// # Errors
///
/// [`Flaw::Malformed`].
pub fn examine(bytes: &[u8]) -> Result<Examined, Flaw> {
    Ok(Examined { entry: entry::open(bytes)?, leaf: leaf_hash(bytes) })
}

/// Walks a stream in order and keeps what a summary needs.
#[derive(Debug, Clone)]
pub struct Verifier {
    tenant: TenantId,
    trust: Trust,
    next_seq: u64,
    prev: EntryHash,
    prev_at: Option<Timestamp>,
    tree: Tree,
    /// The fold of what was walked; `None` when the walk began in the middle, or passed unknown rules.
    state: Option<Tenant>,
    /// What the last decision must still give.
    due: Due,
    signings: Vec<Signing>,
    decided_from: u64,
    decided_until: u64,
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
    /// Who signed, in order.
    pub signings: Vec<Signing>,
    /// The entries whose decisions were derived again: from the first number up to, not including, the second.
    pub decided: (u64, u64),
}

/// Where a walk may begin: everything that is true after the first `size` entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standpoint {
    /// Entries before it.
    pub size: u64,
    /// Hash of the last of them.
    pub head: EntryHash,
    /// Time of the last of them.
    pub last_at: Option<Timestamp>,
    /// The tree over them.
    pub tree: Tree,
    /// The fold of them, if it is known.
    pub state: Option<Tenant>,
    /// What the last decision must still give.
    pub due: Due,
    /// The key that signs from here on, if it is known.
    pub signer: Option<PublicKey>,
}

impl Verifier {
    /// Starts before the first entry of a tenant's stream.
    #[must_use]
    pub fn new(tenant: TenantId, trust: Trust) -> Self {
        let start = Standpoint {
            size: 0,
            head: EntryHash::GENESIS,
            last_at: None,
            tree: Tree::default(),
            state: Some(Tenant::default()),
            due: Due::default(),
            signer: None,
        };
        Self::at(tenant, trust, start)
    }

    /// Starts before the first entry, and does not decide anything again.
    #[must_use]
    pub fn without_decisions(tenant: TenantId, trust: Trust) -> Self {
        Self { state: None, ..Self::new(tenant, trust) }
    }

    /// Starts in the middle of a stream. What comes before is taken for granted.
    #[must_use]
    pub fn at(tenant: TenantId, trust: Trust, start: Standpoint) -> Self {
        let mut verifier = Self {
            tenant,
            trust,
            next_seq: start.size,
            prev: start.head,
            prev_at: start.last_at,
            tree: start.tree,
            state: start.state,
            due: start.due,
            signings: Vec::new(),
            decided_from: start.size,
            decided_until: start.size,
        };
        if let Some(key) = start.signer {
            let is_named = verifier.names(&key);
            verifier.signings.push(Signing { key, from: start.size, is_named });
        }
        verifier
    }

    /// Checks the next entry, its signature included.
    ///
    /// # Errors
    ///
    /// The first [`Flaw`]; it is located at [`Verifier::next_seq`], which then does not move.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Entry, Flaw> {
        let examined = examine(bytes)?;
        if let Some(key) = self.place(&examined)?
            && !key.has_signed(&examined.entry.hash, &examined.entry.signature)
        {
            return Err(Flaw::Signature);
        }
        self.take(examined)
    }

    /// Checks the place of the next entry, and says which key must have signed it; `None` when signatures are not looked at.
    ///
    /// # Errors
    ///
    /// As [`Verifier::push`].
    pub fn place(&mut self, examined: &Examined) -> Result<Option<PublicKey>, Flaw> {
        self.check_place(&examined.entry)?;
        self.signer_of(&examined.entry)
    }

    fn check_place(&self, entry: &Entry) -> Result<(), Flaw> {
        if entry.tenant != self.tenant {
            return Err(Flaw::Tenant(entry.tenant.clone()));
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
        Ok(())
    }

    /// The key that signs the stream at this place.
    fn signer_of(&mut self, entry: &Entry) -> Result<Option<PublicKey>, Flaw> {
        let Trust::Keys { named, offered, .. } = &self.trust else {
            return Ok(None);
        };
        let found = entry.key_id;
        if let Some(current) = self.signings.last() {
            let current = current.key;
            return if current.id() == found {
                Ok(Some(current))
            } else {
                Err(Flaw::NotCurrent { found, current: current.id() })
            };
        }
        let with_id = |keys: &[PublicKey]| keys.iter().copied().find(|key| key.id() == found);
        let (key, is_named) = match with_id(named) {
            Some(key) => (key, true),
            None => (with_id(offered).ok_or(Flaw::Signer(found))?, false),
        };
        self.signings.push(Signing { key, from: self.next_seq, is_named });
        Ok(Some(key))
    }

    /// Checks the decision of an entry that was placed, and folds it in.
    ///
    /// # Errors
    ///
    /// [`Flaw::Decision`] or [`Flaw::Rotation`].
    pub fn take(&mut self, examined: Examined) -> Result<Entry, Flaw> {
        let Examined { entry, leaf } = examined;
        if !matches!(self.trust, Trust::ChainOnly) {
            if let Some(state) = &self.state {
                match rederive(state, &mut self.due, &entry.recorded) {
                    Rederived::Same => self.decided_until = self.next_seq + 1,
                    Rederived::Different(given) => {
                        let recorded = entry.recorded.event.kind_name();
                        return Err(Flaw::Decision(format!("{recorded}; they give {given}")));
                    }
                    // Whoever does not know the rules does not know the state either, from here on.
                    Rederived::UnknownRules(_) => self.state = None,
                }
            }
            if let Event::SignerRotated(rotated) = &entry.recorded.event {
                self.hand_over(&rotated.public_key)?;
            }
        }
        if let Some(state) = &mut self.state {
            apply(state, &entry.recorded);
        }
        self.next_seq += 1;
        self.prev = entry.hash;
        self.prev_at = Some(entry.recorded.at);
        self.tree.push(leaf);
        Ok(entry)
    }

    fn hand_over(&mut self, public_key: &[u8; 32]) -> Result<(), Flaw> {
        let key = PublicKey::from_bytes(public_key).ok_or(Flaw::Rotation)?;
        let was_named = match self.signings.last() {
            Some(current) if current.key == key => return Err(Flaw::Rotation),
            Some(current) => current.is_named,
            None => false,
        };
        let must_name = matches!(self.trust, Trust::Keys { must_name_successors: true, .. });
        let is_named = self.names(&key) || (was_named && !must_name);
        self.signings.push(Signing { key, from: self.next_seq + 1, is_named });
        Ok(())
    }

    fn names(&self, key: &PublicKey) -> bool {
        matches!(&self.trust, Trust::Keys { named, .. } if named.contains(key))
    }

    /// The place of the entry that is expected next.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The fold of what was walked, if it is known.
    #[must_use]
    pub const fn state(&self) -> Option<&Tenant> {
        self.state.as_ref()
    }

    /// The root of the tree over what was walked.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        self.tree.root()
    }

    /// Where the walk stands, for another to go on from here.
    #[must_use]
    pub fn standpoint(&self) -> Standpoint {
        Standpoint {
            size: self.next_seq,
            head: self.prev,
            last_at: self.prev_at,
            tree: self.tree.clone(),
            state: self.state.clone(),
            due: self.due.clone(),
            signer: self.signings.last().map(|signing| signing.key),
        }
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

    /// Checks that the last decision is whole, where the stream is said to end: nobody has cut off the rest of it.
    ///
    /// # Errors
    ///
    /// [`Flaw::Decision`].
    pub fn check_whole(&self) -> Result<(), Flaw> {
        match self.due.next() {
            Some(missing) if self.state.is_some() => {
                let missing = missing.event.kind_name();
                Err(Flaw::Decision(format!("nothing more; they give {missing}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What was walked so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            size: self.next_seq,
            head: self.prev,
            root: self.tree.root(),
            signings: self.signings.clone(),
            decided: (self.decided_from, self.decided_until),
        }
    }
}
