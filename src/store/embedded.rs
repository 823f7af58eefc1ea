//! The embedded store: sled, and the sync that sled leaves out.
//!
//! sled's writes end in `sync_file_range`, after which it relies on them, although they do not survive a power cut. The
//! program puts `fdatasync` in its place (`sync_file_range.c`), so that what sled calls stable is stable. Besides, this store
//! calls `fdatasync` on sled's log file itself after every flush, and synchronises the directories when files are created.
//!
//! One tree holds everything of the ledger, so that one sled batch is one atomic commit:
//!
//! | Key | Value |
//! |---|---|
//! | `h` tenant | head: size (`u64`, big-endian), hash |
//! | `e` tenant seq part | bytes of an entry |
//! | `s` tenant kind id part | bytes of what stands beside an entry |
//!
//! Beside sled's files stands `acknowledged`: how many entries were made durable in all. It is written after every sync and
//! never synchronised itself, so it can lag behind the ledger after a power cut but never run ahead of it. When sled finds a
//! damaged log it may drop its tail without a word; this file then tells that something is missing.
//!
//! `tenant` has 24 bytes, filled with zeros; `seq` is a big-endian `u64`, so that order of keys is order of time. Values
//! longer than 4 KiB are split into parts (big-endian `u16`), and the first says how many there are: sled writes tree nodes
//! that grow past 128 KiB into files of their own, which nobody would synchronise.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Direction, EventStore, Head, PageStore, Row, SideKind, StoreError, StreamAppend};
use crate::domain::id::{SHORT_NAME_LEN_MAX, TenantId};
use crate::format::chain::{EntryHash, HASH_LEN};

/// Bytes of one stored value. A leaf of sled's tree holds up to 17 of them, which stays below 128 KiB.
const PART_LEN_MAX: usize = 4096;
/// Bytes of sled's page cache for the ledger. Reads of the past are rare and sequential.
const LEDGER_CACHE_LEN: u64 = 16 << 20;
/// Bytes of sled's page cache for views, whose indexes are looked up at random.
const VIEWS_CACHE_LEN: u64 = 16 << 20;

/// Bytes that are left on the disk unless something else is said.
pub const RESERVE_LEN_DEFAULT: u64 = 64 << 20;

const HEAD: u8 = b'h';
const ENTRY: u8 = b'e';
const SIDE: u8 = b's';

/// The ledger on disk.
pub struct EmbeddedStore {
    db: sled::Db,
    /// sled's own log file, opened a second time for `fdatasync`.
    log: File,
    /// How many entries are durable, for the next start.
    acknowledged: File,
    dir: PathBuf,
    /// Bytes on the disk that are left to others.
    reserve_len: u64,
    /// Entries in all streams.
    total: AtomicU64,
    missing: u64,
}

impl EmbeddedStore {
    /// Opens the ledger in `dir`, or creates it.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`], [`StoreError::Damaged`] or [`StoreError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(dir)?;
        // sled is about to summarise its log in a snapshot, and to synchronise that. What the log holds since a process was
        // killed may still be in memory alone, and a snapshot must not outlive what it summarises.
        if dir.join("db").exists() {
            sync_path(&dir.join("db"))?;
        }
        let db = open_sled(dir, LEDGER_CACHE_LEN)?;
        db.flush().map_err(from_sled)?;
        let log = File::open(dir.join("db")).map_err(|error| from_io(&error))?;

