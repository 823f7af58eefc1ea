//! A disk that changes what it holds: wrong bits and lost sectors anywhere in the files of a ledger.
//!
//! Whatever is damaged, one of three things is true of the ledger afterwards: it is not opened, and a message says why; or it
//! is opened, and verification finds the damage and says where; or nothing that can be seen has changed.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haldir::domain::audit::LogAction;
use haldir::domain::id::TenantId;
use haldir::domain::{Command, Event};
use haldir::format::chain::{DETAILS_SALT_LEN, details_digest};
use haldir::format::verify::{Trust, Verifier};
use haldir::ledger::Request;
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Sizes};
use haldir::ledger::replay::PAGE_LEN;
use haldir::operations::audit::read_details;
use haldir::store::embedded::EmbeddedStore;
use haldir::store::{SideKind, SideRow};
use tempfile::TempDir;

use crate::crash::load::Dice;
use crate::crash::rounds::{dice_with_printed_seed, say, setting};
use crate::stores::once_free;
use crate::writing::ledger::{START_S, log, open, open_session, pay, request, seconds, wait};

/// Damages that are tried, unless `HALDIR_DAMAGES` says otherwise.
const DAMAGES: u64 = 150;
/// Logged actions in the ledger that is damaged. With their details they fill several segments of the store's log.
const ACTIONS: u64 = 240;
/// Bytes of their details at most.
const DETAILS_LEN_MAX: u64 = 20_000;
const TENANTS: [&str; 2] = ["t", "u"];

/// What became of a damaged ledger.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It is not opened; this is why.
    Refused(String),
    /// It is opened, and verification finds this.
    Found(String),
    Unchanged,
    /// It passes for sound and is not, or the program breaks.
    Slipped(String),
}

/// What can be seen of a ledger: entries, and the details beside them.
type Seen = BTreeMap<TenantId, Vec<(Vec<u8>, Option<String>)>>;

#[test]
fn damage_anywhere_is_refused_or_found_or_changes_nothing() {
    let mut dice = dice_with_printed_seed("HALDIR_DAMAGE_SEED");
    let mut outcomes: BTreeMap<Outcome, Vec<String>> = BTreeMap::new();
    let damages = setting("HALDIR_DAMAGES").unwrap_or(DAMAGES);
    for (is_reopened, count) in [(true, damages / 2), (false, damages - damages / 2)] {
        let original = TempDir::new().unwrap();
        write_ledger(original.path(), is_reopened, &mut dice);
        let files = files_in(original.path());
        // Opening may write, so that the original is only ever copied.
        let Ok(Ok(seen)) = open_and_verify(copy_of(&files).path()) else {
            panic!("the original is not sound")
        };
        assert!(seen.values().map(Vec::len).sum::<usize>() as u64 > ACTIONS);
        for _ in 0..count {
            let mut files = files.clone();
            let what = damage(&mut files, &mut dice);
            let copy = copy_of(&files);
            outcomes.entry(outcome(copy.path(), &seen)).or_default().push(what);
        }
    }
    for (outcome, damages) in &outcomes {
        say(&format!("{:4} {outcome:?}, such as {}", damages.len(), damages[0]));
    }
    outcomes.retain(|outcome, _| matches!(outcome, Outcome::Slipped(_)));
    assert!(outcomes.is_empty(), "{outcomes:#?}");
}

fn outcome(dir: &Path, original: &Seen) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| open_and_verify(dir))) {
        Err(panic) => Outcome::Slipped(format!("panic: {:?}", panic.downcast_ref::<String>())),
        Ok(Err(why)) if why.trim().is_empty() => Outcome::Slipped("refused without a word".to_owned()),
        Ok(Err(why)) => Outcome::Refused(why),
        Ok(Ok(Err(what))) => Outcome::Found(what),
        Ok(Ok(Ok(seen))) if seen == *original => Outcome::Unchanged,
        Ok(Ok(Ok(seen))) => Outcome::Slipped(difference(&seen, original)),
    }
}

/// Opens a ledger as a server does and verifies it as a server does. The outer error says why it is not opened, the inner
/// one what verification finds.
fn open_and_verify(dir: &Path) -> Result<Result<Seen, String>, String> {
    let store = once_free(|| EmbeddedStore::open(dir)).map_err(|error| error.to_string())?;
    let clock = Arc::new(ManualClock::at(seconds(START_S)));
    let (handle, _) = open(Arc::new(store), clock, Sizes::default()).map_err(|error| error.to_string())?;
    let verdict = verify(&handle);
    handle.close();
    Ok(verdict)
}

