//! Follows the ledger on a thread of its own and remembers how far it came.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::watch;

use super::audit::{
    Filter, FoundAction, Spend, Totals, Update, damaged, find, seq_of, spend, tenant_key, totals,
};
use super::sparse::{self, Series};
use super::tree::{self, TreeNodes};
use super::walk::{self, Page};
use crate::domain::Recorded;
use crate::domain::id::{EntryId, SHORT_NAME_LEN_MAX, TenantId};
use crate::domain::time::Timestamp;
use crate::format::chain::{EntryHash, HASH_LEN};
use crate::format::entry;
use crate::format::merkle::leaf_hash;
use crate::ledger::feed::CommitFeed;
use crate::store::{Direction, EventStore, PageStore, StoreError};

/// Entries indexed in one write.
const PAGE_LEN: usize = 512;
/// How long a reader waits for the view before it is told that the view is behind.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the follower rests between writes while nobody waits for it. Under load commits come every fraction of a
/// millisecond; each write of the view costs the disk as much as a commit does, and covers as much as has come.
const REST: Duration = Duration::from_millis(10);
const POSITION: u8 = b'p';
const MARK: u8 = b'm';
/// The key of the row that holds [`LAYOUT`].
const LAYOUT_KEY: &[u8] = b"l";
/// The number of the rows' layout. Whatever changes keys or values, or adds some, changes it.
const LAYOUT: u8 = 4;

/// The views, and how far they came.
#[derive(Clone)]
pub struct Views {
    inner: Arc<Inner>,
}

struct Inner {
    pages: Arc<dyn PageStore>,
    store: Arc<dyn EventStore>,
    positions: RwLock<BTreeMap<TenantId, Position>>,
    /// Changes whenever a position does.
    advanced: watch::Sender<u64>,
    failure: RwLock<Option<String>>,
    /// Readers that wait for the view to come further.
    waiting: Mutex<usize>,
    /// Told when a reader begins to wait.
    called: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How far a view came in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// Entries seen.
    size: u64,
    /// Hash of the last of them.
    hash: EntryHash,
    /// Actions among them.
    actions: u64,
}

