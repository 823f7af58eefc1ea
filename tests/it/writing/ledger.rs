//! A ledger to test with: memory for a disk, a clock that is set by hand, a gate in front of the disk.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use haldir::domain::audit::LogAction;
use haldir::domain::budgets::AuthorizePayment;
use haldir::domain::id::{
    Actor, AgentId, ApprovalId, AuthorizationId, EntryId, KeyPrefix, RequestId, SessionId, TenantId,
};
use haldir::domain::keys::{MintKey, RevokeKey};
use haldir::domain::money::Money;
use haldir::domain::replays::Idempotency;
use haldir::domain::scope::{Grant, KeyScopes};
use haldir::domain::sessions::{OpenSession, RevokeSession};
use haldir::domain::time::{Month, Timestamp};
use haldir::domain::usage::MeterUsage;
use haldir::domain::{Command, Event};
use haldir::format::entry::{self, Entry};
use haldir::ledger::clock::ManualClock;
use haldir::ledger::feed::CommitFeed;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::ledger::replay::OpenError;
use haldir::ledger::{LedgerError, Receipt, Request};
use haldir::store::memory::{MemorySnapshots, MemoryStore};
use haldir::store::{Direction, EventStore, Head, Row, SideKind, StoreError, StreamAppend};
use parking_lot::{Condvar, Mutex};

use super::oracle;
use crate::samples::signer;

/// When the clock starts, in seconds since the epoch.
pub(crate) const START_S: u64 = 1_700_000_000;

/// Longer than the views' own patience.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct TestLedger {
    pub(crate) store: Arc<GatedStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) handle: LedgerHandle,
    pub(crate) feed: Arc<CommitFeed>,
    sizes: Sizes,
}

type Answer = Result<Receipt, LedgerError>;

impl TestLedger {
    pub(crate) fn new() -> Self {
        Self::with_sizes(Sizes::default())
    }

    pub(crate) fn with_sizes(sizes: Sizes) -> Self {
        let store = Arc::new(GatedStore::default());
        let clock = Arc::new(ManualClock::at(seconds(START_S)));
        let (handle, feed) = open(store.clone(), clock.clone(), sizes).unwrap();
        Self { store, clock, handle, feed, sizes }
    }

    /// Closes the ledger and opens it again from what the store holds.
    pub(crate) fn restart(self) -> Self {
        self.handle.close();
        let (handle, feed) = open(self.store.clone(), self.clock.clone(), self.sizes).unwrap();
        Self { handle, feed, ..self }
    }

    /// What the store held when the power went off, opened again.
    pub(crate) fn crash_and_restart(self) -> Self {
        self.handle.close();
        self.store.disk.crash();
        self.restart()
    }

    pub(crate) fn submit(&self, request: Request) -> Answer {
        wait(self.handle.submit(request))
    }

    /// Asks without waiting. When this returns, the requests are in the queue, in order.
    pub(crate) fn queue(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Asked> {
        let ask = |request| {
            let handle = self.handle.clone();
            Asked::start(async move { handle.submit(request).await })
        };
        requests.into_iter().map(ask).collect()
    }

    /// Has all of the requests decided in one batch.
    pub(crate) fn submit_as_one_batch(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Answer> {
        let asked = self.hold_writer(|| self.queue(requests));
        answers(asked)
    }

    /// Does something while the writer waits in front of the disk with a request of no importance.
    pub(crate) fn hold_writer<T>(&self, work: impl FnOnce() -> T) -> T {
        self.store.close();
        let first = self.queue([request("somebody", meter())]);
        self.store.wait_for_writer();
        let done = work();
        self.store.open();
        drop(first);
        done
    }

    /// Every entry of a tenant's stream, as the store holds it.
    pub(crate) fn entries(&self, tenant: &str) -> Vec<Entry> {
        let entries = self.store.read(&tenant_id(tenant), 0, usize::MAX).unwrap();
        entries.iter().map(|bytes| entry::open(bytes).unwrap()).collect()
    }

    pub(crate) fn events(&self, tenant: &str) -> Vec<Event> {
        self.entries(tenant).into_iter().map(|entry| entry.recorded.event).collect()
    }

    /// Everything that must be true of a ledger, whatever happened before.
    pub(crate) fn check(&self) {
        oracle::check(&self.handle);
    }
}

/// Opens a ledger that is signed with the sample key.
pub(crate) fn open(
    store: Arc<dyn EventStore>,
    clock: Arc<ManualClock>,
    sizes: Sizes,
) -> Result<(LedgerHandle, Arc<CommitFeed>), OpenError> {
    let random = Arc::new(OsRandom::default());
    let snapshots = Arc::new(MemorySnapshots::default());
    LedgerHandle::open(Parts {
        store,
        snapshots,
        signer: signer(),
        former_keys: Vec::new(),
        clock,
        random,
        sizes,
    })
}

/// A request that was made and may not be answered yet.
pub(crate) struct Asked {
    future: Pin<Box<dyn Future<Output = Answer>>>,
    answer: Option<Answer>,
}

impl Asked {
    fn start(future: impl Future<Output = Answer> + 'static) -> Self {
        let mut future: Pin<Box<dyn Future<Output = Answer>>> = Box::pin(future);
        let answer = match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        };
        Self { future, answer }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    pub(crate) fn answer(self) -> Answer {
        self.answer.unwrap_or_else(|| wait(self.future))
    }
}

pub(crate) fn answers(asked: Vec<Asked>) -> Vec<Answer> {
    asked.into_iter().map(Asked::answer).collect()
}

/// Waits for an answer, but not for ever: a caller that nobody answers is a failure of its own.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    answer.expect("nobody answers")
}

/// The one event of a receipt that is not a replay.
pub(crate) fn event(answer: &Answer) -> &Event {
    match answer {
        Ok(Receipt { events, is_replay: false }) if events.len() == 1 => &events[0].recorded.event,
        other => panic!("expected one new event: {other:?}"),
    }
}

/// A memory store with a gate in front of `append`, and a list of what came through it.
#[derive(Default)]
pub(crate) struct GatedStore {
    pub(crate) disk: MemoryStore,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
struct Gate {
    is_closed: bool,
    is_writer_waiting: bool,
    /// For each batch that came through, whose entries it held and how many.
    batches: Vec<Vec<(TenantId, usize)>>,
}

impl GatedStore {
    pub(crate) fn close(&self) {
        self.gate.lock().is_closed = true;
    }

