//! Verification of what somebody was handed: an export, a folder of tiles, a proof. No server and no data directory.
//!
//! Whoever verifies brings an [`Expected`]: the keys they trust, the tenant they mean, the checkpoints they kept. The
//! [`Report`] says what holds, and admits what it cannot say. [`mod@form`] tells forms apart; one file for each kind of them:
//! [`ledger_export`], [`ocsf_lines`], [`rows`], [`proofs`], [`tiles`] for a folder, and [`stream`] for a store. The walk
//! over entries, with pins and the closing checkpoint, is [`walk`].
//!
//! Whose word counts:
//!
//! - A key that was named, or certified by a root that was, is trusted. In a stream, so is the key that a trusted one hands
//!   it to; with roots, only if it is certified too.
//! - A key that only came with the evidence (a ledger export, an audit export and the contract's documents bring theirs)
//!   shows that nothing was changed since somebody signed it. Who, it does not show: [`Verdict::UnnamedKey`], and never
//!   better.
//! - Tiles, OCSF lines, proof files and checkpoints bring no keys. Without a named one they could not be checked
//!   ([`CouldNotCheck`]). With named ones, a signature of another key is a signature of nobody: [`Verdict::NotSound`].
//! - The end of a stream counts only when a checkpoint says so that is signed by a trusted key, or by the key that signs the
//!   stream there: the closing one of the evidence, or a pinned one of exactly that size. Otherwise it is
//!   [`Verdict::Incomplete`], because whoever leaves out the last entries leaves no trace in those before.
//! - What is recognised as a form and then departs from it is [`Verdict::NotSound`]; what is not recognised could not be
//!   checked.

mod claim;
pub mod form;
pub mod json;
pub mod ledger_export;
pub mod ocsf_lines;
pub mod proofs;
pub mod rows;
pub mod stream;
pub mod tiles;
pub mod walk;

use serde::Serialize;

use crate::domain::id::TenantId;
use crate::format::certificate::KeyCertificate;
use crate::format::chain::PublicKey;
use crate::format::checkpoint::SignedCheckpoint;
use crate::format::verify::{Signing, Trust};

/// What whoever verifies knows from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Signing keys that are trusted.
    pub keys: Vec<PublicKey>,
    /// Root keys that are trusted to certify signing keys. With any, every key of a stream must be certified or named.
    pub roots: Vec<PublicKey>,
    /// The tenant whose stream it must be.
    pub tenant: Option<TenantId>,
    /// Checkpoints that were kept.
    pub pins: Vec<SignedCheckpoint>,
}

/// What can be said of a piece of evidence. From the second on: not what whoever verifies hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that it claims holds.
    Sound,
    /// Some of it is not what Haldir would have written.
    NotSound,
    /// Everything holds, but it is signed by a key that was not named.
    UnnamedKey,
    /// Everything that is there holds, but something is not there.
    Incomplete,
    /// It ends before a checkpoint that was pinned.
    Truncated,
    /// Two checkpoints of the stream cannot both be true.
    Equivocation,
}

impl Verdict {
    /// The exit code of a command that ends in this verdict. 2 is left to commands that could not check.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::NotSound => 1,
            Self::UnnamedKey => 3,
            Self::Incomplete => 4,
            Self::Truncated => 5,
            Self::Equivocation => 6,
        }
    }
}

/// What was found out about one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whose stream.
    pub tenant_id: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in a sentence; empty for a sound stream.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The place of the first bad entry; in an audit export, of the first bad row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad_seq: Option<u64>,
    /// The first entry that was looked at.
    pub from: u64,
    /// Entries of the stream up to the last that was looked at, or that a checkpoint speaks of; in an audit export, rows.
    pub size: u64,
    /// Hash of the last entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Root of the tree over all entries up to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Entries whose decisions were derived again: from the first number up to, not including, the second.
    pub decided: (u64, u64),
    /// Who signed.
    pub signers: Vec<Signer>,
    /// What this verdict does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Two checkpoints that cannot both be true, word for word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflict: Vec<String>,
}

/// A key that signed a part of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The key's name.
    pub key_id: String,
    /// The first entry that it signed.
    pub from: u64,
    /// Whether it was named, certified, or took over from one that was.
    pub named: bool,
}

/// Two pins contradict each other, whatever the evidence is.
const PINS_CONFLICT: &str = "two of the pinned checkpoints cannot both be true";

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not be checked: {0}")]
pub struct CouldNotCheck(pub String);

impl Report {
    /// A report of something that is not sound.
    #[must_use]
    pub fn not_sound(tenant_id: String, seq: u64, reason: String) -> Self {
        Self {
            tenant_id,
            verdict: Verdict::NotSound,
            reason,
            first_bad_seq: Some(seq),
            from: 0,
            size: seq,
            head: None,
            root: None,
            decided: (0, 0),
            signers: Vec::new(),
            limits: Vec::new(),
            conflict: Vec::new(),
        }
    }
}

impl From<&Signing> for Signer {
    fn from(signing: &Signing) -> Self {
        Self { key_id: signing.key.id().to_string(), from: signing.from, named: signing.is_named }
    }
}

impl Expected {
    /// Whom to trust in a stream that came with these keys and certificates.
    #[must_use]
    pub fn trust(&self, offered: Vec<PublicKey>, certificates: &[KeyCertificate]) -> Trust {
        let certified = certificates.iter().filter(|it| self.roots.contains(&it.root) && it.is_signed());
        let mut named = self.keys.clone();
        named.extend(certified.map(|certificate| certificate.subject));
        Trust::Keys { named, offered, must_name_successors: !self.roots.is_empty() }
    }

    /// The pinned checkpoints of a tenant, by size.
    ///
    /// # Errors
    ///
    /// Two of them that cannot both be true.
    pub fn pins_of(&self, tenant: &TenantId) -> Result<Vec<&SignedCheckpoint>, [String; 2]> {
        let mut pins: Vec<_> = self.pins.iter().filter(|pin| pin.checkpoint.tenant == *tenant).collect();
        pins.sort_by_key(|pin| pin.checkpoint.size);
        for pair in pins.windows(2) {
            let [one, other] = [&pair[0].checkpoint, &pair[1].checkpoint];
            if one.size == other.size && one.root != other.root {
                return Err([pair[0].note().to_owned(), pair[1].note().to_owned()]);
            }
        }
        Ok(pins)
    }
}
