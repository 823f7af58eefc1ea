//! The walk over a stream that somebody was handed: entries in order, pins on the way, the closing checkpoint at the end.

use super::{Expected, Report, Signer, Verdict};
use crate::domain::id::TenantId;
use crate::format::chain::PublicKey;
use crate::format::checkpoint::SignedCheckpoint;
use crate::format::merkle::TreeHash;
use crate::format::verify::{Flaw, Standpoint, Trust, Verifier};
use crate::ledger::walk::{Located, Reading, WINDOW_LEN, verify_window};

/// What is wrong with a piece of evidence beyond the entry in it, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Objection(pub String);

impl From<Flaw> for Objection {
    fn from(flaw: Flaw) -> Self {
        Self(flaw.to_string())
    }
}

/// How the evidence says that the stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Entries in the stream.
    pub size: u64,
    /// Hash of the last one, if it says so.
    pub head: Option<crate::format::chain::EntryHash>,
    /// Root of the tree over them.
    pub root: TreeHash,
    /// The checkpoint that says the same, signed.
    pub checkpoint: Option<SignedCheckpoint>,
    /// Entries that the stream had when the evidence was made, if it says so. More than `size` for a range.
    pub stream_size: Option<u64>,
}

/// A walk under way. Pieces of evidence are gathered and verified a window at a time.
pub struct Walk<P> {
    tenant: TenantId,
    verifier: Verifier,
    from: u64,
    pieces: Vec<P>,
    pins: Vec<SignedCheckpoint>,
    /// Pins that the walk has come past.
    passed: usize,
    /// The first thing that was found to be wrong.
    finding: Option<Finding>,
    named: Vec<PublicKey>,
    offered: Vec<PublicKey>,
    limits: Vec<String>,
}

enum Finding {
    NotSound { seq: u64, reason: String },
    Conflict { reason: String, notes: Vec<String> },
}

impl<P: Sync> Walk<P> {
    /// Starts at the beginning of a stream, or in the middle of one of which the entries before are not there.
    #[must_use]
    pub fn new(tenant: TenantId, expected: &Expected, trust: Trust, start: Option<Standpoint>) -> Self {
        let from = start.as_ref().map_or(0, |start| start.size);
        let (named, offered) = match &trust {
            Trust::Keys { named, offered, .. } => (named.clone(), offered.clone()),
            Trust::ChainOnly => (Vec::new(), Vec::new()),
        };
        let verifier = match start {
            None => Verifier::new(tenant.clone(), trust),
            Some(start) => Verifier::at(tenant.clone(), trust, start),
        };
        let mut walk = Self {
            verifier,
            from,
            pieces: Vec::with_capacity(WINDOW_LEN),
            pins: Vec::new(),
            passed: 0,
            finding: None,
            named,
            offered,
            limits: Vec::new(),
            tenant,
        };
        match expected.pins_of(&walk.tenant) {
            Ok(pins) => walk.pins = pins.into_iter().cloned().collect(),
            Err(notes) => {
                let reason = "two of the pinned checkpoints cannot both be true".to_owned();
                walk.finding = Some(Finding::Conflict { reason, notes: notes.to_vec() });
            }
        }
        if let Some(named) = &expected.tenant
            && *named != walk.tenant
        {
            let reason = Flaw::Tenant(walk.tenant.clone()).to_string();
            walk.finding = Some(Finding::NotSound { seq: 0, reason });
        }
        // A pin before the first entry cannot be compared with anything.
        walk.passed = walk.pins.iter().filter(|pin| pin.checkpoint.size < from).count();
        if walk.passed > 0 {
            walk.limits.push(format!("a pinned checkpoint of a size below {from} was not compared"));
        }
        if walk.finding.is_none() {
            walk.pass_pins();
        }
        walk
    }

