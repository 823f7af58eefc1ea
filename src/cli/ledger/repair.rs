//! `haldir ledger repair`: keeps what is sound, takes the rest from backups and exports, and puts the incident on record.
//!
//! The new ledger is built beside the old one and takes its place only when it is whole and durable. The old one is kept, as
//! `ledger.damaged-<time>`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::custody::{append_of, check_signer, fold};
use super::restore::StreamWriter;
use super::source::{self, Item};
use crate::cli::installation::{Installation, read_public_key};
use crate::cli::offline::{OfflineLedger, progress};
use crate::config;
use crate::domain::Command;
use crate::domain::custody::RecordRepair;
use crate::domain::id::TenantId;
use crate::format::chain::EntryHash;
use crate::format::entry;
use crate::ledger::clock::{Clock as _, SystemClock};
use crate::ledger::replay::PAGE_LEN;
use crate::operations::evidence::stream::verify_stream;
use crate::operations::evidence::{Expected, Verdict};
use crate::store::{Direction, EventStore, Head, SideKind, SideRow};

/// What to repair.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The data directory [default: ~/.haldir]
    #[arg(long, env = "HALDIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Take what is missing from this backup or ledger export; may be repeated
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Trust this public key: a PEM file or 64 hex digits; may be repeated [default: the directory's own]
    #[arg(long = "key", value_name = "PUBLIC KEY")]
    keys: Vec<String>,
    /// Only say what is damaged and what can be saved
    #[arg(long)]
    dry_run: bool,
    /// Rebuild although entries that are known to have existed are lost
    #[arg(long)]
    accept_loss: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be saved of one stream.
struct Salvage {
    tenant: TenantId,
    /// Entries from the start that are sound where they are.
    kept: u64,
    /// What is wrong with the next one; `None` for a stream that is sound to its end.
    damage: Option<String>,
    /// Entries that the directory holds, sound or not.
    held: u64,
    /// Entries that the stream is known to have had.
    known: u64,
    /// The source that holds most of the rest, and how much of the stream it holds.
    source: Option<(PathBuf, u64)>,
}

impl Salvage {
    fn restored(&self) -> u64 {
        self.source.as_ref().map_or(0, |(_, size)| size.saturating_sub(self.kept))
    }

    fn lost(&self) -> u64 {
        self.known.saturating_sub(self.kept + self.restored())
    }

    const fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }
}

/// Repairs, or says what could be.
pub(super) fn run(arguments: &RepairArgs) -> Result<ExitCode, String> {
    let dir = config::data_dir(arguments.data_dir.clone())?;
    let keys = if arguments.keys.is_empty() {
        Installation::known_keys(&dir)?
    } else {
        arguments.keys.iter().map(|key| read_public_key(key)).collect::<Result<_, _>>()?
    };
    if keys.is_empty() {
        return Err(format!("{}/signing.pub is missing: name the public key with --key", dir.display()));
    }
    let expected = Expected { keys, ..Expected::default() };
    let (ledger, unreadable) = match OfflineLedger::open(&dir) {
        Ok(ledger) => (Some(ledger), None),
        Err(why) => (None, Some(why)),
    };
    if ledger.is_none() && arguments.from.is_empty() {
        return Err(format!(
            "{}; with a backup or an export, name it with --from",
            unreadable.unwrap_or_default()
        ));
    }
    let mut salvages = look(ledger.as_ref(), &expected)?;
    let missing = ledger.as_ref().map_or(0, |ledger| ledger.store.missing());
    let known_here: u64 = salvages.values().map(|salvage| salvage.held).sum::<u64>() + missing;
    for path in &arguments.from {
        look_at_source(path, &expected, ledger.as_ref(), &mut salvages)?;
    }
    let is_alone = salvages.len() == 1;
    if let Some(only) = salvages.values_mut().next().filter(|_| is_alone) {
        only.known = only.known.max(known_here);
    }
    tell(&salvages, arguments.json);
    if missing == 0 && !salvages.values().any(Salvage::is_damaged) {
        return Ok(ExitCode::SUCCESS);
    }
    // Whose the missing entries are is not known of several streams, but how many there are in all.
    let known = known_here.max(salvages.values().map(|salvage| salvage.known).sum());
    let saved: u64 = salvages.values().map(|salvage| salvage.kept + salvage.restored()).sum();
    let lost = known.saturating_sub(saved);
    if salvages.is_empty() {
        return Err(format!("{missing} entries are missing and nothing is left: name a backup with --from"));
    }
    if arguments.dry_run {
        return Ok(ExitCode::from(1));
    }
    if lost > 0 && !arguments.accept_loss {
        return Err(format!(
            "{lost} entries would be lost: name a backup or an export with --from, or say --accept-loss"
        ));
    }
    rebuild(&dir, ledger.as_ref(), &salvages)?;
    Ok(ExitCode::SUCCESS)
}

