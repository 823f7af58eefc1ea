//! `haldir ledger restore`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::source::{self, Item};
use crate::cli::installation::{Installation, read_public_key};
use crate::domain::id::TenantId;
use crate::format::entry;
use crate::operations::evidence::{Expected, Verdict};
use crate::store::embedded::EmbeddedStore;
use crate::store::{Cabinet as _, EventStore, Head, SideKind, SideRow, StreamAppend};
use crate::vault::ring_file::RING_FILE;

/// What to restore, and where to.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup, or a ledger export
    #[arg(long)]
    from: PathBuf,
    /// The data directory to make; it must not hold a ledger
    #[arg(long)]
    data_dir: PathBuf,
    /// Trust this public key: a PEM file or 64 hex digits; may be repeated [default: the one in the backup]
    #[arg(long = "key", value_name = "PUBLIC KEY")]
    keys: Vec<String>,
}

/// Entries that are written at once.
const PAGE_LEN: usize = 512;

/// Restores.
pub(super) fn run(arguments: &RestoreArgs) -> Result<(), String> {
    let keys = arguments.keys.iter().map(|key| read_public_key(key)).collect::<Result<Vec<_>, _>>()?;
    let is_trusting = keys.is_empty();
    let checked = source::check(&arguments.from, &Expected { keys, ..Expected::default() })?;
    if !checked.is_whole {
        return Err(format!("{} broke off: its last line is missing", arguments.from.display()));
    }
    for report in &checked.streams {
        let is_good =
            report.verdict == Verdict::Sound || (is_trusting && report.verdict == Verdict::UnnamedKey);
        if !is_good {
            return Err(format!(
                "the stream of tenant {} cannot be restored: {}",
                report.tenant_id, report.reason
            ));
        }
    }
    let installation = Installation::open_or_create(&arguments.data_dir)?;
    if installation.has_ledger() {
        return Err(format!("{} holds a ledger already", arguments.data_dir.display()));
    }
    let mut writer = StreamWriter::open(&installation.ledger_dir()?)?;
    let cabinet = installation.cabinet()?;
    let mut sealed_count = 0_u64;
    source::for_each_item(&arguments.from, |item| match item {
        Item::Stream(tenant) => writer.begin(tenant),
        Item::Sealed(digest, bytes) => {
            sealed_count += 1;
            let tenant = writer.tenant().ok_or("a sealed value of no stream")?;
            cabinet.put(tenant, &digest, &bytes).map_err(|error| format!("vault: {error}"))
        }
        Item::Entry(bytes) => writer.entry(bytes),
        Item::Side(row) => writer.side(row),
        Item::File { name, content } => restore_file(&installation, name, &content),
    })?;
    writer.finish()?;
    for report in &checked.streams {
        anstream::println!("tenant {}: {} entries", report.tenant_id, report.size);
    }
    if !arguments.data_dir.join("signing.key").exists() {
        anstream::println!(
            "put signing.key and retry.secret into {} before you start the server",
            arguments.data_dir.display()
        );
    }
    if sealed_count > 0 && !arguments.data_dir.join(RING_FILE).exists() {
        anstream::println!(
            "{sealed_count} sealed values: put {RING_FILE} into {} too, or set HALDIR_ENCRYPTION_KEY",
            arguments.data_dir.display()
        );
    }
    if is_trusting {
        anstream::println!(
            "the signing key was taken from the backup itself: use --key to say whom you trust"
        );
    }
    Ok(())
}

/// Writes a file that is not there yet.
fn restore_file(installation: &Installation, name: &str, content: &str) -> Result<(), String> {
    if installation.dir().join(name).exists() {
        return Ok(());
    }
    installation.write_private(name, content.as_bytes())
}

/// Writes streams into a store that is being filled, page by page.
pub(super) struct StreamWriter {
    store: EmbeddedStore,
    tenant: Option<TenantId>,
    head: Option<Head>,
    entries: Vec<Vec<u8>>,
    sides: Vec<SideRow>,
    next_head: Option<Head>,
}

impl StreamWriter {
    /// Fills the store in this directory.
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let store = EmbeddedStore::open(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { store, tenant: None, head: None, entries: Vec::new(), sides: Vec::new(), next_head: None })
    }

    /// Begins a stream.
    pub(super) fn begin(&mut self, tenant: TenantId) -> Result<(), String> {
        self.write()?;
        self.tenant = Some(tenant);
        (self.head, self.next_head) = (None, None);
        Ok(())
    }

    /// Adds the next entry.
    pub(super) fn entry(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        let entry = entry::open(&bytes).map_err(|error| error.to_string())?;
        self.next_head = Some(Head { size: entry.recorded.seq + 1, hash: entry.hash });
        self.entries.push(bytes);
        if self.entries.len() == PAGE_LEN { self.write() } else { Ok(()) }
    }

    /// Adds what stands beside an entry, after all entries of the stream.
    pub(super) fn side(&mut self, row: SideRow) -> Result<(), String> {
        let size = self.next_head.map_or(0, |head| head.size);
        if row.kind == SideKind::Checkpoint && row.id.as_slice() > size.to_be_bytes().as_slice() {
            // It is of entries that are not here, and others may come to stand in their places.
            return Ok(());
        }
        self.sides.push(row);
        if self.sides.len() == 64 { self.write() } else { Ok(()) }
    }

    /// Adds what was made ready elsewhere.
    pub(super) fn append(&mut self, append: StreamAppend) -> Result<(), String> {
        self.write()?;
        self.head = Some(append.head);
        self.next_head = self.head;
        self.store.append(&[append]).map_err(|error| error.to_string())
    }

    /// The store, with everything written.
    pub(super) fn store(&mut self) -> Result<&EmbeddedStore, String> {
        self.write()?;
        Ok(&self.store)
    }

    /// Whose stream is being written.
    pub(super) const fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Where the stream that is being written ends.
    pub(super) const fn end(&self) -> Option<Head> {
        self.next_head
    }

    fn write(&mut self) -> Result<(), String> {
        let (Some(tenant), Some(head)) = (&self.tenant, self.next_head) else {
            return Ok(());
        };
        let append = StreamAppend {
            tenant: tenant.clone(),
            expected: self.head,
            entries: std::mem::take(&mut self.entries),
            head,
            side: std::mem::take(&mut self.sides),
        };
        self.head = Some(head);
        self.store.append(&[append]).map_err(|error| error.to_string())
    }

    /// Makes everything durable.
    pub(super) fn finish(mut self) -> Result<(), String> {
        self.write()?;
        self.store.sync().map_err(|error| error.to_string())
    }
}