fn verify(handle: &LedgerHandle) -> Result<Seen, String> {
    let store = &**handle.store();
    let mut seen = Seen::new();
    let heads: Vec<_> = handle.read().streams().map(|(name, stream)| (name.clone(), stream.head)).collect();
    for (tenant, head) in heads {
        let mut verifier = Verifier::new(tenant.clone(), Trust::keys(vec![handle.public_key()]));
        let mut entries = Vec::new();
        loop {
            let at = |why: String| format!("{tenant} {}: {why}", entries.len());
            let page = store.read(&tenant, verifier.next_seq(), PAGE_LEN).map_err(|it| at(it.to_string()))?;
            if page.is_empty() {
                break;
            }
            for bytes in page {
                let at = |why: String| format!("{tenant} {}: {why}", entries.len());
                let entry = verifier.push(&bytes).map_err(|flaw| at(flaw.to_string()))?;
                let mut details = None;
                if let Event::ActionLogged(action) = &entry.recorded.event
                    && let Some(digest) = &action.details_digest
                {
                    details = read_details(store, &tenant, &action.entry_id, digest)
                        .map_err(|error| at(error.to_string()))?;
                    if details.is_none() {
                        return Err(at("the details are missing".to_owned()));
                    }
                }
                entries.push((bytes, details));
            }
        }
        verifier.check_end(head.size, &head.hash).map_err(|flaw| format!("{tenant}: {flaw}"))?;
        seen.insert(tenant, entries);
    }
    Ok(seen)
}

/// What is not as it was, in a few words.
fn difference(seen: &Seen, original: &Seen) -> String {
    for (tenant, before) in original {
        let now = seen.get(tenant).map_or(&[][..], Vec::as_slice);
        if now.len() != before.len() {
            return format!("{tenant} has {} entries instead of {}", now.len(), before.len());
        }
        if let Some(seq) = (0..now.len()).find(|seq| now[*seq].0 != before[*seq].0) {
            return format!("entry {seq} of {tenant} is another");
        }
        if let Some(seq) = (0..now.len()).find(|seq| now[*seq].1 != before[*seq].1) {
            let is_gone = if now[seq].1.is_none() { "gone" } else { "others" };
            return format!("the details of {tenant} {seq} are {is_gone}");
        }
    }
    "there is a stream that was not there".to_owned()
}

/// Changes one place, and says which.
fn damage(files: &mut BTreeMap<PathBuf, Vec<u8>>, dice: &mut Dice) -> String {
    // The log is nearly everything; the small files get their share.
    let wanted = if dice.below(4) > 0 { Some(PathBuf::from("db")) } else { None };
    let names: Vec<PathBuf> =
        files.iter().filter(|(_, it)| !it.is_empty()).map(|(name, _)| name.clone()).collect();
    let name = wanted.unwrap_or_else(|| names[dice.index(names.len())].clone());
    let content = files.get_mut(&name).expect("it is one of them");
    let at = dice.index(content.len());
    let what = match dice.below(3) {
        0 => {
            content[at] ^= 1 << dice.below(8);
            format!("a wrong bit in byte {at}")
        }
        one_or_two => {
            let len = if one_or_two == 1 { 512 } else { 4096 };
            let start = at / len * len;
            let end = content.len().min(start + len);
            content[start..end].fill(0);
            format!("zeros from byte {start} to {end}")
        }
    };
    format!("{what} of {}", name.display())
}

/// A ledger that has been opened three times, with details of all lengths. Opened once more, it is all in sled's snapshot;
/// else what was written since the last start is in the log alone.
fn write_ledger(dir: &Path, is_reopened: bool, dice: &mut Dice) {
    for start in 0..3 {
        let store = once_free(|| EmbeddedStore::open(dir)).unwrap();
        let clock = Arc::new(ManualClock::at(seconds(START_S)));
        let (handle, _) = open(Arc::new(store), clock, Sizes::default()).unwrap();
        for name in TENANTS {
            let session = format!("s{start}");
            wait(handle.submit(request(name, open_session(&session, 1_000_000)))).unwrap();
            wait(handle.submit(request(name, pay(&session, 1)))).unwrap();
        }
        for number in 0..ACTIONS / 3 {
            let name = TENANTS[dice.index(TENANTS.len())];
            wait(handle.submit(action(name, start, number, dice))).unwrap();
        }
        handle.close();
    }
    // sled's own threads write until they let go of the files.
    let last = || drop(once_free(|| EmbeddedStore::open(dir)).unwrap());
    if is_reopened {
        last();
    }
    while fs::File::open(dir.join("db")).unwrap().try_lock().is_err() {
        std::thread::yield_now();
    }
}

/// An action with details, as the API logs it.
fn action(tenant: &str, start: u64, number: u64, dice: &mut Dice) -> Request {
    let entry_id = format!("aud_{start}_{number}");
    let salt = [u8::try_from(number % 251).unwrap(); DETAILS_SALT_LEN];
    let details: String =
        (0..dice.below(DETAILS_LEN_MAX)).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    let Command::LogAction(plain) = log(&format!("s{start}"), &entry_id) else { unreachable!() };
    let details_digest = Some(details_digest(&salt, details.as_bytes()));
    let value = [&salt[..], details.as_bytes()].concat();
    let side = SideRow { kind: SideKind::Details, id: entry_id.as_bytes().to_vec(), value };
    Request { side: vec![side], ..request(tenant, Command::LogAction(LogAction { details_digest, ..plain })) }
}

fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{} holds something", path.display());
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

fn copy_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("blobs")).unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}
