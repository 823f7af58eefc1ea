//! Verifies what is short: a proof file, a checkpoint, and the contract's tree heads, inclusion and consistency proofs.
//!
//! A proof file and a checkpoint bring no keys; without a named one nothing can be said of them. The contract's documents
//! name theirs, so that their signature can be checked, for what it is worth, with no key named.

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::Value;

use super::claim::{Claim, keys_must_be_named};
use super::{CouldNotCheck, Expected, PINS_CONFLICT, Report, Verdict};
use crate::domain::id::TenantId;
use crate::format::chain::{PublicKey, SIGNATURE_LEN};
use crate::format::checkpoint::SignedCheckpoint;
use crate::format::entry;
use crate::format::merkle::TreeHash;
use crate::format::proof::{check_consistency, check_inclusion};
use crate::format::proof_file::ProofFile;
use crate::format::verify::Flaw;
use crate::operations::proofs::TREE_HEAD_ALGORITHM;

/// Whose stream a document is about that does not say so.
const UNKNOWN: &str = "(unknown)";

/// What is read of a signed tree head.
#[derive(Deserialize)]
struct TreeHead {
    tree_size: u64,
    root_hash: String,
    signed_at: u64,
    signature: String,
    algorithm: String,
    tenant_id: String,
    public_key: String,
    key_id: String,
}

/// What is read of an inclusion proof.
#[derive(Deserialize)]
struct Inclusion {
    leaf_index: u64,
    leaf_hash: String,
    tree_size: u64,
    root_hash: String,
    audit_path: Vec<String>,
    sth: TreeHead,
}

/// What is read of a consistency proof.
#[derive(Deserialize)]
struct Consistency {
    first_size: u64,
    second_size: u64,
    first_root: String,
    second_root: String,
    #[serde(rename = "consistency_path")]
    path: Vec<String>,
}

/// Verifies a C2SP `tlog-proof` file.
///
/// # Errors
///
/// [`CouldNotCheck`] when no key was named.
pub fn proof_file(text: &str, expected: &Expected) -> Result<Report, CouldNotCheck> {
    keys_must_be_named(expected)?;
    let bad = |seq, reason: String| Ok(not_sound(expected, seq, reason));
    let file = match ProofFile::parse(text) {
        Ok(file) => file,
        Err(error) => return bad(0, format!("malformed: {error}")),
    };
    let signed = match file.check() {
        Ok(signed) => signed,
        Err(error) => return bad(file.index, error.to_string()),
    };
    let claim = match Claim::of(&signed, &expected.keys) {
        Ok(claim) => claim,
        Err(reason) => return bad(file.index, reason),
    };
    let mut limits = vec![
        "it shows one entry and its place; links, decisions and the entries around it were not looked at"
            .to_owned(),
    ];
    // That the checkpoint includes the entry vouches for it; who wrote it is one more question.
    if let Ok(entry) = entry::open(&file.entry) {
        match expected.keys.iter().find(|key| key.id() == entry.key_id) {
            Some(key) if !key.has_signed(&entry.hash, &entry.signature) => {
                return bad(file.index, Flaw::Signature.to_string());
            }
            Some(_) => {}
            None => limits.push(format!(
                "the entry names key {}, which you did not name: the checkpoint alone vouches for it",
                entry.key_id
            )),
        }
    }
    Ok(claim.judge(expected, file.index, limits))
}

/// Verifies a checkpoint.
///
/// # Errors
///
/// [`CouldNotCheck`] when no key was named.
pub fn checkpoint(note: &str, expected: &Expected) -> Result<Report, CouldNotCheck> {
    keys_must_be_named(expected)?;
    let signed = match SignedCheckpoint::parse(note) {
        Ok(signed) => signed,
        Err(error) => return Ok(not_sound(expected, 0, format!("malformed: the checkpoint {error}"))),
    };
    let limits = vec!["a checkpoint says what its signer claims; no entry is here".to_owned()];
    Ok(match Claim::of(&signed, &expected.keys) {
        Ok(claim) => claim.judge(expected, signed.checkpoint.size, limits),
        Err(reason) => not_sound(expected, signed.checkpoint.size, reason),
    })
}

/// Verifies a signed tree head.
///
/// # Errors
///
/// [`CouldNotCheck`] for one that is signed in another way than this program knows.
pub fn tree_head(document: Value, expected: &Expected) -> Result<Report, CouldNotCheck> {
    let head: TreeHead = match serde_json::from_value(document) {
        Ok(head) => head,
        Err(error) => return Ok(not_sound(expected, 0, format!("malformed: {error}"))),
    };
    Ok(match head.claim()? {
        Ok(claim) => claim.judge(expected, head.tree_size, vec![of_tenant()]),
        Err(reason) => not_sound(expected, head.tree_size, reason),
    })
}

/// Verifies an inclusion proof with the tree head in it.
///
/// # Errors
///
/// [`CouldNotCheck`] for a tree head that is signed in another way than this program knows.
pub fn inclusion(document: Value, expected: &Expected) -> Result<Report, CouldNotCheck> {
    let proof: Inclusion = match serde_json::from_value(document) {
        Ok(proof) => proof,
        Err(error) => return Ok(not_sound(expected, 0, format!("malformed: {error}"))),
    };
    let bad = |reason: String| Ok(not_sound(expected, proof.leaf_index, reason));
    let claim = match proof.sth.claim()? {
        Ok(claim) => claim,
        Err(reason) => return bad(reason),
    };
    let (Some(leaf), Some(root), Some(path)) =
        (hash(&proof.leaf_hash), hash(&proof.root_hash), hashes(&proof.audit_path))
    else {
        return bad("malformed: a hash is none".to_owned());
    };
    if proof.tree_size != claim.size || root != claim.root {
        return bad("the proof is for another tree than its tree head".to_owned());
    }
    if let Err(error) = check_inclusion(&leaf, proof.leaf_index, claim.size, &path, &claim.root) {
        return bad(format!("not included: {error}"));
    }
    let of_what = "it shows which hash stands at the place, not the entry that has it: a proof file does";
    Ok(claim.judge(expected, proof.leaf_index, vec![of_what.to_owned(), of_tenant()]))
}

