//! Does what was answered survive a power cut? On a real file system whose power is cut, and on every disk that the promises
//! of file systems allow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::crash::load::{DETAILS_LENS, Dice, LONG_DETAILS_LENS};
use crate::crash::rounds::{Rounds, dice_with_printed_seed, say, setting};
use crate::server::{Home, Server};

mod disk;
mod journal;
mod mount;
pub(crate) mod truth;

use disk::{Disk, Image, Luck};
use journal::{Action, Journal, Record};
use mount::PowerSupply;
use truth::{Fate, Truth};

/// Times the power is cut, unless `HALDIR_POWER_CUTS` says otherwise.
const CUTS: u64 = 10;
/// Cuts of one and the same database, one after the other.
const CUTS_OF_ONE: u64 = 5;
/// Disks that are looked at, unless `HALDIR_POWER_DISKS` says otherwise.
const DISKS: u64 = 200;
/// Servers that are recorded, one after the other. Each starts on a disk that the one before may have left behind.
const RECORDINGS: u64 = 4;
/// Moments among which that is taken when most was not synced.
const CHOICES: usize = 30;
/// How long each is recorded under load.
const RECORDING_TIME: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_answered_survives_real_power_cuts() {
    let mut dice = dice_with_printed_seed("HALDIR_POWER_SEED");
    let wanted = setting("HALDIR_POWER_CUTS");
    let mut cuts_left = wanted.unwrap_or(CUTS);
    while cuts_left > 0 {
        let lens: &[u64] = if dice.below(2) == 0 { &DETAILS_LENS } else { &LONG_DETAILS_LENS };
        let (home, mut rounds) = (Home::new(), Rounds::starting_at(0, lens));
        let supply = match PowerSupply::new(&home.data_dir()) {
            Ok(supply) => supply,
            Err(why) => {
                assert_eq!(wanted, None, "real power cuts were asked for, and cannot be made: {why}");
                say(&format!("real power cuts were not made: {why}"));
                return;
            }
        };
        let mut server = home.serve();
        for _ in 0..CUTS_OF_ONE.min(cuts_left) {
            cuts_left -= 1;
            let cut = |server: Server| {
                supply.cut();
                server.kill();
            };
            let seen = rounds.load_until(server, &mut dice, cut).await;
            supply.restore();
            if dice.below(3) == 0 {
                cut_while_starting(&home, &supply, &mut dice);
            }
            server = home.serve();
            rounds.check(&server.client(), seen, &mut dice).await;
        }
        rounds.check_end(&home, server).await;
        drop(supply);
    }
}

/// Cuts the power in a server's first milliseconds, whatever it is doing.
fn cut_while_starting(home: &Home, supply: &PowerSupply, dice: &mut Dice) {
    let mut starting = home.spawn(&[], &[]);
    std::thread::sleep(Duration::from_millis(dice.below(100)));
    supply.cut();
    starting.kill().unwrap();
    starting.wait().unwrap();
    supply.restore();
}