/// Finds the first bad entry of every stream in the directory.
fn look(ledger: Option<&OfflineLedger>, expected: &Expected) -> Result<BTreeMap<TenantId, Salvage>, String> {
    let mut salvages = BTreeMap::new();
    let Some(ledger) = ledger else {
        return Ok(salvages);
    };
    let store = &*ledger.store;
    let certificates = ledger.installation.certificates()?;
    let heads = store.heads().map_err(|error| error.to_string())?;
    let missing = store.missing();
    let bar = progress(heads.iter().map(|(_, head)| head.size).sum());
    for (tenant, head) in heads {
        let report = verify_stream(store, &tenant, head, expected, &certificates, |count| bar.inc(count));
        let report = report.map_err(|error| error.to_string())?;
        let mut salvage = Salvage {
            tenant: tenant.clone(),
            held: head.size,
            kept: head.size,
            damage: None,
            known: head.size,
            source: None,
        };
        match report.verdict {
            Verdict::NotSound => {
                salvage.kept = report.first_bad_seq.unwrap_or(0).min(head.size);
                salvage.damage = Some(report.reason);
            }
            Verdict::UnnamedKey => return Err(format!("tenant {tenant}: {}", report.reason)),
            Verdict::Sound | Verdict::Incomplete | Verdict::Truncated | Verdict::Equivocation => {}
        }
        // How many are missing is known of all streams together: each of them may be shorter than it was.
        if missing > 0 && salvage.damage.is_none() {
            salvage.damage =
                Some(format!("{missing} acknowledged entries are missing from the end of the ledger"));
        }
        salvages.insert(tenant, salvage);
    }
    bar.finish_and_clear();
    Ok(salvages)
}

/// Looks whether a backup or export goes on where the directory's streams end.
fn look_at_source(
    path: &Path,
    expected: &Expected,
    ledger: Option<&OfflineLedger>,
    salvages: &mut BTreeMap<TenantId, Salvage>,
) -> Result<(), String> {
    let checked = source::check(path, expected)?;
    for report in checked.streams {
        let usable = matches!(report.verdict, Verdict::Sound | Verdict::Incomplete) && report.from == 0;
        let tenant = TenantId::parse(&report.tenant_id).filter(|_| usable);
        let tenant = tenant
            .ok_or_else(|| format!("{}: tenant {}: {}", path.display(), report.tenant_id, report.reason))?;
        let is_gone = || "the stream is not there at all".to_owned();
        let salvage = salvages.entry(tenant.clone()).or_insert_with(|| Salvage {
            tenant: tenant.clone(),
            held: 0,
            kept: 0,
            damage: Some(is_gone()),
            known: 0,
            source: None,
        });
        if salvage.kept > 0 && report.size > 0 {
            let shared = salvage.kept.min(report.size);
            let ours = ledger.map(|ledger| hash_at(&*ledger.store, &tenant, shared - 1)).transpose()?;
            if ours.is_some() && ours != hash_in(path, &tenant, shared - 1)? {
                return Err(format!("{}: tenant {tenant} has another history there", path.display()));
            }
        }
        salvage.known = salvage.known.max(report.size);
        if report.size > salvage.kept && salvage.damage.is_none() {
            salvage.damage = Some("the stream ends before a backup of it does".to_owned());
        }
        if report.size > salvage.source.as_ref().map_or(salvage.kept, |(_, size)| *size) {
            salvage.source = Some((path.to_path_buf(), report.size));
        }
    }
    Ok(())
}