    pub(crate) fn open(&self) {
        self.gate.lock().is_closed = false;
        self.moved.notify_all();
    }

    pub(crate) fn wait_for_writer(&self) {
        let mut gate = self.gate.lock();
        while !gate.is_writer_waiting {
            self.moved.wait(&mut gate);
        }
    }

    pub(crate) fn batches(&self) -> Vec<Vec<(TenantId, usize)>> {
        self.gate.lock().batches.clone()
    }
}

impl EventStore for GatedStore {
    fn append(&self, batch: &[StreamAppend]) -> Result<(), StoreError> {
        let mut gate = self.gate.lock();
        while gate.is_closed {
            gate.is_writer_waiting = true;
            self.moved.notify_all();
            self.moved.wait(&mut gate);
        }
        gate.is_writer_waiting = false;
        gate.batches.push(batch.iter().map(|it| (it.tenant.clone(), it.entries.len())).collect());
        drop(gate);
        self.disk.append(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync()
    }

    fn missing(&self) -> u64 {
        self.disk.missing()
    }

    fn heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError> {
        self.disk.heads()
    }

    fn read(&self, tenant: &TenantId, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.disk.read(tenant, from, count)
    }

    fn cut(&self, tenant: &TenantId, size: u64) -> Result<u64, StoreError> {
        self.disk.cut(tenant, size)
    }

    fn side(&self, tenant: &TenantId, kind: SideKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.side(tenant, kind, id)
    }

    fn sides(
        &self,
        tenant: &TenantId,
        kind: SideKind,
        after: Option<&[u8]>,
        direction: Direction,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.disk.sides(tenant, kind, after, direction, count)
    }
}

pub(crate) fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub(crate) fn tenant_id(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn session_id(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

pub(crate) fn agent_id(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

pub(crate) fn prefix(number: u32) -> KeyPrefix {
    KeyPrefix::parse(&format!("hld_{number:08}")).unwrap()
}

/// A request of the operator's, who may do everything.
pub(crate) fn request(tenant: &str, command: Command) -> Request {
    Request {
        tenant: tenant_id(tenant),
        actor: Actor::Operator,
        request_id: RequestId::parse("request").unwrap(),
        idempotency: None,
        command,
        side: vec![],
    }
}

/// The same request, to be carried out once.
pub(crate) fn once(key: u8, fingerprint: u8, request: Request) -> Request {
    let idempotency = Some(Idempotency { key: [key; 32], fingerprint: [fingerprint; 32] });
    Request { idempotency, ..request }
}

/// The same request on another authority.
pub(crate) fn by(actor: Actor, request: Request) -> Request {
    Request { actor, ..request }
}

/// The key with this number, which may do everything. Numbers make keys unique among all tenants.
pub(crate) fn mint(number: u32) -> Command {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_le_bytes());
    Command::MintKey(MintKey { prefix: prefix(number), hash, name: String::new(), scopes: KeyScopes::all() })
}

pub(crate) fn revoke_key(number: u32) -> Command {
    Command::RevokeKey(RevokeKey { prefix: prefix(number) })
}

/// A session that may spend up to `cap_nanos`.
pub(crate) fn open_session(session: &str, cap_nanos: u128) -> Command {
    Command::OpenSession(OpenSession {
        session_id: session_id(session),
        agent_id: agent_id("agent"),
        grant: Grant { scopes: vec!["spend".to_owned()], cap: Some(Money::from_nanos(cap_nanos)) },
        ttl_s: 0,
        agent_limit: None,
        scopes_are_default: false,
        parent: None,
    })
}

pub(crate) fn revoke_session(session: &str) -> Command {
    Command::RevokeSession(RevokeSession { session_id: session_id(session) })
}

pub(crate) fn pay(session: &str, nanos: u128) -> Command {
    Command::AuthorizePayment(AuthorizePayment {
        authorization_id: AuthorizationId::parse("auth").unwrap(),
        session_id: session_id(session),
        amount: Money::from_nanos(nanos),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        request_id: ApprovalId::parse("").unwrap(),
    })
}

pub(crate) fn log(session: &str, entry_id: &str) -> Command {
    Command::LogAction(LogAction {
        entry_id: EntryId::parse(entry_id).unwrap(),
        session_id: session_id(session),
        action: "act".to_owned(),
        tool: "tool".to_owned(),
        cost: Money::from_nanos(7),
        details_digest: None,
    })
}

pub(crate) fn meter() -> Command {
    Command::MeterUsage(MeterUsage { month: Month::new(2023, 11).unwrap(), keys: vec![] })
}
