//! Proof files: one entry, its place, its inclusion path and a checkpoint in one text. C2SP `tlog-proof`, version 1.
//!
//! The entry's bytes stand in the line `extra`, so that the file needs nothing beside it but a trusted key.

use data_encoding::BASE64;

use super::checkpoint::{
    CheckpointError, NOTE_LEN_MAX, SignedCheckpoint, parse_base64, parse_decimal, parse_hash,
};
use super::entry::{self, ENTRY_LEN_MAX, EntryError};
use super::merkle::{TreeHash, leaf_hash};
use super::proof::{INCLUSION_PATH_LEN_MAX, InclusionError, check_inclusion};
use crate::domain::id::TenantId;

/// Bytes of the longest proof file that is read: the longest entry, path and checkpoint, and the lines around them.
pub const PROOF_FILE_LEN_MAX: usize =
    NOTE_LEN_MAX + ENTRY_LEN_MAX.div_ceil(3) * 4 + INCLUSION_PATH_LEN_MAX * 45 + 128;

/// The first line.
const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
const EXTRA: &str = "extra ";
const INDEX: &str = "index ";

/// The parts of a proof file. Nothing about them is known to be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFile {
    /// All bytes of the entry.
    pub entry: Vec<u8>,
    /// The entry's place in the stream.
    pub index: u64,
    /// From the leaf to the root.
    pub path: Vec<TreeHash>,
    /// The note, as it was signed.
    pub checkpoint: String,
}

/// Why a text is not a proof file, or does not prove what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// Longer than [`PROOF_FILE_LEN_MAX`].
    #[error("longer than {PROOF_FILE_LEN_MAX} bytes")]
    TooLong,
    /// Another kind of file, or another version.
    #[error("the first line is not {FIRST_LINE}")]
    FirstLine,
    /// The second line is not `extra` and base64.
    #[error("the second line does not hold an entry")]
    Extra,
    /// The third line is not `index` and a number.
    #[error("the third line does not hold an index")]
    Index,
    /// A line of the path is not a hash, or there are more than a path can have.
    #[error("the path is malformed")]
    Path,
    /// The bytes in `extra` are not an entry.
    #[error("not an entry: {0}")]
    Entry(#[from] EntryError),
    /// What follows the path is not a signed checkpoint.
    #[error("not a checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The entry says that it stands elsewhere.
    #[error("the entry says that it is entry {0}")]
    Seq(u64),
    /// The entry belongs to another stream than the checkpoint.
    #[error("the entry belongs to tenant {0}, the checkpoint does not")]
    Tenant(TenantId),
    /// The path does not lead from the entry to the checkpoint's root.
    #[error("not included: {0}")]
    Inclusion(#[from] InclusionError),
}

impl ProofFile {
    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text =
            format!("{FIRST_LINE}\n{EXTRA}{}\n{INDEX}{}\n", BASE64.encode(&self.entry), self.index);
        for hash in &self.path {
            text += &BASE64.encode(&hash.0);
            text.push('\n');
        }
        text.push('\n');
        text + &self.checkpoint
    }

    /// Takes a file's text apart. Strict: of all ways to write a line one is accepted. What the lines hold is not looked
    /// at before [`ProofFile::check`].
    ///
    /// # Errors
    ///
    /// The first [`ProofFileError`] on the way through the text.
    pub fn parse(text: &str) -> Result<Self, ProofFileError> {
        if text.len() > PROOF_FILE_LEN_MAX {
            return Err(ProofFileError::TooLong);
        }
        let mut rest = text;
        if next_line(&mut rest) != Some(FIRST_LINE) {
            return Err(ProofFileError::FirstLine);
        }
        let entry = next_line(&mut rest)
            .and_then(|line| parse_base64(line.strip_prefix(EXTRA)?))
            .ok_or(ProofFileError::Extra)?;
        let index = next_line(&mut rest)
            .and_then(|line| parse_decimal(line.strip_prefix(INDEX)?))
            .ok_or(ProofFileError::Index)?;
        let mut path = Vec::new();
        loop {
            let line = next_line(&mut rest).ok_or(ProofFileError::Path)?;
            if line.is_empty() {
                break;
            }
            if path.len() == INCLUSION_PATH_LEN_MAX {
                return Err(ProofFileError::Path);
            }
            path.push(parse_hash(line).ok_or(ProofFileError::Path)?);
        }
        Ok(Self { entry, index, path, checkpoint: rest.to_owned() })
    }

    /// Checks that the checkpoint's tree has the entry at its place, and hands out the checkpoint. Whoever calls this
    /// must ask it [`SignedCheckpoint::signed_by`]: what an unsigned checkpoint includes proves nothing.
    ///
    /// # Errors
    ///
    /// The first [`ProofFileError`] of those after the path's.
    pub fn check(&self) -> Result<SignedCheckpoint, ProofFileError> {
        let entry = entry::open(&self.entry)?;
        let signed = SignedCheckpoint::parse(&self.checkpoint)?;
        let checkpoint = &signed.checkpoint;
        if entry.recorded.seq != self.index {
            return Err(ProofFileError::Seq(entry.recorded.seq));
        }
        if entry.tenant != checkpoint.tenant {
            return Err(ProofFileError::Tenant(entry.tenant));
        }
        let leaf = leaf_hash(&self.entry);
        check_inclusion(&leaf, self.index, checkpoint.size, &self.path, &checkpoint.root)?;
        Ok(signed)
    }
}

/// The text up to the next newline; `None` when there is none.
fn next_line<'text>(rest: &mut &'text str) -> Option<&'text str> {
    let (line, after) = rest.split_once('\n')?;
    *rest = after;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deviation_is_refused() {
        let hash = BASE64.encode(&[7; 32]);
        let text = format!("{FIRST_LINE}\nextra YWI=\nindex 5\n{hash}\n{hash}\n\nnote\n\nmore\n");
        let file = ProofFile::parse(&text).unwrap();
        assert_eq!((file.entry.as_slice(), file.index, file.path.len()), (&b"ab"[..], 5, 2));
        assert_eq!(file.checkpoint, "note\n\nmore\n");
        assert_eq!(file.render(), text);

        let too_many = format!("\n{}\n", format!("{hash}\n").repeat(INCLUSION_PATH_LEN_MAX - 1));
        for (from, to, expected) in [
            ("@v1", "@v2", ProofFileError::FirstLine),
            ("\nextra", "\r\nextra", ProofFileError::FirstLine),
            ("extra YWI=\n", "", ProofFileError::Extra),
            ("YWI=", "YWI", ProofFileError::Extra),
            ("YWI=", "YWJ=", ProofFileError::Extra),
            ("YWI=", "YQ==Yg==", ProofFileError::Extra),
            ("extra ", "extra  ", ProofFileError::Extra),
            ("index 5", "index 05", ProofFileError::Index),
            ("index 5", "index -5", ProofFileError::Index),
            ("index 5", "index", ProofFileError::Index),
            ("index", "Index", ProofFileError::Index),
            ("\n\n", &too_many, ProofFileError::Path),
            (&hash, &hash[..40], ProofFileError::Path),
            (&hash, &(hash.clone() + " "), ProofFileError::Path),
            ("\n\nnote\n\nmore\n", "", ProofFileError::Path),
        ] {
            assert_eq!(ProofFile::parse(&text.replacen(from, to, 1)), Err(expected), "{from:?} {to:?}");
        }
        assert_eq!(ProofFile::parse(&"x".repeat(PROOF_FILE_LEN_MAX + 1)), Err(ProofFileError::TooLong));
    }
}
