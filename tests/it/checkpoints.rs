//! Is there one checkpoint for each size, on disk before anybody has it?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use haldir::format::checkpoint::SignedCheckpoint;
use haldir::format::merkle::{Tree, TreeHash, leaf_hash, node_hash};
use haldir::format::proof::{Node, Nodes, consistency_path};
use haldir::ledger::LedgerError;
use haldir::ledger::checkpoints::{KeptCheckpoint, at_size, list};
use haldir::store::memory::{Fault, Step};
use haldir::store::{Direction, EventStore as _};

use crate::samples::signer;
use crate::writing::ledger::{
    START_S, TestLedger, event, meter, open_session, pay, request, seconds, tenant_id, wait,
};

/// Threads that ask for checkpoints at the same time.
const ASKERS: usize = 4;
/// Threads that write at the same time.
const WRITERS: usize = 4;

#[test]
fn whoever_asks_for_a_checkpoint_while_others_write_gets_the_one_of_its_size() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1_000_000))).unwrap();
    ledger.submit(request("u", meter())).unwrap();
    let is_over = AtomicBool::new(false);
    let handle = &ledger.handle;
    let told: Vec<(&str, KeptCheckpoint)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    for second in 0..150 {
                        // Whatever is signed twice, is signed at two times.
                        ledger.clock.set(seconds(START_S + second));
                        wait(handle.submit(request("t", pay("s", 1)))).unwrap();
                        wait(handle.submit(request("u", meter()))).unwrap();
                    }
                })
            })
            .collect();
        let askers: Vec<_> = (0..ASKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut told = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        for name in ["t", "u"] {
                            let kept = wait(handle.checkpoint(&tenant_id(name))).unwrap();
                            // Durable before it is answered: what the disk holds now, a power cut leaves.
                            let size = handle.read().stream(&tenant_id(name)).unwrap().head.size;
                            assert!(kept.size <= size, "a checkpoint of what readers do not see");
                            told.push((name, kept));
                        }
                    }
                    told
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect()
    });
    let ledger = ledger.crash_and_restart();
    let mut by_size: BTreeMap<(&str, u64), KeptCheckpoint> = BTreeMap::new();
    for (name, kept) in told {
        let first = by_size.entry((name, kept.size)).or_insert_with(|| kept.clone());
        assert_eq!(*first, kept, "two of one size");
    }
    assert!(by_size.len() > 10, "hardly anybody asked while others wrote");
    for name in ["t", "u"] {
        let tenant = tenant_id(name);
        let roots = roots(&ledger, name);
        let rows = list(&*ledger.store, &tenant, None, Direction::Forward, usize::MAX).unwrap();
        let told = by_size.iter().filter(|((of, _), _)| *of == name).map(|(_, kept)| kept);
        assert!(rows.iter().eq(told), "what is kept is what was told");
        for kept in rows {
            assert_eq!(kept.root, roots[usize::try_from(kept.size).unwrap()]);
            let note = SignedCheckpoint::parse(&kept.note).unwrap();
            assert_eq!(
                (note.checkpoint.tenant.clone(), note.checkpoint.size, note.checkpoint.root),
                (tenant.clone(), kept.size, kept.root)
            );
            assert_eq!(note.signed_by(&[signer().public_key()]), Some(signer().public_key()));
        }
        let last = wait(ledger.handle.checkpoint(&tenant)).unwrap();
        assert_eq!(wait(ledger.handle.checkpoint(&tenant)), Ok(last));
    }
    ledger.check();
}

#[test]
fn checkpoints_and_events_of_one_batch_stand_in_its_order() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 100))).unwrap();
    let tenant = tenant_id("t");
    let handle = ledger.handle.clone();
    let (first, paid, second, again) = ledger.hold_writer(|| {
        let ask = || {
            let (handle, tenant) = (handle.clone(), tenant.clone());
            Asked::start(async move { handle.checkpoint(&tenant).await })
        };
        let first = ask();
        let paid = ledger.queue([request("t", pay("s", 1)), request("t", pay("s", 1))]);
        (first, paid, ask(), ask())
    });
    for paid in paid {
        event(&paid.answer());
    }
    let (first, second, again) = (first.wait().unwrap(), second.wait().unwrap(), again.wait().unwrap());
    let roots = roots(&ledger, "t");
    assert_eq!((first.size, first.root), (1, roots[1]));
    assert_eq!((second.size, second.root), (3, roots[3]));
    assert_eq!(second, again, "one row for both");
    let kept = list(&*ledger.store, &tenant, None, Direction::Forward, 10).unwrap();
    assert_eq!(kept, [first, second]);
    ledger.crash_and_restart().check();
}

