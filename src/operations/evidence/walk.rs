//! The walk over a stream that somebody was handed: entries in order, pins on the way, the closing checkpoint at the end.

use super::{Expected, PINS_CONFLICT, Report, Signer, Verdict};
use crate::domain::id::TenantId;
use crate::domain::rederive::Due;
use crate::format::chain::{EntryHash, PublicKey};
use crate::format::checkpoint::SignedCheckpoint;
use crate::format::merkle::{Tree, TreeHash};
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

/// Where the evidence begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the stream's first entry.
    First,
    /// Later, and it says what is true of the entries before. Whether it says the truth shows at the end, when the tree over
    /// those and these has the root that the checkpoint signs.
    After(Box<Standpoint>),
    /// Later, and nothing is known of the entries before but what the first entry says: how many they are, and the hash of
    /// the last.
    Middle {
        /// Entries before.
        size: u64,
        /// Hash of the last of them.
        prev: EntryHash,
    },
}

/// How the evidence ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Evidence of this form does not say where the stream ended.
    Unsaid,
    /// It should say so, and breaks off before. How many entries the stream had when it was made, if it says that.
    BrokenOff(Option<u64>),
    /// It says so.
    Said(Box<End>),
}

/// How the evidence says that the stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Entries in the stream.
    pub size: u64,
    /// Hash of the last one, if it says so.
    pub head: Option<EntryHash>,
    /// Root of the tree over them.
    pub root: TreeHash,
    /// Who vouches for that.
    pub closing: Closing,
    /// Entries that the stream had when the evidence was made, if it says so. More than `size` for a range.
    pub stream_size: Option<u64>,
}

/// Who says that the stream ended there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// A signed checkpoint.
    Checkpoint(SignedCheckpoint),
    /// The store that the entries come from, which knows its own end.
    Store,
    /// Nobody: whoever leaves out the last entries can write the same.
    Nobody,
}

/// A walk under way. Pieces of evidence are gathered and verified a window at a time.
pub struct Walk<P> {
    tenant: TenantId,
    verifier: Verifier,
    from: u64,
    /// Whether the tree over the entries before the first is known, so that roots can be compared.
    knows_tree: bool,
    pieces: Vec<P>,
    pins: Vec<SignedCheckpoint>,
    /// Pins that the walk has come past, and whether each had the root of the tree at its size.
    passed: Vec<bool>,
    /// The first thing that was found to be wrong.
    finding: Option<Finding>,
    /// Why the end counts for less than it says.
    doubt: Option<(Verdict, String)>,
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
    pub fn new(tenant: TenantId, expected: &Expected, trust: Trust, start: Start) -> Self {
        let (named, offered) = match &trust {
            Trust::Keys { named, offered, .. } => (named.clone(), offered.clone()),
            Trust::ChainOnly => (Vec::new(), Vec::new()),
        };
        let knows_tree = !matches!(start, Start::Middle { .. });
        let standpoint = match start {
            Start::First => None,
            Start::After(standpoint) => Some(*standpoint),
            Start::Middle { size, prev } => Some(middle(size, prev)),
        };
        let from = standpoint.as_ref().map_or(0, |standpoint| standpoint.size);
        let verifier = match standpoint {
            None => Verifier::new(tenant.clone(), trust),
            Some(standpoint) => Verifier::at(tenant.clone(), trust, standpoint),
        };
        let mut walk = Self {
            verifier,
            from,
            knows_tree,
            pieces: Vec::with_capacity(WINDOW_LEN),
            pins: Vec::new(),
            passed: Vec::new(),
            finding: None,
            doubt: None,
            named,
            offered,
            limits: Vec::new(),
            tenant,
        };
        if let Some(named) = &expected.tenant
            && *named != walk.tenant
        {
            walk.object_at(0, Flaw::Tenant(walk.tenant.clone()).to_string());
        }
        walk.take_pins(expected);
        walk
    }

    fn take_pins(&mut self, expected: &Expected) {
        let pins = match expected.pins_of(&self.tenant) {
            Ok(pins) => pins,
            Err(notes) => {
                let reason = PINS_CONFLICT.to_owned();
                self.finding.get_or_insert(Finding::Conflict { reason, notes: notes.to_vec() });
                return;
            }
        };
        if pins.len() < expected.pins.len() {
            self.limits.push("a pinned checkpoint of another tenant was not compared".to_owned());
        }
        if !self.knows_tree {
            if !pins.is_empty() {
                let why = "without the entries before the first, no pinned checkpoint was compared";
                self.limits.push(why.to_owned());
            }
            return;
        }
        // A pin before the first entry cannot be compared with anything.
        self.pins =
            pins.iter().filter(|pin| pin.checkpoint.size >= self.from).map(|pin| (*pin).clone()).collect();
        if self.pins.len() < pins.len() {
            self.limits.push(format!("a pinned checkpoint of a size below {} was not compared", self.from));
        }
        self.pass_pins();
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
        let next_pin = self.pins.get(self.passed.len()).map(|pin| pin.checkpoint.size);
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
        while let Some(pin) = self.pins.get(self.passed.len()).map(|pin| &pin.checkpoint) {
            if pin.size > self.verifier.next_seq() {
                return;
            }
            self.passed.push(pin.root == self.verifier.root());
        }
    }