        // A file that was just created is only there after a power cut if its directory was synchronised too.
        for file in ["conf", "db"] {
            sync_path(&dir.join(file))?;
        }
        sync_path(dir)?;
        if let Some(parent) = dir.parent() {
            sync_path(parent)?;
        }
        let mut options = OpenOptions::new();
        let acknowledged = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let acknowledged = acknowledged.open(dir.join("acknowledged")).map_err(|error| from_io(&error))?;
        let (dir, total) = (dir.to_path_buf(), AtomicU64::new(0));
        let reserve_len = RESERVE_LEN_DEFAULT;
        let mut store = Self { db, log, acknowledged, dir, reserve_len, total, missing: 0 };
        let total: u64 = store.heads()?.iter().map(|(_, head)| head.size).sum();
        store.missing = read_acknowledged(&store.acknowledged).saturating_sub(total);
        store.total = AtomicU64::new(total);
        Ok(store)
    }

    /// Refuses appends while fewer than this many bytes would be left on the disk: sled cannot go on after a write that failed
    /// for want of room.
    #[must_use]
    pub fn leaving_free(mut self, reserve_len: u64) -> Self {
        self.reserve_len = reserve_len;
        self
    }

    /// Refuses a batch that does not fit on the disk.
    fn check_room(&self, batch: &[StreamAppend]) -> Result<(), StoreError> {
        let disk = rustix::fs::statvfs(self.dir.as_os_str().as_bytes())
            .map_err(|error| StoreError::Io(error.to_string()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let lens = batch.iter().flat_map(|append| {
            let side = append.side.iter().map(|row| row.value.len());
            append.entries.iter().map(Vec::len).chain(side)
        });
        // sled writes whole nodes now and then, beside what is new.
        let needed = lens.sum::<usize>() as u64 * 4;
        if free < self.reserve_len.saturating_add(needed) {
            return Err(StoreError::Full(format!("{free} bytes are left on the disk")));
        }
        Ok(())
    }

    fn head(&self, tenant: &TenantId) -> Result<Option<Head>, StoreError> {
        let row = self.db.get(key(HEAD, tenant)).map_err(from_sled)?;
        row.map(|value| decode_head(&value)).transpose()
    }

    fn find_heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError> {
        let mut heads = BTreeMap::new();
        for row in self.db.scan_prefix([HEAD]) {
            let (key, value) = row.map_err(from_sled)?;
            heads.insert(tenant_in(&key)?, decode_head(&value)?);
        }
        // Entries without a head were never acknowledged, but they are there. One look for each stream, not for each entry.
        let mut next = self.db.range(vec![ENTRY]..vec![ENTRY + 1]).next();
        while let Some(row) = next {
            let tenant = tenant_in(&row.map_err(from_sled)?.0)?;
            next = self.db.range(part_key(entry_key(&tenant, u64::MAX), u16::MAX)..vec![ENTRY + 1]).next();
            heads.entry(tenant).or_insert(Head { size: 0, hash: EntryHash::GENESIS });
        }
        Ok(heads.into_iter().collect())
    }

    fn read_entries(&self, tenant: &TenantId, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let end = from.saturating_add(count as u64);
        let mut entries: Vec<Vec<u8>> = Vec::new();
        let mut parts_left = 0;
        for row in self.db.range(entry_key(tenant, from)..entry_key(tenant, end)) {
            let (key, value) = row.map_err(from_sled)?;
            let (seq, part) = split_entry_key(&key).ok_or_else(|| damaged("an entry's key is malformed"))?;
            if part == 0 {
                // A gap, or an entry that lacks a part: what comes after it is not the stream.
                if parts_left > 0 || seq != from + entries.len() as u64 {
                    break;
                }
                let (part_count, bytes) = split_first_part(&value)?;
                parts_left = part_count - 1;
                entries.push(bytes.to_vec());
            } else if parts_left > 0
                && let Some(entry) = entries.last_mut()
            {
                entry.extend_from_slice(&value);
                parts_left -= 1;
            }
        }
        if parts_left > 0 {
            entries.pop();
        }
        Ok(entries)
    }

    fn read_side(&self, tenant: &TenantId, kind: SideKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let base = side_key(tenant, kind, id);
        let part = |part| self.db.get(part_key(base.clone(), part)).map_err(from_sled);
        let Some(first) = part(0)? else {
            return Ok(None);
        };
        let (part_count, bytes) = split_first_part(&first)?;
        let mut value = bytes.to_vec();
        for number in 1..part_count {
            value.extend_from_slice(&part(number)?.ok_or_else(|| damaged("a part of a value is missing"))?);
        }
        Ok(Some(value))
    }

    fn read_sides(
        &self,
        tenant: &TenantId,
        kind: SideKind,
        after: Option<&[u8]>,
        direction: Direction,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let prefix = side_key(tenant, kind, &[]);
        let after = after.map(|after| side_key(tenant, kind, after));
        let rows: Box<dyn Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>> = match (direction, after)
        {
            (Direction::Forward, None) => Box::new(self.db.scan_prefix(&prefix)),
            (Direction::Forward, Some(after)) => Box::new(self.db.range(part_key(after, u16::MAX)..)),
            (Direction::Reverse, None) => Box::new(self.db.scan_prefix(&prefix).rev()),
            (Direction::Reverse, Some(after)) => Box::new(self.db.range(prefix.clone()..after).rev()),
        };
        let mut found = Vec::new();
        for row in rows {
            let (key, _) = row.map_err(from_sled)?;
            if found.len() == count || !key.starts_with(&prefix) {
                break;
            }
            let (id, part) = key[prefix.len()..].split_last_chunk().ok_or_else(|| damaged("a short key"))?;
            if u16::from_be_bytes(*part) == 0 {
                let value = self.side(tenant, kind, id)?.ok_or_else(|| damaged("a value is missing"))?;
                found.push((id.to_vec(), value));
            }
        }
        Ok(found)
    }
}

impl EventStore for EmbeddedStore {
    fn append(&self, batch: &[StreamAppend]) -> Result<(), StoreError> {
        self.check_room(batch)?;
        let mut rows = sled::Batch::default();
        for append in batch {
            if self.head(&append.tenant)? != append.expected {
                return Err(StoreError::Conflict(append.tenant.clone()));
            }
            let first_seq = append.expected.map_or(0, |head| head.size);
            for (seq, entry) in (first_seq..).zip(&append.entries) {
                put(&mut rows, &entry_key(&append.tenant, seq), entry)?;
            }
            for row in &append.side {
                put(&mut rows, &side_key(&append.tenant, row.kind, &row.id), &row.value)?;
            }
            rows.insert(key(HEAD, &append.tenant), encode_head(&append.head));
        }
        self.db.apply_batch(rows).map_err(from_sled)?;
        let added: usize = batch.iter().map(|append| append.entries.len()).sum();
        self.total.fetch_add(added as u64, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        // Taken before the sync: what is appended meanwhile may not be covered by it.
        let total = self.total.load(Ordering::SeqCst);
        self.db.flush().map_err(from_sled)?;
        self.log.sync_data().map_err(|error| from_io(&error))?;
        write_acknowledged(&self.acknowledged, total).map_err(|error| from_io(&error))
    }

    fn missing(&self) -> u64 {
        self.missing
    }

    fn heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError> {
        guarded(|| self.find_heads())
    }

    fn read(&self, tenant: &TenantId, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        guarded(|| self.read_entries(tenant, from, count))
    }

    fn cut(&self, tenant: &TenantId, size: u64) -> Result<u64, StoreError> {
        let mut rows = sled::Batch::default();
        let (mut dropped, mut is_empty) = (0, true);
        for row in self.db.range(entry_key(tenant, size)..=part_key(entry_key(tenant, u64::MAX), u16::MAX)) {
            let (key, _) = row.map_err(from_sled)?;
            dropped += u64::from(matches!(split_entry_key(&key), Some((_, 0))));
            rows.remove(key);
            is_empty = false;
        }
        if !is_empty {
            self.db.apply_batch(rows).map_err(from_sled)?;
            self.sync()?;
        }
        Ok(dropped)
    }

    fn side(&self, tenant: &TenantId, kind: SideKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| self.read_side(tenant, kind, id))
    }

    fn sides(
        &self,
        tenant: &TenantId,
        kind: SideKind,
        after: Option<&[u8]>,
        direction: Direction,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        guarded(|| self.read_sides(tenant, kind, after, direction, count))
    }
}

/// Views on disk. Never synchronised: whatever a power cut takes is rebuilt from the ledger.
pub struct EmbeddedPages {
    db: sled::Db,
}

impl EmbeddedPages {
    /// Opens the views in `dir`. Views that cannot be read are thrown away, to be rebuilt.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] or [`StoreError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let db = match open_sled(dir, VIEWS_CACHE_LEN) {
            Err(StoreError::Damaged(why)) => {
                tracing::warn!(why, "views are damaged and will be rebuilt");
                fs::remove_dir_all(dir).map_err(|error| from_io(&error))?;
                open_sled(dir, VIEWS_CACHE_LEN)?
            }
            opened => opened?,
        };
        Ok(Self { db })
    }
}