/// Verifies a consistency proof. It is not signed: what it is worth depends on checkpoints of its two sizes.
///
/// # Errors
///
/// [`CouldNotCheck`], never so far.
pub fn consistency(document: Value, expected: &Expected) -> Result<Report, CouldNotCheck> {
    let proof: Consistency = match serde_json::from_value(document) {
        Ok(proof) => proof,
        Err(error) => return Ok(not_sound(expected, 0, format!("malformed: {error}"))),
    };
    let (first, second) = (proof.first_size, proof.second_size);
    let bad = |reason: String| Ok(not_sound(expected, first, reason));
    let (Some(first_root), Some(second_root), Some(path)) =
        (hash(&proof.first_root), hash(&proof.second_root), hashes(&proof.path))
    else {
        return bad("malformed: a hash is none".to_owned());
    };
    if let Err(error) = check_consistency(first, second, &first_root, &second_root, &path) {
        return bad(format!("not consistent: {error}"));
    }

    let tenant = expected.tenant.as_ref().or_else(|| expected.pins.first().map(|pin| &pin.checkpoint.tenant));
    let mut report =
        Report::not_sound(tenant.map_or(UNKNOWN.to_owned(), ToString::to_string), first, String::new());
    (report.first_bad_seq, report.from, report.size) = (None, first, second);
    report.root = Some(second_root.to_string());
    report.verdict = Verdict::Incomplete;
    let pins = match tenant.map(|tenant| expected.pins_of(tenant)).transpose() {
        Ok(pins) => pins.unwrap_or_default(),
        Err(notes) => {
            report.verdict = Verdict::Equivocation;
            report.reason = PINS_CONFLICT.into();
            report.conflict = notes.to_vec();
            return Ok(report);
        }
    };
    let (mut vouched, mut denied) = (Vec::new(), Vec::new());
    for pin in &pins {
        let size = pin.checkpoint.size;
        let root = if size == first { first_root } else { second_root };
        if size != first && size != second {
            report.limits.push(format!("the pinned checkpoint of size {size} is of another size"));
        } else if pin.signed_by(&expected.keys).is_none() {
            let why = "is not signed by a key that you named and was not compared";
            report.limits.push(format!("the pinned checkpoint of size {size} {why}"));
        } else if pin.checkpoint.root == root {
            vouched.push(size);
        } else {
            denied.push(size);
        }
    }
    report
        .limits
        .push("a consistency proof is not signed: its roots are worth what checkpoints say".to_owned());
    if let Some(size) = denied.first() {
        report.verdict = Verdict::Equivocation;
        report.root = None;
        report.reason = format!("it leads to another root than the pinned checkpoint of size {size} has");
        report.conflict = pins.iter().map(|pin| pin.note().to_owned()).collect();
        report.limits.push(
            "anybody can write such a proof: ask again for one between your checkpoints, of which there is none if \
             they are of two histories"
                .to_owned(),
        );
    } else if vouched.contains(&first) && vouched.contains(&second) {
        report.verdict = Verdict::Sound;
    } else {
        report.reason =
            "no signed checkpoints of both sizes were compared: pin them with --checkpoint".into();
    }
    Ok(report)
}

impl TreeHead {
    /// What it claims; the inner error says why it counts for nothing.
    fn claim(&self) -> Result<Result<Claim, String>, CouldNotCheck> {
        if self.algorithm != TREE_HEAD_ALGORITHM {
            return Err(CouldNotCheck(format!("its tree head is signed as {:?}", self.algorithm)));
        }
        Ok(self.read().ok_or_else(|| "malformed: the tree head".to_owned()).and_then(|(claim, signature)| {
            let key = claim.signer;
            if key.id().to_string() != self.key_id {
                Err(format!("the tree head names key {}, but brings key {}", self.key_id, key.id()))
            } else if key.has_signed_tree_head(claim.size, &claim.root, self.signed_at, &signature) {
                Ok(claim)
            } else {
                Err("the signature of the tree head is wrong".to_owned())
            }
        }))
    }

    fn read(&self) -> Option<(Claim, [u8; SIGNATURE_LEN])> {
        let bytes = |text: &str| HEXLOWER.decode(text.as_bytes()).ok();
        let claim = Claim {
            tenant: TenantId::parse(&self.tenant_id)?,
            size: self.tree_size,
            root: hash(&self.root_hash)?,
            text: format!(
                "sth:{}:{}:{}\n{} {}\n",
                self.tree_size, self.root_hash, self.signed_at, self.key_id, self.signature
            ),
            signer: PublicKey::from_bytes(&bytes(&self.public_key)?.try_into().ok()?)?,
        };
        Some((claim, bytes(&self.signature)?.try_into().ok()?))
    }
}

fn not_sound(expected: &Expected, seq: u64, reason: String) -> Report {
    let tenant = expected.tenant.as_ref().map_or(UNKNOWN.to_owned(), ToString::to_string);
    Report::not_sound(tenant, seq, reason)
}

fn of_tenant() -> String {
    "a tree head's signature does not cover whose stream it is of; a checkpoint's does".to_owned()
}

fn hash(text: &str) -> Option<TreeHash> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(TreeHash)
}

fn hashes(texts: &[String]) -> Option<Vec<TreeHash>> {
    texts.iter().map(|text| hash(text)).collect()
}