fn hash_at(store: &dyn EventStore, tenant: &TenantId, seq: u64) -> Result<EntryHash, String> {
    let page = store.read(tenant, seq, 1).map_err(|error| error.to_string())?;
    let entry = page.first().and_then(|bytes| entry::open(bytes).ok());
    entry.map(|entry| entry.hash).ok_or_else(|| format!("entry {seq} cannot be read"))
}

fn hash_in(path: &Path, tenant: &TenantId, seq: u64) -> Result<Option<EntryHash>, String> {
    let (mut is_wanted, mut next, mut found) = (false, 0, None);
    source::for_each_item(path, |item| {
        match item {
            Item::Stream(of) => (is_wanted, next) = (of == *tenant, 0),
            Item::Entry(bytes) if is_wanted => {
                if next == seq {
                    found = entry::open(&bytes).ok().map(|entry| entry.hash);
                }
                next += 1;
            }
            Item::Entry(_) | Item::Side(_) | Item::Sealed(..) | Item::File { .. } => {}
        }
        Ok(())
    })?;
    Ok(found)
}

fn tell(salvages: &BTreeMap<TenantId, Salvage>, as_json: bool) {
    if as_json {
        let stream = |salvage: &Salvage| {
            json!({
                "tenant_id": salvage.tenant.as_str(), "sound": !salvage.is_damaged(), "kept": salvage.kept,
                "damage": salvage.damage, "restorable": salvage.restored(), "lost": salvage.lost(),
                "source": salvage.source.as_ref().map(|(path, _)| path.display().to_string()),
            })
        };
        let streams: Vec<_> = salvages.values().map(stream).collect();
        anstream::println!("{}", json!({ "streams": streams }));
        return;
    }
    for salvage in salvages.values() {
        let Salvage { tenant, kept, .. } = salvage;
        match &salvage.damage {
            None => anstream::println!("tenant {tenant}: sound, {kept} entries"),
            Some(damage) => {
                anstream::println!("tenant {tenant}: damaged at seq {kept}: {damage}");
                anstream::println!("  kept      {kept}");
                match &salvage.source {
                    Some((path, _)) => {
                        anstream::println!("  restored  {} from {}", salvage.restored(), path.display());
                    }
                    None => anstream::println!("  restored  0"),
                }
                anstream::println!("  lost      {}", salvage.lost());
            }
        }
    }
}