impl PageStore for EmbeddedPages {
    fn write(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            batch.insert(key, value);
        }
        self.db.apply_batch(batch).map_err(from_sled)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(from_sled)?.map(|value| value.to_vec()))
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.db.clear().map_err(from_sled)
    }

    fn page(&self, prefix: &[u8], from: &[u8], count: usize) -> Result<Vec<Row>, StoreError> {
        let is_within =
            |row: &Result<Row, StoreError>| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix));
        self.db.range(from.max(prefix)..).map(to_row).take_while(is_within).take(count).collect()
    }

    fn scan<'a>(
        &'a self,
        prefix: &[u8],
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let rows = self.db.scan_prefix(prefix);
        match direction {
            Direction::Forward => Box::new(rows.map(to_row)),
            Direction::Reverse => Box::new(rows.rev().map(to_row)),
        }
    }
}

fn to_row(row: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Row, StoreError> {
    row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(from_sled)
}

/// Reads, and takes for damage what sled panics at: it trusts that its pages point at each other.
fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged("sled cannot make sense of its files")))
}

fn open_sled(dir: &Path, cache_len: u64) -> Result<sled::Db, StoreError> {
    // `flush_every_ms(None)`: we decide when. sled panics on some damaged files instead of reporting them.
    let config = sled::Config::new().path(dir).cache_capacity(cache_len).flush_every_ms(None);
    guarded(|| config.open().map_err(from_sled))
}