/// Why a view does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The view did not come far enough in time. Try again.
    #[error("the audit view is behind the ledger")]
    Behind,
    /// The view cannot be kept or read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Views {
    /// Opens the views and follows the ledger from where they stopped. Views of another ledger, and views whose rows are
    /// laid out in another way, are rebuilt.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when pages or ledger cannot be read.
    pub fn open(
        pages: Arc<dyn PageStore>,
        store: Arc<dyn EventStore>,
        feed: Arc<CommitFeed>,
    ) -> Result<Self, StoreError> {
        let positions = read_kept(&*pages, &*store)?;
        let inner = Arc::new(Inner {
            pages,
            store,
            positions: RwLock::new(positions),
            advanced: watch::Sender::new(0),
            failure: RwLock::new(None),
            waiting: Mutex::new(0),
            called: Condvar::new(),
            thread: Mutex::new(None),
        });
        let follower = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("audit-view".to_owned())
            .spawn(move || follower.follow(&feed))
            .map_err(|error| StoreError::Io(error.to_string()))?;
        *inner.thread.lock() = Some(thread);
        Ok(Self { inner })
    }

    /// Finds audited actions, newest first, once the view has seen `size` entries of the stream.
    ///
    /// Blocks the thread while it reads; `wait_for` first.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn find(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<FoundAction>, ViewError> {
        Ok(find(&*self.inner.pages, &*self.inner.store, tenant, filter, limit)?)
    }

    /// Sums up what audited actions cost.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn spend(
        &self,
        tenant: &TenantId,
        session_id: Option<&str>,
        agent_id: Option<&str>,
    ) -> Result<Spend, ViewError> {
        Ok(spend(&*self.inner.pages, &*self.inner.store, tenant, session_id, agent_id)?)
    }

    /// The nodes of a stream's tree of a size that the view has seen; `wait_for` it first.
    #[must_use]
    pub fn tree<'a>(&'a self, tenant: &'a TenantId, size: u64) -> TreeNodes<'a> {
        TreeNodes::new(&*self.inner.pages, tenant, size)
    }

    /// The ordinals of the actions that were audited from `since` on and before `until`, as far as the view has come. What
    /// is audited later does not belong to them.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn window(
        &self,
        tenant: &TenantId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Range<u64>, ViewError> {
        let actions = self.inner.position(tenant).actions;
        Ok(walk::window(&*self.inner.pages, &*self.inner.store, tenant, actions, since, until)?)
    }

    /// What the actions of a window come to. Reads two rows, however long the window is.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn totals(&self, tenant: &TenantId, window: &Range<u64>) -> Result<Totals, ViewError> {
        let before = totals(&*self.inner.pages, tenant, window.start)?;
        let with = totals(&*self.inner.pages, tenant, window.end)?;
        Ok(Totals {
            cost: with.cost.minus(before.cost),
            flagged: with.flagged.saturating_sub(before.flagged),
        })
    }

    /// Reads on through a window, oldest first, looking at no more than `count` rows.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn page(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        window: Range<u64>,
        count: usize,
    ) -> Result<Page, ViewError> {
        Ok(walk::page(&*self.inner.pages, &*self.inner.store, tenant, filter, window, count)?)
    }

    /// Goes through the events of a series, newest first: all of them, or those about one subject. Blocks the thread while it
    /// reads; `wait_for` first.
    pub fn newest_first<'a>(
        &'a self,
        tenant: &'a TenantId,
        series: Series,
        subject: Option<&str>,
    ) -> impl Iterator<Item = Result<Recorded, ViewError>> + use<'a> {
        let found = sparse::newest_first(&*self.inner.pages, &*self.inner.store, tenant, series, subject);
        found.map(|event| Ok(event?))
    }

    /// The place of the audited action with this entry id in the tenant's stream; `None` when there is no such action, or
    /// the view has not seen it yet.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn seq_of(&self, tenant: &TenantId, entry_id: &EntryId) -> Result<Option<u64>, ViewError> {
        Ok(seq_of(&*self.inner.pages, &*self.inner.store, tenant, entry_id)?)
    }

    /// Keeps a mark of somebody's about a stream. It goes when the views are rebuilt.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn keep_mark(&self, tenant: &TenantId, mark: Vec<u8>) -> Result<(), ViewError> {
        Ok(self.inner.pages.write(vec![(tenant_key(MARK, tenant), mark)])?)
    }

    /// The mark that was kept last.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn mark(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(self.inner.pages.get(&tenant_key(MARK, tenant))?)
    }

    /// Waits until the view has seen `size` entries of a stream.
    ///
    /// # Errors
    ///
    /// [`ViewError::Behind`] after ten seconds.
    pub async fn wait_for(&self, tenant: &TenantId, size: u64) -> Result<(), ViewError> {
        if self.inner.position(tenant).size >= size {
            return Ok(());
        }
        let _waiting = Waiting::on(&self.inner);
        let mut advanced = self.inner.advanced.subscribe();
        let reached = async {
            while self.inner.position(tenant).size < size {
                if let Some(why) = self.failure() {
                    return Err(ViewError::Store(StoreError::Damaged(why)));
                }
                if advanced.changed().await.is_err() {
                    return Err(ViewError::Behind);
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or(Err(ViewError::Behind))
    }

    /// Why the view stopped following; `None` while it follows.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.inner.failure.read().clone()
    }

    /// Waits until the follower has ended. The ledger must be closed first.
    pub fn close(&self) {
        if let Some(thread) = self.inner.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// A reader that waits, until it is dropped.
struct Waiting<'views>(&'views Inner);

impl<'views> Waiting<'views> {
    fn on(inner: &'views Inner) -> Self {
        *inner.waiting.lock() += 1;
        inner.called.notify_one();
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.waiting.lock() -= 1;
    }
}

impl Inner {
    fn position(&self, tenant: &TenantId) -> Position {
        let start = Position { size: 0, hash: EntryHash::GENESIS, actions: 0 };
        self.positions.read().get(tenant).copied().unwrap_or(start)
    }

    fn follow(&self, feed: &CommitFeed) {
        while let Some(sizes) = feed.next() {
            for (tenant, size) in sizes {
                if let Err(error) = self.catch_up(&tenant, size) {
                    tracing::error!(%tenant, %error, "the audit view stopped");
                    *self.failure.write() = Some(error.to_string());
                    self.advanced.send_modify(|count| *count += 1);
                    return;
                }
            }
            self.rest();
        }
    }

    fn rest(&self) {
        let mut waiting = self.waiting.lock();
        if *waiting == 0 {
            self.called.wait_for(&mut waiting, REST);
        }
    }

    fn catch_up(&self, tenant: &TenantId, size: u64) -> Result<(), StoreError> {
        let mut position = self.position(tenant);
        while position.size < size {
            let wanted = usize::try_from(size - position.size).unwrap_or(PAGE_LEN).min(PAGE_LEN);
            let page = self.store.read(tenant, position.size, wanted)?;
            if page.is_empty() {
                return Err(damaged("the ledger is shorter than it was said to be"));
            }
            let mut update = Update::new(&*self.pages, tenant, position.actions);
            let mut tree = tree::Update::new(&*self.pages, tenant, position.size);
            let mut sparse = Vec::new();
            for bytes in page {
                let entry = entry::open(&bytes).map_err(|error| damaged(&error.to_string()))?;
                update.add(&entry)?;
                sparse.extend(sparse::rows(tenant, &entry.recorded));
                tree.add(leaf_hash(&bytes))?;
                position.size += 1;
                position.hash = entry.hash;
            }
            let (mut rows, actions) = update.finish();
            position.actions = actions;
            rows.extend(tree.finish());
            rows.extend(sparse);
            // The position goes with the rows: a crash leaves both or neither.
            rows.push((tenant_key(POSITION, tenant), position.encode()));
            self.pages.write(rows)?;
            self.positions.write().insert(tenant.clone(), position);
            self.advanced.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}

impl Position {
    fn encode(&self) -> Vec<u8> {
        [&self.size.to_be_bytes()[..], &self.actions.to_be_bytes(), &self.hash.0].concat()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (size, rest) = value.split_first_chunk()?;
        let (actions, hash) = rest.split_first_chunk()?;
        let hash: [u8; HASH_LEN] = hash.try_into().ok()?;
        Some(Self {
            size: u64::from_be_bytes(*size),
            actions: u64::from_be_bytes(*actions),
            hash: EntryHash(hash),
        })
    }
}

/// How far the rows came, if they can be gone on with. Other rows are dropped.
fn read_kept(
    pages: &dyn PageStore,
    store: &dyn EventStore,
) -> Result<BTreeMap<TenantId, Position>, StoreError> {
    if pages.get(LAYOUT_KEY)?.as_deref() == Some(&[LAYOUT]) {
        let positions = read_positions(pages)?;
        if belong_to(&positions, store)? {
            return Ok(positions);
        }
        tracing::warn!("the audit view belongs to another history and is rebuilt");
    } else {
        tracing::info!("the audit view has no rows of this layout and is built");
    }
    pages.clear()?;
    pages.write(vec![(LAYOUT_KEY.to_vec(), vec![LAYOUT])])?;
    Ok(BTreeMap::new())
}

fn read_positions(pages: &dyn PageStore) -> Result<BTreeMap<TenantId, Position>, StoreError> {
    let mut positions = BTreeMap::new();
    for row in pages.scan(&[POSITION], Direction::Forward) {
        let (key, value) = row?;
        let name = key.get(1..=SHORT_NAME_LEN_MAX).unwrap_or_default();
        let name = name.split(|&byte| byte == 0).next().and_then(|name| str::from_utf8(name).ok());
        let tenant = name.and_then(TenantId::parse).ok_or_else(|| damaged("a position without a tenant"))?;
        positions.insert(tenant, Position::decode(&value).ok_or_else(|| damaged("a short position"))?);
    }
    Ok(positions)
}

/// Whether every position is a place in the ledger that there is.
fn belong_to(positions: &BTreeMap<TenantId, Position>, store: &dyn EventStore) -> Result<bool, StoreError> {
    for (tenant, position) in positions {
        let last = store.read(tenant, position.size.saturating_sub(1), 1)?;
        let is_there = last
            .first()
            .and_then(|bytes| entry::open(bytes).ok())
            .is_some_and(|entry| entry.hash == position.hash);
        if !is_there {
            return Ok(false);
        }
    }
    Ok(true)
}