/// Builds the new ledger and puts it in the place of the old one.
fn rebuild(
    dir: &Path,
    ledger: Option<&OfflineLedger>,
    salvages: &BTreeMap<TenantId, Salvage>,
) -> Result<(), String> {
    // Without a ledger that can be opened, nobody holds the directory yet.
    let own = if ledger.is_none() { Some(Installation::open(dir)?) } else { None };
    let installation = ledger.map(|ledger| &ledger.installation).or(own.as_ref());
    let signer = installation.ok_or("the data directory is not held")?.existing_signer()?;
    let fresh = dir.join("ledger.new");
    let _ = fs::remove_dir_all(&fresh);
    let mut writer = StreamWriter::open(&fresh)?;
    for salvage in salvages.values() {
        writer.begin(salvage.tenant.clone())?;
        if let Some(ledger) = ledger {
            copy_kept(&*ledger.store, salvage, &mut writer)?;
        }
        if let Some((path, _)) = &salvage.source {
            copy_rest(path, salvage, &mut writer)?;
        }
        if let Some(ledger) = ledger {
            copy_sides(&*ledger.store, &salvage.tenant, &mut writer)?;
        }
        // After our own, which may be damaged too.
        if let Some((path, _)) = &salvage.source {
            copy_sides_of(path, salvage, &mut writer)?;
        }
        if let Some(damage) = &salvage.damage {
            let head = writer.end().unwrap_or(Head { size: 0, hash: EntryHash::GENESIS });
            let state = fold(writer.store()?, &salvage.tenant, head.size)?;
            if let Some((state, _)) = &state {
                check_signer(writer.store()?, &salvage.tenant, head, state, &signer)?;
            }
            let command = Command::RecordRepair(RecordRepair {
                kept: salvage.kept,
                restored: salvage.restored(),
                lost: salvage.lost(),
                damage: damage.chars().take(1000).collect(),
                source: salvage.source.as_ref().map(|(path, _)| name_of(path)).unwrap_or_default(),
            });
            writer.append(append_of(&salvage.tenant, head, state, command, &signer)?)?;
        }
    }
    writer.finish()?;
    let at = |error: std::io::Error| format!("{}: {error}", dir.display());
    let old = dir.join("ledger");
    let damaged = dir.join(format!("ledger.damaged-{}", SystemClock.now().seconds()));
    if old.exists() {
        fs::rename(&old, &damaged).map_err(at)?;
        anstream::println!("the damaged ledger is kept as {}", damaged.display());
    }
    // A crash here leaves no ledger in its place, and both beside it: the next repair starts from the same sources.
    fs::rename(&fresh, &old).map_err(at)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(at)?;
    for derived in ["views", "snapshots"] {
        let _ = fs::remove_dir_all(dir.join(derived));
    }
    anstream::println!("repaired, and recorded in the ledger");
    Ok(())
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn copy_kept(store: &dyn EventStore, salvage: &Salvage, writer: &mut StreamWriter) -> Result<(), String> {
    let mut next = 0;
    while next < salvage.kept {
        let wanted = usize::try_from(salvage.kept - next).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        let page = store.read(&salvage.tenant, next, wanted).map_err(|error| error.to_string())?;
        if page.is_empty() {
            return Err(format!("entry {next} of tenant {} cannot be read any more", salvage.tenant));
        }
        for bytes in page {
            writer.entry(bytes)?;
            next += 1;
        }
    }
    Ok(())
}

fn copy_sides(store: &dyn EventStore, tenant: &TenantId, writer: &mut StreamWriter) -> Result<(), String> {
    for kind in SideKind::ALL {
        let mut after: Option<Vec<u8>> = None;
        // What stands beside the entries is bound to them by digests; a part that cannot be read is left out.
        while let Ok(page) = store.sides(tenant, kind, after.as_deref(), Direction::Forward, 64) {
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(last.clone());
            for (id, value) in page {
                writer.side(SideRow { kind, id, value })?;
            }
        }
    }
    Ok(())
}

fn copy_rest(path: &Path, salvage: &Salvage, writer: &mut StreamWriter) -> Result<(), String> {
    let (mut is_wanted, mut next) = (false, 0);
    source::for_each_item(path, |item| {
        match item {
            Item::Stream(of) => (is_wanted, next) = (of == salvage.tenant, 0),
            Item::Entry(bytes) if is_wanted => {
                if next >= salvage.kept {
                    writer.entry(bytes)?;
                }
                next += 1;
            }
            Item::Entry(_) | Item::Side(_) | Item::Sealed(..) | Item::File { .. } => {}
        }
        Ok(())
    })
}

fn copy_sides_of(path: &Path, salvage: &Salvage, writer: &mut StreamWriter) -> Result<(), String> {
    let mut is_wanted = false;
    source::for_each_item(path, |item| {
        match item {
            Item::Stream(of) => is_wanted = of == salvage.tenant,
            Item::Side(row) if is_wanted => writer.side(row)?,
            Item::Entry(_) | Item::Side(_) | Item::Sealed(..) | Item::File { .. } => {}
        }
        Ok(())
    })
}