/// Removes what a start that was cut short has left of a snapshot. sled writes a snapshot as `snap.NUMBER.generating`, gives
/// it its name when it is complete, and only then removes the one before. But when it looks for the newest snapshot it does
/// not tell the two names apart, and refuses a log whose newest snapshot is empty or torn. Without it, sled goes by the
/// snapshot before, or by the whole log.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), StoreError> {
    let Ok(items) = fs::read_dir(dir) else {
        return Ok(());
    };
    for item in items {
        let item = item.map_err(|error| from_io(&error))?;
        let name = item.file_name();
        if name.to_string_lossy().starts_with("snap.") && name.to_string_lossy().ends_with(".generating") {
            tracing::info!(?name, "removed a snapshot that a start left unfinished");
            fs::remove_file(item.path()).map_err(|error| from_io(&error))?;
        }
    }
    Ok(())
}

/// The count that was written last; 0 when there is none, or when it was being written as the machine stopped.
fn read_acknowledged(file: &File) -> u64 {
    let mut bytes = [0; 16];
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return 0;
    }
    let count = u64::from_be_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]));
    if bytes == acknowledged_bytes(count) { count } else { 0 }
}

fn write_acknowledged(file: &File, count: u64) -> std::io::Result<()> {
    file.write_all_at(&acknowledged_bytes(count), 0)
}

