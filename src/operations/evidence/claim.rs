//! A statement of a stream's size and root, and what it is worth to whoever keeps checkpoints.

use super::{CouldNotCheck, Expected, PINS_CONFLICT, Report, Signer, Verdict};
use crate::domain::id::TenantId;
use crate::format::chain::PublicKey;
use crate::format::checkpoint::SignedCheckpoint;
use crate::format::merkle::TreeHash;
use crate::format::verify::Flaw;

/// What somebody signed.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Whose stream.
    pub(super) tenant: TenantId,
    /// Entries in it.
    pub(super) size: u64,
    /// Root of the tree over them.
    pub(super) root: TreeHash,
    /// What was signed, with its signature: proof to show to others.
    pub(super) text: String,
    /// Whose signature it is.
    pub(super) signer: PublicKey,
}

/// Refuses to look at evidence that brings no keys when none were named, because then nothing of it can be checked.
pub(super) fn keys_must_be_named(expected: &Expected) -> Result<(), CouldNotCheck> {
    if expected.keys.is_empty() {
        let why = "it brings no public keys of its own: name the key that you trust with --key";
        return Err(CouldNotCheck(why.to_owned()));
    }
    Ok(())
}

impl Claim {
    /// What a checkpoint claims; the other value says why it counts for nothing.
    pub(super) fn of(signed: &SignedCheckpoint, keys: &[PublicKey]) -> Result<Self, String> {
        let signer = signed.signed_by(keys);
        let signer = signer.ok_or("the checkpoint is not signed by a key that you named")?;
        let checkpoint = &signed.checkpoint;
        Ok(Self {
            tenant: checkpoint.tenant.clone(),
            size: checkpoint.size,
            root: checkpoint.root,
            text: signed.note().to_owned(),
            signer,
        })
    }

    /// Compares the claim with what is expected. `from` is the first entry that the evidence shows.
    pub(super) fn judge(&self, expected: &Expected, from: u64, limits: Vec<String>) -> Report {
        if let Some(named) = expected.tenant.as_ref().filter(|named| **named != self.tenant) {
            return Report::not_sound(named.to_string(), 0, Flaw::Tenant(self.tenant.clone()).to_string());
        }
        let named = expected.keys.contains(&self.signer);
        let mut report = Report {
            tenant_id: self.tenant.to_string(),
            verdict: Verdict::Sound,
            reason: String::new(),
            first_bad_seq: None,
            from,
            size: self.size,
            head: None,
            root: Some(self.root.to_string()),
            decided: (0, 0),
            signers: vec![Signer { key_id: self.signer.id().to_string(), from: self.size, named }],
            limits,
            conflict: Vec::new(),
        };
        if !named {
            report.verdict = Verdict::UnnamedKey;
            report.reason = format!("signed by key {}, which you did not name", self.signer.id());
        }
        self.compare(expected, &mut report);
        report
    }

    fn compare(&self, expected: &Expected, report: &mut Report) {
        let pins = match expected.pins_of(&self.tenant) {
            Ok(pins) => pins,
            Err(notes) => {
                report.verdict = Verdict::Equivocation;
                report.reason = PINS_CONFLICT.into();
                report.conflict = notes.to_vec();
                return;
            }
        };
        if pins.len() < expected.pins.len() {
            report.limits.push("a pinned checkpoint of another tenant was not compared".to_owned());
        }
        let mut known = expected.keys.clone();
        known.push(self.signer);
        for pin in pins {
            let size = pin.checkpoint.size;
            if size != self.size {
                report.limits.push(format!(
                    "the pinned checkpoint of size {size} was not compared: only a consistency proof or the entries can"
                ));
            } else if pin.checkpoint.root != self.root {
                report.root = None;
                if pin.signed_by(&known).is_none() {
                    report.verdict = Verdict::NotSound;
                    report.first_bad_seq = Some(size);
                    report.reason = format!(
                        "the pinned checkpoint of size {size} is of another history, and signed by a key that is not known"
                    );
                } else {
                    report.verdict = Verdict::Equivocation;
                    report.reason = format!("the pinned checkpoint of size {size} is of another history");
                    report.conflict = vec![pin.note().to_owned(), self.text.clone()];
                }
                return;
            }
        }
    }
}
