//! Durable bytes behind a few traits. Nothing here knows what the bytes mean.
//!
//! [`EventStore`] keeps the ledger's streams and, in the same atomic batch, what stands beside their entries.
//! [`PageStore`] keeps views and [`SnapshotStore`] folded states, which can be rebuilt. [`memory`] is the reference, with
//! planned faults; [`embedded`] keeps the first two on disk with sled, and [`snapshots`] the third in files. [`Cabinet`] keeps
//! sealed values, which can be destroyed one by one; [`cabinet`] does so in files.

use crate::domain::id::TenantId;
use crate::format::chain::EntryHash;

pub mod cabinet;
pub mod embedded;
pub mod memory;
pub mod snapshots;

/// Where a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Entries in the stream.
    pub size: u64,
    /// Hash of the last one.
    pub hash: EntryHash,
}

/// What stands beside an entry, bound to it by a digest, so that it can be destroyed without breaking the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SideKind {
    /// Salt and details of an audited action, by entry id.
    Details = b'd',
    /// An API key sealed for the retry of its minting, by idempotency digest.
    MintedKey = b'k',
    /// Salt and beginning of a receiver's answer, by webhook, source event (both `u64`) and attempt (`u32`), big-endian.
    Excerpt = b'x',
    /// A checkpoint that was signed, by its size (`u64`, big-endian).
    Checkpoint = b'c',
    /// An evidence pack that a schedule delivered, by its digest.
    EvidencePack = b'e',
    /// Salt and arguments of a request for an approval, by its id.
    ApprovalDetails = b'a',
    /// Salt and arguments of a call through the proxy, by its id.
    CallArguments = b'p',
    /// The definition of a tool of an upstream, by its digest.
    ToolDefinition = b't',
}

impl SideKind {
    /// Every kind there is.
    pub const ALL: [Self; 8] = [
        Self::Details,
        Self::MintedKey,
        Self::Excerpt,
        Self::Checkpoint,
        Self::EvidencePack,
        Self::ApprovalDetails,
        Self::CallArguments,
        Self::ToolDefinition,
    ];

    /// The kind's name in backups.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Details => "details",
            Self::MintedKey => "minted_key",
            Self::Excerpt => "excerpt",
            Self::Checkpoint => "checkpoint",
            Self::EvidencePack => "evidence_pack",
            Self::ApprovalDetails => "approval_details",
            Self::CallArguments => "call_arguments",
            Self::ToolDefinition => "tool_definition",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One value that stands beside an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideRow {
    /// What it is.
    pub kind: SideKind,
    /// Its name among those of its kind and tenant.
    pub id: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// New entries of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAppend {
    /// Whose stream.
    pub tenant: TenantId,
    /// Where the stream ends now; `None` for a stream that does not exist.
    pub expected: Option<Head>,
    /// The entries to add, in order.
    pub entries: Vec<Vec<u8>>,
    /// Where the stream ends with them.
    pub head: Head,
    /// What stands beside them.
    pub side: Vec<SideRow>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A stream does not end where the caller thought. Nothing was written.
    #[error("stream {0} has moved")]
    Conflict(TenantId),
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    InUse,
    /// The store holds what it cannot have written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// There is no room. Nothing was written.
    #[error("no room: {0}")]
    Full(String),
    /// The medium failed; what was being written may or may not be there.
    #[error("input/output: {0}")]
    Io(String),
}

/// Keeps the ledger's streams.
pub trait EventStore: Send + Sync {
    /// Appends to several streams, all or nothing. Not durable before [`EventStore::sync`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] when a stream moved and [`StoreError::Full`] when there is no room: nothing was written.
    /// After any other error only a restart can tell what was written.
    fn append(&self, batch: &[StreamAppend]) -> Result<(), StoreError>;

    /// Makes everything appended so far survive a power cut.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]: what was appended may or may not survive.
    fn sync(&self) -> Result<(), StoreError>;

    /// Entries that were made durable once and are not there any more, as far as the store can tell.
    fn missing(&self) -> u64;

    /// All streams and where they end, by tenant.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError>;

    /// At most `count` entries of a stream, from `from` on, in order. Stops at the first gap.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn read(&self, tenant: &TenantId, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Drops entries from `size` on. Only for entries beyond the head, which nobody was told of.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn cut(&self, tenant: &TenantId, size: u64) -> Result<u64, StoreError>;

    /// The value that stands beside an entry, if it was not destroyed.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn side(&self, tenant: &TenantId, kind: SideKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `count` of the values of a kind, in the order of their ids or in reverse, beginning after the id `after`, or
    /// with the first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn sides(
        &self,
        tenant: &TenantId,
        kind: SideKind,
        after: Option<&[u8]>,
        direction: Direction,
        count: usize,
    ) -> Result<Vec<Row>, StoreError>;
}

/// Keeps states that were folded from streams. They can be rebuilt; what is damaged is as good as missing.
pub trait SnapshotStore: Send + Sync {
    /// Sizes of a stream of which there is a snapshot, ascending.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn sizes(&self, tenant: &TenantId) -> Result<Vec<u64>, StoreError>;

    /// The snapshot of a stream at a size.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn load(&self, tenant: &TenantId, size: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a snapshot, durably and all at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn save(&self, tenant: &TenantId, size: u64, snapshot: &[u8]) -> Result<(), StoreError>;

    /// Drops a snapshot.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn remove(&self, tenant: &TenantId, size: u64) -> Result<(), StoreError>;
}

/// Names a sealed value in its tenant's cabinet.
pub type ValueId = [u8; 32];

/// Keeps sealed values. What it was told is durable when it returns; what it destroyed is overwritten, as far as the medium
/// lets it.
pub trait Cabinet: Send + Sync {
    /// Keeps a value; destroys the one with the same id, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. [`StoreError::Full`] when there is no room: nothing was written.
    fn put(&self, tenant: &TenantId, id: &ValueId, value: &[u8]) -> Result<(), StoreError>;

    /// A value. While it is replaced or destroyed a reader may see it torn.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn get(&self, tenant: &TenantId, id: &ValueId) -> Result<Option<Vec<u8>>, StoreError>;

    /// Destroys a value. Whether there was one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn destroy(&self, tenant: &TenantId, id: &ValueId) -> Result<bool, StoreError>;

    /// The ids of a tenant's values, ascending.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn ids(&self, tenant: &TenantId) -> Result<Vec<ValueId>, StoreError>;

    /// Tenants that have values, or had some.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn tenants(&self) -> Result<Vec<TenantId>, StoreError>;
}

/// A key and a value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Keeps rows that can be rebuilt, in the order of their keys.
pub trait PageStore: Send + Sync {
    /// Writes rows, all or nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn write(&self, rows: Vec<Row>) -> Result<(), StoreError>;

    /// One row's value.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Drops every row.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn clear(&self) -> Result<(), StoreError>;

    /// At most `count` rows whose key starts with `prefix`, in order, from the key `from` on.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn page(&self, prefix: &[u8], from: &[u8], count: usize) -> Result<Vec<Row>, StoreError>;

    /// Rows whose key starts with `prefix`, in order or in reverse.
    fn scan<'a>(
        &'a self,
        prefix: &[u8],
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>;
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key on.
    Forward,
    /// From the largest key on.
    Reverse,
}