#[test]
fn a_checkpoint_is_on_disk_before_it_is_answered() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", meter())).unwrap();
    let (handle, tenant) = (ledger.handle.clone(), tenant_id("t"));
    ledger.store.close();
    let of = tenant.clone();
    let mut asked = Asked::start(async move { handle.checkpoint(&of).await });
    ledger.store.wait_for_writer();
    assert!(!asked.is_answered(), "answered while it is on its way to the disk");
    assert_eq!(at_size(&*ledger.store, &tenant, 1), Ok(None));
    ledger.store.open();
    let kept = asked.wait().unwrap();
    let ledger = ledger.crash_and_restart();
    assert_eq!(at_size(&*ledger.store, &tenant, 1), Ok(Some(kept.clone())));
    ledger.clock.set(seconds(2_000_000_000));
    assert_eq!(wait(ledger.handle.checkpoint(&tenant)), Ok(kept), "and not signed again at another time");
}

#[test]
fn a_checkpoint_in_a_batch_that_fails_was_not_given_to_anybody() {
    for (step, fault) in [
        (Step::Append, Fault::Lost),
        (Step::Append, Fault::Torn),
        (Step::Append, Fault::DoneButReportedFailed),
        (Step::Sync, Fault::Lost),
        (Step::Sync, Fault::Torn),
        (Step::Sync, Fault::DoneButReportedFailed),
    ] {
        for with_events in [false, true] {
            let why = format!("{fault:?} at {step:?}, with events: {with_events}");
            let ledger = TestLedger::new();
            let tenant = tenant_id("t");
            ledger.submit(request("t", open_session("s", 100))).unwrap();
            let first = wait(ledger.handle.checkpoint(&tenant)).unwrap();
            ledger.submit(request("t", pay("s", 1))).unwrap();
            ledger.store.disk.fail_at(step, fault, 1);
            let (handle, of) = (ledger.handle.clone(), tenant.clone());
            let (asked, paid) = ledger.hold_writer(|| {
                let events = (0..2 * usize::from(with_events)).map(|_| request("t", pay("s", 1)));
                let paid = ledger.queue(events);
                (Asked::start(async move { handle.checkpoint(&of).await }), paid)
            });
            assert_eq!(asked.wait(), Err(LedgerError::Poisoned), "{why}");
            for paid in paid {
                assert_eq!(paid.answer().unwrap_err(), LedgerError::Poisoned, "{why}");
            }
            assert_eq!(wait(ledger.handle.checkpoint(&tenant)), Err(LedgerError::Poisoned), "{why}");
            let ledger = ledger.crash_and_restart();
            let size = ledger.handle.read().stream(&tenant).unwrap().head.size;
            let is_done = fault == Fault::DoneButReportedFailed;
            assert_eq!(size, 2 + if is_done && with_events { 2 } else { 0 }, "{why}");
            assert_eq!(at_size(&*ledger.store, &tenant, 1), Ok(Some(first)), "{why}");
            let kept = wait(ledger.handle.checkpoint(&tenant)).unwrap();
            assert_eq!((kept.size, kept.root), (size, roots(&ledger, "t")[usize::try_from(size).unwrap()]));
            // Whatever is kept, of any size, is of this history.
            for kept in list(&*ledger.store, &tenant, None, Direction::Forward, 10).unwrap() {
                if fault != Fault::Torn || kept.size <= size {
                    assert_eq!(kept.root, roots(&ledger, "t")[usize::try_from(kept.size).unwrap()], "{why}");
                }
            }
            ledger.check();
        }
    }
}