    /// Says that something is wrong at the next place.
    pub fn object(&mut self, reason: &str) {
        self.object_at(self.verifier.next_seq(), reason.to_owned());
    }

    /// Says that something is wrong at a place.
    pub fn object_at(&mut self, seq: u64, reason: String) {
        self.finding.get_or_insert(Finding::NotSound { seq, reason });
    }

    /// Adds to what the verdict does not say.
    pub fn admit(&mut self, limit: &str) {
        self.limits.push(limit.to_owned());
    }

    /// Keys whose word counts for the tree of this size: those that are named, and those that signed the stream or took it
    /// over; but none that had handed it on before that size. A key that was only offered could be anybody's.
    fn signers_at(&self, size: u64) -> Vec<PublicKey> {
        let signings = self.verifier.summary().signings;
        let signed = signings.iter().map(|signing| signing.key);
        let known = self.named.iter().copied().chain(signed);
        known.filter(|key| !self.had_handed_on(*key, size)).collect()
    }

    /// Whether a key signed the stream and no longer did when it had this size. Who steals it then has no word any more.
    fn had_handed_on(&self, key: PublicKey, size: u64) -> bool {
        let signings = self.verifier.summary().signings;
        let last = signings.iter().rposition(|signing| signing.key == key && signing.from <= size);
        last.and_then(|index| signings.get(index + 1)).is_some_and(|next| next.from < size)
    }

    /// What the walk amounts to. Everything must have been verified.
    #[must_use]
    pub fn finish(mut self, ending: &Ending) -> Report {
        if let Ending::Said(end) = ending
            && self.finding.is_none()
        {
            self.check_end(end);
        }
        if self.finding.is_none() {
            self.judge_pins(ending);
        }
        let summary = self.verifier.summary();
        // Of no entry nothing was hashed: what comes before a range is hearsay, but for the root that is signed.
        let knows_head = summary.size > self.from || self.from == 0;
        let mut report = Report {
            tenant_id: self.tenant.to_string(),
            verdict: Verdict::Sound,
            reason: String::new(),
            first_bad_seq: None,
            from: self.from,
            size: summary.size,
            head: knows_head.then(|| summary.head.to_string()),
            root: self.knows_tree.then(|| summary.root.to_string()),
            decided: summary.decided,
            signers: summary.signings.iter().map(Signer::from).collect(),
            limits: Vec::new(),
            conflict: Vec::new(),
        };
        self.judge(&mut report, ending);
        if report.verdict != Verdict::NotSound && summary.decided.1 < summary.size && summary.size > self.from
        {
            self.limits.push(format!(
                "decisions were derived again for {} of the {} entries",
                summary.decided.1 - summary.decided.0,
                summary.size - self.from
            ));
        }
        if self.passed.len() < self.pins.len() && report.verdict != Verdict::Truncated {
            let size = report.size;
            self.limits.push(format!("a pinned checkpoint of a size above {size} was not compared"));
        }
        if !self.knows_tree {
            self.limits.push(format!(
                "it begins at seq {}: without the entries before, neither the tree nor any decision can be checked",
                self.from
            ));
        }
        report.limits = self.limits;
        report
    }

    /// Looks at the pins that were passed. Only now every key of the stream is known.
    fn judge_pins(&mut self, ending: &Ending) {
        let known = self.signers_at(0);
        for (pin, is_true) in self.pins.iter().zip(&self.passed) {
            let size = pin.checkpoint.size;
            match (is_true, pin.signed_by(&known)) {
                (true, Some(_)) => {}
                (true, None) => self.limits.push(format!(
                    "the pinned checkpoint of size {size} agrees, but is not signed by a key of this stream"
                )),
                (false, Some(_)) => {
                    let reason = format!("the pinned checkpoint of size {size} is of another history");
                    let mut notes = vec![pin.note().to_owned()];
                    if let Ending::Said(end) = ending
                        && let Closing::Checkpoint(signed) = &end.closing
                    {
                        notes.push(signed.note().to_owned());
                    }
                    self.finding.get_or_insert(Finding::Conflict { reason, notes });
                }
                // Proof of nothing without the key, but whoever kept it did not keep it of these entries.
                (false, None) => {
                    let reason = format!(
                        "the pinned checkpoint of size {size} is of another history, and signed by a key that is not known"
                    );
                    self.finding = Some(Finding::NotSound { seq: size, reason });
                    return;
                }
            }
        }
    }