    /// Whether something is wrong already, so that going on is of no use.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.finding.is_some()
    }

    /// The place of the piece that is expected next.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.verifier.next_seq() + self.pieces.len() as u64
    }

    /// Adds the next piece; `read` finds the entry in it.
    pub fn add(&mut self, piece: P, read: impl Fn(&P) -> Result<Reading<Objection>, Objection> + Sync) {
        self.pieces.push(piece);
        let next_pin = self.pins.get(self.passed).map(|pin| pin.checkpoint.size);
        if self.pieces.len() == WINDOW_LEN || next_pin == Some(self.next_seq()) {
            self.verify(read);
        }
    }

    /// The root of the tree over what was verified.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        self.verifier.root()
    }

    /// Verifies what was gathered.
    pub fn verify(&mut self, read: impl Fn(&P) -> Result<Reading<Objection>, Objection> + Sync) {
        if self.finding.is_some() {
            self.pieces.clear();
            return;
        }
        let verified = verify_window(&mut self.verifier, &self.pieces, read, |_| {});
        self.pieces.clear();
        if let Err(Located { seq, reason }) = verified {
            self.finding = Some(Finding::NotSound { seq, reason: reason.to_string() });
            return;
        }
        self.pass_pins();
    }

    fn pass_pins(&mut self) {
        while let Some(pin) = self.pins.get(self.passed).cloned() {
            if pin.checkpoint.size > self.verifier.next_seq() {
                return;
            }
            self.passed += 1;
            let is_true = pin.checkpoint.root == self.verifier.root();
            if pin.signed_by(&self.signers()).is_none() {
                let size = pin.checkpoint.size;
                let why = "is not signed by a key of this stream and was not compared";
                self.limits.push(format!("the pinned checkpoint of size {size} {why}"));
            } else if !is_true {
                let reason =
                    format!("the pinned checkpoint of size {} is of another history", pin.checkpoint.size);
                self.finding = Some(Finding::Conflict { reason, notes: vec![pin.note().to_owned()] });
                return;
            }
        }
    }

    /// Says that something is wrong at the next place.
    pub fn object(&mut self, reason: &str) {
        if self.finding.is_none() {
            let reason = reason.to_owned();
            self.finding = Some(Finding::NotSound { seq: self.verifier.next_seq(), reason });
        }
    }

    /// Every key that may have signed checkpoints of the stream.
    fn signers(&self) -> Vec<PublicKey> {
        let summary = self.verifier.summary();
        let signed = summary.signings.iter().map(|signing| signing.key);
        signed.chain(self.named.iter().copied()).chain(self.offered.iter().copied()).collect()
    }

    /// What the walk amounts to. `end` is `None` when the evidence breaks off. Everything must have been verified.
    #[must_use]
    pub fn finish(mut self, end: Option<&End>) -> Report {
        if self.finding.is_none() {
            self.pass_pins();
        }
        if let Some(end) = end
            && self.finding.is_none()
        {
            self.check_end(end);
        }
        let summary = self.verifier.summary();
        let mut report = Report {
            tenant_id: self.tenant.to_string(),
            verdict: Verdict::Sound,
            reason: String::new(),
            first_bad_seq: None,
            from: self.from,
            size: summary.size,
            head: Some(summary.head.to_string()),
            root: Some(summary.root.to_string()),
            decided: summary.decided,
            signers: summary.signings.iter().map(Signer::from).collect(),
            limits: Vec::new(),
            conflict: Vec::new(),
        };
        self.judge(&mut report, end);
        if report.verdict != Verdict::NotSound && summary.decided.1 < summary.size && summary.size > self.from
        {
            self.limits.push(format!(
                "decisions were derived again for {} of the {} entries",
                summary.decided.1 - summary.decided.0,
                summary.size - self.from
            ));
        }
        report.limits = self.limits;
        report
    }

    fn check_end(&mut self, end: &End) {
        let seq = self.verifier.next_seq();
        let head = end.head.unwrap_or_else(|| self.verifier.summary().head);
        let wrong = |reason: &str| Some(Finding::NotSound { seq, reason: reason.to_owned() });
        self.finding = if let Err(flaw) = self.verifier.check_end(end.size, &head) {
            Some(Finding::NotSound { seq, reason: flaw.to_string() })
        } else if end.root != self.verifier.root() {
            wrong("the root is not that of the entries")
        } else {
            match &end.checkpoint {
                None => {
                    self.limits.push("no signed checkpoint says that the stream ended here".to_owned());
                    None
                }
                Some(signed) => {
                    let checkpoint = &signed.checkpoint;
                    let agrees = checkpoint.tenant == self.tenant
                        && checkpoint.size == end.size
                        && checkpoint.root == end.root;
                    if !agrees {
                        wrong("the closing checkpoint is of another stream or size")
                    } else if signed.signed_by(&self.signers()).is_none() {
                        wrong("the closing checkpoint is not signed by a key of this stream")
                    } else {
                        None
                    }
                }
            }
        };
    }

    fn judge(&self, report: &mut Report, end: Option<&End>) {
        let (verdict, reason) = match &self.finding {
            Some(Finding::NotSound { seq, reason }) => {
                report.first_bad_seq = Some(*seq);
                (report.head, report.root) = (None, None);
                (Verdict::NotSound, reason.clone())
            }
            Some(Finding::Conflict { reason, notes }) => {
                report.conflict.clone_from(notes);
                report
                    .conflict
                    .extend(end.and_then(|end| end.checkpoint.as_ref()).map(|it| it.note().to_owned()));
                (Verdict::Equivocation, reason.clone())
            }
            None => self.judge_sound(report, end),
        };
        report.verdict = verdict;
        report.reason = reason;
    }

    /// The verdict on entries with which nothing is wrong.
    fn judge_sound(&self, report: &Report, end: Option<&End>) -> (Verdict, String) {
        if let Some(pin) = self.pins.get(self.passed) {
            let reason = format!(
                "the stream held {} entries when a pinned checkpoint was signed, and {} are here",
                pin.checkpoint.size, report.size
            );
            return (Verdict::Truncated, reason);
        }
        if let Some(unnamed) = report.signers.iter().find(|signer| !signer.named) {
            let Signer { key_id, from, .. } = unnamed;
            let reason = format!("signed by key {key_id} from seq {from} on, which you did not name");
            return (Verdict::UnnamedKey, reason);
        }
        let incomplete = |reason: String| (Verdict::Incomplete, reason);
        match end {
            None => incomplete(format!("it breaks off after {} entries", report.size - self.from)),
            Some(_) if self.from > 0 => {
                incomplete(format!("it holds the entries from seq {} to {} only", self.from, report.size))
            }
            Some(end) if end.stream_size.is_some_and(|size| size > end.size) => incomplete(format!(
                "it holds the first {} entries of a stream that had {}",
                end.size,
                end.stream_size.unwrap_or_default()
            )),
            Some(_) if report.decided.1 < report.size => {
                let from = report.decided.1;
                incomplete(format!(
                    "from seq {from} on, decisions follow rules that this program does not know"
                ))
            }
            Some(_) => (Verdict::Sound, String::new()),
        }
    }
}
