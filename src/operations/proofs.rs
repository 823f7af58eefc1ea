//! Tree heads, checkpoints and proofs. See contract section 9, and "Checkpoints" and "Proofs" in ledger-format.md.
//!
//! The contract's tree is the tree over all entries of the tenant's stream, so that `tree_size` counts events of every kind.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Caller, OperationError, blocking};
use crate::domain::id::{EntryId, TenantId};
use crate::format::merkle::{TreeHash, leaf_hash};
use crate::format::proof::{PathError, consistency_path, inclusion_path, root};
use crate::format::proof_file::ProofFile;
use crate::ledger::checkpoints::{self, KeptCheckpoint};
use crate::store::{Direction, StoreError};

/// The name of the signature of a tree head, as clients know it.
pub const TREE_HEAD_ALGORITHM: &str = "Ed25519-over-canonical-sth";
/// The name of the tree's hashing.
const TREE_ALGORITHM: &str = "RFC6962-SHA256";
/// Where the signing key comes from.
pub const KEY_SOURCE: &str = "signing.key";
/// Tree heads listed when nothing else was asked.
pub const LOG_LEN_DEFAULT: usize = 1000;
/// Tree heads listed at most.
pub const LOG_LEN_MAX: usize = 10_000;

/// A signed tree head.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TreeHead {
    /// Entries in the tenant's stream.
    pub tree_size: u64,
    /// Root of the tree over them.
    pub root_hash: String,
    /// When it was signed, in seconds since the epoch.
    pub signed_at: u64,
    /// Hex Ed25519 signature over `sth:<tree_size>:<root_hash>:<signed_at>`.
    pub signature: String,
    /// How it is signed.
    pub algorithm: &'static str,
    /// Where the signing key comes from.
    pub signing_key_source: &'static str,
    /// Whose stream.
    pub tenant_id: String,
    /// The public key, hex.
    pub public_key: String,
    /// The key's name: the first 16 hex digits of the SHA-256 of the public key.
    pub key_id: String,
}

/// A proof that an entry is in the tree.
#[derive(Debug, Serialize, ToSchema)]
pub struct InclusionProof {
    /// How the tree hashes.
    pub algorithm: &'static str,
    /// Which entry.
    pub entry_id: String,
    /// Its place in the tree: the entry's seq.
    pub leaf_index: u64,
    /// The hash of its leaf.
    pub leaf_hash: String,
    /// Leaves of the tree.
    pub tree_size: u64,
    /// Root of the tree.
    pub root_hash: String,
    /// Sibling hashes from the leaf to the root.
    pub audit_path: Vec<String>,
    /// The root, signed.
    pub sth: TreeHead,
}

/// A proof that a tree is the beginning of a later one.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConsistencyProof {
    /// How the trees hash.
    pub algorithm: &'static str,
    /// Leaves of the earlier tree.
    pub first_size: u64,
    /// Leaves of the later tree.
    pub second_size: u64,
    /// Root of the earlier tree.
    pub first_root: String,
    /// Root of the later tree.
    pub second_root: String,
    /// The hashes that lead from the one to the other.
    pub consistency_path: Vec<String>,
}

/// A tree head in the log of them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LoggedTreeHead {
    /// Whose stream.
    pub tenant_id: String,
    /// Entries in the stream.
    pub tree_size: u64,
    /// Root of the tree over them.
    pub root_hash: String,
    /// How it is signed.
    pub algorithm: &'static str,
    /// The signature, hex.
    pub signature: String,
    /// When it was signed, in seconds since the epoch.
    pub signed_at: u64,
    /// Who signed it.
    pub key_id: String,
    /// The public key, hex.
    pub public_key: String,
    /// When it was recorded.
    #[schema(value_type = f64)]
    pub recorded_at: super::wire::Epoch,
}