    fn check_end(&mut self, end: &End) {
        let seq = self.verifier.next_seq();
        let head = end.head.unwrap_or_else(|| self.verifier.summary().head);
        // A part may end within a decision. A whole stream may not.
        let is_whole = end.stream_size == Some(end.size);
        let whole = if is_whole { self.verifier.check_whole() } else { Ok(()) };
        if let Err(flaw) = self.verifier.check_end(end.size, &head).and(whole) {
            self.object(&flaw.to_string());
        } else if end.root != self.verifier.root() {
            self.object("the root is not that of the entries");
        } else {
            match &end.closing {
                Closing::Checkpoint(signed) => self.check_closing(signed, end),
                Closing::Store => {
                    let why = "no signed checkpoint says that the stream ended here; the store does";
                    self.limits.push(why.to_owned());
                }
                Closing::Nobody if self.is_closed_by_pin(seq) => {}
                Closing::Nobody => {
                    let reason = "no signed checkpoint says that the stream ended here".to_owned();
                    self.doubt = Some((Verdict::Incomplete, reason));
                }
            }
        }
    }

    fn check_closing(&mut self, signed: &SignedCheckpoint, end: &End) {
        let checkpoint = &signed.checkpoint;
        if checkpoint.tenant != self.tenant {
            self.object("the closing checkpoint is of another tenant");
        } else if checkpoint.size != end.size {
            self.object(&format!("the closing checkpoint is of size {}", checkpoint.size));
        } else if checkpoint.root != end.root {
            self.object("the closing checkpoint has another root than the entries");
        } else if signed.signed_by(&self.signers_at(end.size)).is_none() {
            let offered = self.offered.iter().copied().filter(|key| !self.had_handed_on(*key, end.size));
            match signed.signed_by(&offered.collect::<Vec<_>>()) {
                Some(key) => {
                    let key = key.id();
                    let reason =
                        format!("the closing checkpoint is signed by key {key}, which you did not name");
                    self.doubt = Some((Verdict::UnnamedKey, reason));
                }
                None => self.object("the closing checkpoint is not signed by a key of this stream"),
            }
        }
    }

    /// Whether a pin that is true and rightly signed says that the stream had so many entries.
    fn is_closed_by_pin(&self, size: u64) -> bool {
        let signers = self.signers_at(size);
        let mut passed = self.pins.iter().zip(&self.passed);
        passed.any(|(pin, is_true)| {
            *is_true && pin.checkpoint.size == size && pin.signed_by(&signers).is_some()
        })
    }

    fn judge(&self, report: &mut Report, ending: &Ending) {
        let (verdict, reason) = match &self.finding {
            Some(Finding::NotSound { seq, reason }) => {
                report.first_bad_seq = Some(*seq);
                (report.head, report.root) = (None, None);
                (Verdict::NotSound, reason.clone())
            }
            Some(Finding::Conflict { reason, notes }) => {
                report.conflict.clone_from(notes);
                (Verdict::Equivocation, reason.clone())
            }
            None => self.judge_sound(report, ending),
        };
        report.verdict = verdict;
        report.reason = reason;
    }

    /// The verdict on entries with which nothing is wrong.
    fn judge_sound(&self, report: &Report, ending: &Ending) -> (Verdict, String) {
        let stream_size = match ending {
            Ending::Said(end) => end.stream_size.unwrap_or(end.size),
            Ending::BrokenOff(stream_size) => stream_size.unwrap_or(report.size).max(report.size),
            Ending::Unsaid => report.size,
        };
        // A range admits that the stream went on. What it admits is no truncation.
        let beyond = self.pins.get(self.passed.len()..).unwrap_or_default();
        if let Some(pin) = beyond.iter().find(|pin| pin.checkpoint.size > stream_size) {
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
        if let Some(doubt) = &self.doubt {
            return doubt.clone();
        }
        let incomplete = |reason: String| (Verdict::Incomplete, reason);
        if self.from > 0 {
            let (from, size) = (self.from, report.size);
            return incomplete(format!("it holds the entries from seq {from} to {size} only"));
        }
        match ending {
            Ending::BrokenOff(_) if !self.is_closed_by_pin(report.size) => {
                incomplete(format!("it breaks off after {} entries", report.size))
            }
            Ending::Unsaid if !self.is_closed_by_pin(report.size) => {
                incomplete(format!("nothing says that the stream ended after {} entries", report.size))
            }
            _ if stream_size > report.size => incomplete(format!(
                "it holds the first {} entries of a stream that had {stream_size}",
                report.size
            )),
            _ if report.decided.1 < report.size => {
                let from = report.decided.1;
                incomplete(format!(
                    "from seq {from} on, decisions follow rules that this program does not know"
                ))
            }
            _ => (Verdict::Sound, String::new()),
        }
    }
}

/// A place of which only the link is known. The tree is made up, and must not be looked at.
fn middle(size: u64, prev: EntryHash) -> Standpoint {
    let peaks = vec![TreeHash([0; 32]); size.count_ones() as usize];
    let tree = Tree::from_peaks(size, peaks).unwrap_or_default();
    Standpoint { size, head: prev, last_at: None, tree, state: None, due: Due::default(), signer: None }
}