/// The count and a checksum of it.
fn acknowledged_bytes(count: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&count.to_be_bytes());
    second.copy_from_slice(&blake3::hash(&count.to_be_bytes()).as_bytes()[..8]);
    bytes
}

fn sync_path(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| from_io(&error))
}

fn damaged(why: &str) -> StoreError {
    StoreError::Damaged(why.to_owned())
}

fn from_io(error: &std::io::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

fn from_sled(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => StoreError::InUse,
        sled::Error::Io(error) => from_io(&error),
        sled::Error::Corruption { .. } | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => {
            StoreError::Damaged(error.to_string())
        }
        sled::Error::CollectionNotFound(_) => damaged("a tree is missing"),
    }
}

fn key(kind: u8, tenant: &TenantId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + SHORT_NAME_LEN_MAX + 10);
    key.push(kind);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.resize(1 + SHORT_NAME_LEN_MAX, 0);
    key
}

fn entry_key(tenant: &TenantId, seq: u64) -> Vec<u8> {
    let mut key = key(ENTRY, tenant);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

fn side_key(tenant: &TenantId, kind: SideKind, id: &[u8]) -> Vec<u8> {
    let mut key = key(SIDE, tenant);
    key.push(kind as u8);
    key.extend_from_slice(id);
    key
}

fn part_key(mut base: Vec<u8>, part: u16) -> Vec<u8> {
    base.extend_from_slice(&part.to_be_bytes());
    base
}

/// The seq and part at the end of an entry's key.
fn split_entry_key(key: &[u8]) -> Option<(u64, u16)> {
    let (seq, part) = key.get(1 + SHORT_NAME_LEN_MAX..)?.split_at_checked(size_of::<u64>())?;
    Some((u64::from_be_bytes(seq.try_into().ok()?), u16::from_be_bytes(part.try_into().ok()?)))
}

/// Adds a value to a batch, in parts if it is long. Parts of an older, longer value stay behind and are not read.
fn put(rows: &mut sled::Batch, base: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let (first, rest) = value.split_at(value.len().min(PART_LEN_MAX));
    let part_count =
        u16::try_from(1 + rest.len().div_ceil(PART_LEN_MAX)).map_err(|_| damaged("a value is too long"))?;
    rows.insert(part_key(base.to_vec(), 0), [&part_count.to_be_bytes()[..], first].concat());
    for (part, bytes) in (1_u16..).zip(rest.chunks(PART_LEN_MAX)) {
        rows.insert(part_key(base.to_vec(), part), bytes);
    }
    Ok(())
}

/// How many parts a value has, at least one, and the bytes of the first.
fn split_first_part(value: &[u8]) -> Result<(u16, &[u8]), StoreError> {
    let parts = value.split_first_chunk().map(|(count, bytes)| (u16::from_be_bytes(*count), bytes));
    parts.filter(|(count, _)| *count > 0).ok_or_else(|| damaged("a value's first part is malformed"))
}

/// The tenant at the start of a key.
fn tenant_in(key: &[u8]) -> Result<TenantId, StoreError> {
    let name = key.get(1..=SHORT_NAME_LEN_MAX).and_then(|name| name.split(|&byte| byte == 0).next());
    let name = name.and_then(|name| str::from_utf8(name).ok());
    name.and_then(TenantId::parse).ok_or_else(|| damaged("a key without a tenant"))
}

fn encode_head(head: &Head) -> Vec<u8> {
    [&head.size.to_be_bytes()[..], &head.hash.0].concat()
}

fn decode_head(value: &[u8]) -> Result<Head, StoreError> {
    let (size, hash) = value.split_at_checked(size_of::<u64>()).ok_or_else(|| damaged("a short head"))?;
    let hash: [u8; HASH_LEN] = hash.try_into().map_err(|_| damaged("a short head"))?;
    let size = size.try_into().map_err(|_| damaged("a short head"))?;
    Ok(Head { size: u64::from_be_bytes(size), hash: EntryHash(hash) })
}