/// The log of tree heads.
#[derive(Debug, Serialize, ToSchema)]
pub struct TreeHeadLog {
    /// Whose stream.
    pub tenant_id: String,
    /// How many there are in all.
    pub count: usize,
    /// The smallest.
    pub earliest: Option<LoggedTreeHead>,
    /// The largest.
    pub latest: Option<LoggedTreeHead>,
    /// Those asked for, by ascending size.
    pub sths: Vec<LoggedTreeHead>,
}

/// Whether a tree head that somebody pinned is in the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct PinReport {
    /// Whether it is.
    pub verified: bool,
    /// `match`, `equivocation` or `not_in_log`.
    pub reason: &'static str,
    /// More for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The pinned size.
    pub pinned_tree_size: u64,
    /// The pinned root.
    pub pinned_root_hash: String,
    /// The root in the log, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_root_hash: Option<String>,
    /// The tree head in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<LoggedTreeHead>,
}

/// Which entry a proof is wanted of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryName {
    /// By its place in the stream.
    Seq(u64),
    /// By the id of the audited action in it.
    Id(String),
}

impl EntryName {
    /// Digits are a seq, anything else an id.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Id(text.to_owned()), Self::Seq)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => write!(f, "{seq}"),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// Signs the tenant's tree as it is now, or gives the tree head that was signed at this size before.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when it cannot be recorded.
pub async fn tree_head(app: &App, caller: &Caller) -> Result<TreeHead, OperationError> {
    let kept = app.ledger.checkpoint(&caller.tenant).await?;
    Ok(TreeHead::of(&caller.tenant, &kept))
}

/// The signed checkpoint of the tenant's stream as it is now, or at an earlier size.
///
/// # Errors
///
/// [`OperationError::Invalid`] for a size that the stream does not have yet.
pub async fn checkpoint(
    app: &Arc<App>,
    caller: &Caller,
    size: Option<u64>,
) -> Result<KeptCheckpoint, OperationError> {
    let Some(size) = size else {
        return Ok(app.ledger.checkpoint(&caller.tenant).await?);
    };
    let stream_size = app.with_stream(&caller.tenant, |stream| stream.head.size)?;
    if size > stream_size {
        return Err(OperationError::invalid("size", format!("the stream has {stream_size} entries")));
    }
    checkpoint_at(app, &caller.tenant, size).await
}

/// The signed checkpoint of a stream at a size that it has or had.
///
/// # Errors
///
/// [`OperationError::NotFound`] for a size that it does not have.
pub async fn checkpoint_at(
    app: &Arc<App>,
    tenant: &TenantId,
    size: u64,
) -> Result<KeptCheckpoint, OperationError> {
    let store = Arc::clone(app.ledger.store());
    let of = tenant.clone();
    let kept = blocking(move || Ok(checkpoints::at_size(&*store, &of, size)?)).await?;
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let now = app.ledger.checkpoint(tenant).await?;
    if now.size == size {
        return Ok(now);
    }
    tree_caught_up(app, tenant, now.size).await?;
    let (reader, of) = (Arc::clone(app), tenant.clone());
    let (root, path) = blocking(move || {
        let nodes = reader.views.tree(&of, now.size);
        let path = if size == 0 { Vec::new() } else { consistency_path(&nodes, size, now.size)? };
        Ok((root(&nodes, size)?, path))
    })
    .await?;
    Ok(app.ledger.checkpoint_at(tenant, size, root, now.size, path).await?)
}

/// Waits until the tree hashes of the first `size` entries can be read.
///
/// # Errors
///
/// [`OperationError::Busy`].
pub async fn tree_caught_up(app: &App, tenant: &TenantId, size: u64) -> Result<(), OperationError> {
    Ok(app.views.wait_for(tenant, size).await?)
}

/// Proves that an entry is in the tenant's tree.
///
/// # Errors
///
/// [`OperationError::NotFound`] for an entry that does not exist.
pub async fn inclusion(
    app: &Arc<App>,
    caller: &Caller,
    name: EntryName,
) -> Result<InclusionProof, OperationError> {
    let entry_id = name.to_string();
    let located = locate(app, caller, name).await?;
    let sth = TreeHead::of(&caller.tenant, &located.checkpoint);
    Ok(InclusionProof {
        algorithm: TREE_ALGORITHM,
        entry_id,
        leaf_index: located.seq,
        leaf_hash: leaf_hash(&located.bytes).to_string(),
        tree_size: located.checkpoint.size,
        root_hash: located.checkpoint.root.to_string(),
        audit_path: located.path.iter().map(ToString::to_string).collect(),
        sth,
    })
}

/// A self-contained proof that an entry is in the tenant's tree, as a C2SP `tlog-proof` file.
///
/// # Errors
///
/// [`OperationError::NotFound`] for an entry that does not exist.
pub async fn proof_file(app: &Arc<App>, caller: &Caller, name: EntryName) -> Result<String, OperationError> {
    let located = locate(app, caller, name).await?;
    let proof = ProofFile {
        entry: located.bytes,
        index: located.seq,
        path: located.path,
        checkpoint: located.checkpoint.note,
    };
    Ok(proof.render())
}

/// An entry and the way to the root.
struct Located {
    seq: u64,
    bytes: Vec<u8>,
    path: Vec<TreeHash>,
    checkpoint: KeptCheckpoint,
}

async fn locate(app: &Arc<App>, caller: &Caller, name: EntryName) -> Result<Located, OperationError> {
    let tenant = caller.tenant.clone();
    let size = app.with_stream(&tenant, |stream| stream.head.size)?;
    tree_caught_up(app, &tenant, size).await?;
    let seq = match &name {
        EntryName::Seq(seq) => Some(*seq).filter(|seq| *seq < size),
        EntryName::Id(id) => match EntryId::parse(id) {
            None => None,
            Some(id) => {
                let (reader, of) = (Arc::clone(app), tenant.clone());
                blocking(move || Ok(reader.views.seq_of(&of, &id)?)).await?
            }
        },
    };
    let unknown = || OperationError::EntryUnknown { entry_id: name.to_string() };
    let seq = seq.ok_or_else(unknown)?;
    let checkpoint = app.ledger.checkpoint(&tenant).await?;
    tree_caught_up(app, &tenant, checkpoint.size).await?;
    let app = Arc::clone(app);
    blocking(move || {
        let entries = app.ledger.store().read(&tenant, seq, 1)?;
        let damaged = || StoreError::Damaged(format!("entry {seq} is missing"));
        let bytes = entries.into_iter().next().ok_or_else(damaged)?;
        let path = inclusion_path(&app.views.tree(&tenant, checkpoint.size), seq, checkpoint.size)?;
        Ok(Located { seq, bytes, path, checkpoint })
    })
    .await
}

/// Proves that the tenant's tree of one size is the beginning of its tree of another.
///
/// # Errors
///
/// [`OperationError::RangeInvalid`] unless `1 ≤ first ≤ second ≤` the size of the stream.
pub async fn consistency(
    app: Arc<App>,
    caller: &Caller,
    first: u64,
    second: u64,
) -> Result<ConsistencyProof, OperationError> {
    let tenant = caller.tenant.clone();
    let size = app.with_stream(&tenant, |stream| stream.head.size)?;
    if first == 0 || first > second || second > size {
        return Err(OperationError::RangeInvalid { first, second, size });
    }
    tree_caught_up(&app, &tenant, second).await?;
    blocking(move || {
        let nodes = app.views.tree(&tenant, second);
        let path = consistency_path(&nodes, first, second)?;
        Ok(ConsistencyProof {
            algorithm: TREE_ALGORITHM,
            first_size: first,
            second_size: second,
            first_root: root(&nodes, first)?.to_string(),
            second_root: root(&nodes, second)?.to_string(),
            consistency_path: path.iter().map(ToString::to_string).collect(),
        })
    })
    .await
}

/// Lists tree heads that were signed, of sizes greater than `since`.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when they cannot be read.
pub async fn tree_head_log(
    app: &App,
    caller: &Caller,
    since: u64,
    limit: usize,
) -> Result<TreeHeadLog, OperationError> {
    let (store, tenant) = (Arc::clone(app.ledger.store()), caller.tenant.clone());
    blocking(move || {
        let list = |after, direction, count| checkpoints::list(&*store, &tenant, after, direction, count);
        let row = |kept: &KeptCheckpoint| LoggedTreeHead::of(&tenant, kept);
        Ok(TreeHeadLog {
            tenant_id: tenant.to_string(),
            count: checkpoints::count(&*store, &tenant)?,
            earliest: list(None, Direction::Forward, 1)?.first().map(row),
            latest: list(None, Direction::Reverse, 1)?.first().map(row),
            sths: list(Some(since), Direction::Forward, limit)?.iter().map(row).collect(),
        })
    })
    .await
}

/// Compares a tree head that somebody pinned with the one in the log.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the log cannot be read.
pub async fn check_pin(
    app: &App,
    caller: &Caller,
    size: u64,
    root: String,
) -> Result<PinReport, OperationError> {
    let stream_size = app.with_stream(&caller.tenant, |stream| stream.head.size)?;
    let (store, tenant) = (Arc::clone(app.ledger.store()), caller.tenant.clone());
    blocking(move || {
        let kept = checkpoints::at_size(&*store, &tenant, size)?;
        let earliest = checkpoints::list(&*store, &tenant, None, Direction::Forward, 1)?;
        let note = match (&kept, earliest.first()) {
            (Some(kept), _) if kept.root.to_string() == root => None,
            (Some(_), _) => Some("another root was signed for this size: keep both tree heads, they are proof".to_owned()),
            (None, _) if size > stream_size => Some(format!(
                "this size is ahead of the stream, which has {stream_size} entries: either a forgery, or the stream was cut"
            )),
            (None, None) => Some("the log of tree heads is empty".to_owned()),
            (None, Some(first)) if size < first.size => {
                Some("this size predates the first tree head that was signed".to_owned())
            }
            (None, Some(_)) => Some("no tree head of this size was ever asked for".to_owned()),
        };
        let recorded = kept.as_ref().map(|kept| LoggedTreeHead::of(&tenant, kept));
        let other = kept.filter(|kept| kept.root.to_string() != root);
        Ok(PinReport {
            verified: recorded.is_some() && other.is_none(),
            reason: match (&recorded, &other) {
                (None, _) => "not_in_log",
                (Some(_), None) => "match",
                (Some(_), Some(_)) => "equivocation",
            },
            note,
            pinned_tree_size: size,
            pinned_root_hash: root,
            recorded_root_hash: other.map(|kept| kept.root.to_string()),
            recorded,
        })
    })
    .await
}

impl TreeHead {
    /// A kept checkpoint in the contract's shape.
    #[must_use]
    pub fn of(tenant: &TenantId, kept: &KeptCheckpoint) -> Self {
        Self {
            tree_size: kept.size,
            root_hash: kept.root.to_string(),
            signed_at: kept.signed_at.seconds(),
            signature: HEXLOWER.encode(&kept.tree_head_signature),
            algorithm: TREE_HEAD_ALGORITHM,
            signing_key_source: KEY_SOURCE,
            tenant_id: tenant.to_string(),
            public_key: HEXLOWER.encode(&kept.key.to_bytes()),
            key_id: kept.key.id().to_string(),
        }
    }
}

impl LoggedTreeHead {
    fn of(tenant: &TenantId, kept: &KeptCheckpoint) -> Self {
        let head = TreeHead::of(tenant, kept);
        Self {
            tenant_id: head.tenant_id,
            tree_size: head.tree_size,
            root_hash: head.root_hash,
            algorithm: head.algorithm,
            signature: head.signature,
            signed_at: head.signed_at,
            key_id: head.key_id,
            public_key: head.public_key,
            recorded_at: super::wire::Epoch(kept.signed_at),
        }
    }
}

impl From<PathError<StoreError>> for OperationError {
    fn from(error: PathError<StoreError>) -> Self {
        Self::Unavailable(error.to_string())
    }
}