#[test]
fn what_was_answered_is_on_every_disk_that_a_power_cut_may_leave() {
    let mut dice = dice_with_printed_seed("HALDIR_POWER_SEED");
    let disks = setting("HALDIR_POWER_DISKS").unwrap_or(DISKS);
    let (mut base, mut base_needs) = (Image::default(), 0);
    let mut fates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Of the clients alone: what looks at the disks waits for ledgers of its own.
    let clients = tokio::runtime::Runtime::new().unwrap();
    for number in 0..RECORDINGS {
        let recording = clients.block_on(Recording::of(base, base_needs, number, &mut dice));
        let count = disks / RECORDINGS + u64::from(number < disks % RECORDINGS);
        (base, base_needs) = recording.look_at_disks(count, &mut dice, &mut fates);
    }
    for (fate, disks) in &fates {
        say(&format!("{:4} disks: {fate}, such as {}", disks.len(), disks[0]));
    }
    let is_good = |fate: &str| fate.starts_with("served") || fate.starts_with("refused with nothing");
    let bad: Vec<_> = fates.keys().filter(|fate| !is_good(fate)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// What one server did to its files, and what it acknowledged meanwhile.
struct Recording {
    base: Image,
    journal: Journal,
    truth: Truth,
    number: u64,
    /// From which length of the journal on so many entries must be there.
    needs: BTreeMap<u64, u64>,
    /// How long the journal was when the server listened.
    listening_at: u64,
    _dir: TempDir,
}

impl Recording {
    /// Records a server under load, on a disk on which `base_needs` entries were acknowledged.
    async fn of(base: Image, base_needs: u64, number: u64, dice: &mut Dice) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (home, journal) = (Home::new(), Journal::new(dir.path()));
        base.write_to(home.root());
        let server = journal.serve(&home);
        // Whoever listens shows what is there, so that must stay.
        let shown = server.client().get("/v1/audit/verify").await.expect(200);
        let mut needs = BTreeMap::from([(0, base_needs)]);
        let listening_at = journal.len();
        needs.insert(listening_at, shown["events_checked"].as_u64().unwrap());

        let lens: &[u64] = if number == 0 { &DETAILS_LENS } else { &LONG_DETAILS_LENS };
        let mut rounds = Rounds::starting_at(1000 * number, lens);
        let clock = Arc::new(journal.clock());
        let seen = rounds.load_for(RECORDING_TIME, server, dice, clock, Server::stop).await;
        let seen_last = Image::of(home.root());
        let export = home.run(&["audit", "export", "--data-dir", &home.data_dir().to_string_lossy()]);
        rounds.history.read_on(&export.stdout);
        rounds.history.check(&seen);
        assert_eq!(seen.told.len(), seen.times.len());
        for ((ask, _), time) in seen.told.iter().zip(&seen.times) {
            let need = needs.entry(*time).or_default();
            *need = (*need).max(rounds.history.seq_of(ask) + 1);
        }
        // More is never needed less.
        let mut most = 0;
        for need in needs.values_mut() {
            most = most.max(*need);
            *need = most;
        }
        let mut disk = Disk::of(&base);
        journal.read().into_iter().for_each(|record| disk.apply(record));
        check_same(&disk.seen(), &seen_last);
        let truth = Truth::of(&home.data_dir());
        Self { base, journal, truth, number, needs, listening_at, _dir: dir }
    }

    /// A random moment. A start is short, and much happens in it, so that every third falls there. Every other third is one
    /// of those when most was not synced.
    fn any_cut(&self, records: &[Record], dice: &mut Dice) -> usize {
        let unsynced_at = |at: usize| {
            let since = records[..=at].iter().rev();
            let since = since.take_while(|it| !matches!(it.action, Action::SyncEnds { .. }));
            since.map(|it| it.end).last().map_or(0, |first| records[at].end - first)
        };
        match dice.below(3) {
            0 => dice.index(records.iter().take_while(|it| it.end <= self.listening_at).count()),
            1 => dice.index(records.len()),
            _ => {
                let any: Vec<_> = (0..CHOICES).map(|_| dice.index(records.len())).collect();
                any.into_iter().max_by_key(|at| unsynced_at(*at)).unwrap_or_default()
            }
        }
    }

    /// Cuts the power at random moments. Gives one of the disks on which a ledger was served, and what was needed there.
    fn look_at_disks(
        self,
        count: u64,
        dice: &mut Dice,
        fates: &mut BTreeMap<String, Vec<String>>,
    ) -> (Image, u64) {
        let records = self.journal.read();
        let mut cuts: Vec<usize> = (0..count).map(|_| self.any_cut(&records, dice)).collect();
        cuts.sort_unstable();
        let mut cuts = cuts.into_iter().enumerate().peekable();
        let mut disk = Disk::of(&self.base);
        let mut next = (Image::default(), 0);
        for (at, record) in records.into_iter().enumerate() {
            let end = record.end;
            disk.apply(record);
            while let Some((index, _)) = cuts.next_if(|(_, cut)| *cut == at) {
                let luck = Luck::any(dice);
                let image = disk.after_cut(luck, dice, is_of_the_ledger);
                let needed = self.needs.range(..=end).next_back().map_or(0, |(_, needed)| *needed);
                let dir = tempfile::tempdir().unwrap();
                image.write_to(dir.path());
                let fate = self.truth.fate_of(&dir.path().join("data"), needed);
                let what = match &fate {
                    Fate::Served(_) if needed > 0 => "served".to_owned(),
                    Fate::Served(_) => "served, and nothing had been acknowledged".to_owned(),
                    Fate::Refused(why) if needed == 0 => format!("refused with nothing on it: {why}"),
                    Fate::Refused(why) => format!("refused: {why}"),
                    Fate::Wrong(why) => format!("wrong: {why}"),
                };
                let which = format!("recording {} cut at {at}, {needed} needed, {luck:?}", self.number);
                fates.entry(what).or_default().push(which);
                // The last is the oldest, and so the most interesting to go on from. Views are rebuilt.
                if matches!(fate, Fate::Served(_)) && index as u64 * 2 > count {
                    next = (image, needed);
                }
            }
        }
        next
    }
}

/// Everything but the views, which are rebuilt from the ledger.
fn is_of_the_ledger(path: &str) -> bool {
    !path.starts_with("data/views/") && path.starts_with("data/")
}

/// The recorder saw everything if what it wrote down leads to what is there.
fn check_same(recorded: &Image, there: &Image) {
    let data = |image: &Image| -> BTreeMap<String, Vec<u8>> {
        let files = image.files.iter().filter(|(name, _)| name.starts_with("data/"));
        files.map(|(name, content)| (name.clone(), content.clone())).collect()
    };
    let (recorded, there) = (data(recorded), data(there));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&recorded), names(&there));
    for (name, content) in &there {
        assert!(recorded[name] == *content, "{name} is not what the recorder saw");
    }
}

/// Compiles a C program of this folder.
fn compiled(source: &str, options: &[&str], to: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/power").join(source);
    let mut compiler = Command::new("cc");
    compiler.arg("-O2").arg("-o").arg(to).arg(source).args(options);
    let output = compiler.output().expect("a C compiler is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    to.to_path_buf()
}