#[test]
fn an_earlier_checkpoint_is_signed_only_for_the_root_that_the_stream_had() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 100))).unwrap();
    for _ in 0..20 {
        ledger.submit(request("t", pay("s", 1))).unwrap();
    }
    let (tenant, tree) = (tenant_id("t"), Leaves::of(&ledger, "t"));
    let roots = roots(&ledger, "t");
    let at = |size: u64, root: TreeHash, later: u64, path: Vec<TreeHash>| {
        wait(ledger.handle.checkpoint_at(&tenant, size, root, later, path))
    };
    let path = |size: u64| consistency_path(&tree, size, 21).unwrap();
    let root = |size: u64| roots[usize::try_from(size).unwrap()];
    assert_eq!(
        at(7, root(7), 21, path(7)),
        Err(LedgerError::Unknown),
        "there is no checkpoint to lead to yet"
    );
    let last = wait(ledger.handle.checkpoint(&tenant)).unwrap();
    assert_eq!(last.size, 21);
    let forged = leaf_hash(b"forged");
    for size in 1..21 {
        for (what, root, later, path) in [
            ("a forged root", forged, 21, path(size)),
            ("the root of another size", root(size - 1), 21, path(size)),
            ("the root of another size, with its path", root(size % 20 + 1), 21, path(size % 20 + 1)),
            ("the last root", root(21), 21, vec![]),
            ("no such checkpoint", root(size), 20, path(size)),
            ("no such size", root(size), 22, path(size)),
            ("one hash too many", root(size), 21, [path(size), vec![forged]].concat()),
        ] {
            assert_eq!(at(size, root, later, path), Err(LedgerError::Unknown), "{what} for {size}");
        }
        let mut wrong = path(size);
        if let Some(hash) = wrong.first_mut() {
            *hash = forged;
            assert_eq!(at(size, root(size), 21, wrong), Err(LedgerError::Unknown), "{size}");
        }
        assert_eq!(at_size(&*ledger.store, &tenant, size), Ok(None), "something was signed");
        let kept = at(size, root(size), 21, path(size)).unwrap();
        assert_eq!((kept.size, kept.root), (size, root(size)));
        // Once it is kept, it is the answer to whatever is said of that size.
        assert_eq!(at(size, forged, 21, vec![]), Ok(kept));
    }
    assert_eq!(at(0, forged, 21, vec![]), Err(LedgerError::Unknown));
    assert_eq!(at(0, Tree::default().root(), 21, vec![]).unwrap().size, 0);
    for size in [22, u64::MAX] {
        assert_eq!(at(size, forged, 21, vec![]), Err(LedgerError::Unknown));
    }
    assert_eq!(wait(ledger.handle.checkpoint(&tenant_id("nobody"))), Err(LedgerError::Unknown));
    let kept = list(&*ledger.store, &tenant, None, Direction::Forward, 100).unwrap();
    assert!(kept.iter().map(|kept| (kept.size, kept.root)).eq((0..=21).map(|size| (size, root(size)))));
    ledger.check();
}

/// A checkpoint that was asked for and may not be answered yet.
struct Asked(
    tokio::sync::oneshot::Receiver<Result<KeptCheckpoint, LedgerError>>,
    Option<Result<KeptCheckpoint, LedgerError>>,
);

impl Asked {
    /// Asks. When this returns, the request is in the queue.
    fn start(future: impl Future<Output = Result<KeptCheckpoint, LedgerError>> + Send + 'static) -> Self {
        let mut future = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let (answer, answered) = tokio::sync::oneshot::channel();
        if let std::task::Poll::Ready(now) = future.as_mut().poll(&mut context) {
            return Self(answered, Some(now));
        }
        std::thread::spawn(move || drop(answer.send(wait(future))));
        Self(answered, None)
    }

    fn is_answered(&mut self) -> bool {
        self.1.is_some()
            || !matches!(self.0.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty))
    }

    fn wait(self) -> Result<KeptCheckpoint, LedgerError> {
        self.1.unwrap_or_else(|| wait(self.0).unwrap())
    }
}

/// The roots of a stream by size, from none on.
fn roots(ledger: &TestLedger, name: &str) -> Vec<TreeHash> {
    let mut tree = Tree::default();
    let mut roots = vec![tree.root()];
    for bytes in ledger.store.read(&tenant_id(name), 0, usize::MAX).unwrap() {
        tree.push(leaf_hash(&bytes));
        roots.push(tree.root());
    }
    roots
}

/// The leaves of a stream, out of which every node is computed.
struct Leaves(Arc<Vec<TreeHash>>);

impl Leaves {
    fn of(ledger: &TestLedger, name: &str) -> Self {
        let entries = ledger.store.read(&tenant_id(name), 0, usize::MAX).unwrap();
        Self(Arc::new(entries.iter().map(|bytes| leaf_hash(bytes)).collect()))
    }
}

impl Nodes for Leaves {
    type Error = Node;

    fn node(&self, node: Node) -> Result<TreeHash, Node> {
        let leaves = node.leaves().ok_or(node)?;
        let range = usize::try_from(leaves.start).unwrap()..usize::try_from(leaves.end).unwrap();
        let mut level = self.0.get(range).ok_or(node)?.to_vec();
        while level.len() > 1 {
            level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(level[0])
    }
}
