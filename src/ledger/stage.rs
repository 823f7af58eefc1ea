//! One batch, built in memory: decided, chained, signed, not yet written.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::checkpoints::{self, KeptCheckpoint};
use super::clock::Clock;
use super::world::World;
use super::{Committed, LedgerError, Receipt, Request};
use crate::domain::id::{Actor, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::{Decision, Envelope, Event, decide, due, record};
use crate::format::chain::{EntryHash, Signer};
use crate::format::entry::{self, seal};
use crate::format::merkle::{Tree, TreeHash, leaf_hash};
use crate::format::proof::check_consistency;
use crate::store::{EventStore, Head, SideKind, StoreError, StreamAppend};

/// What is done before a request at most. A thousand of them take a few milliseconds.
const DUE_COUNT_MAX: usize = 1000;

/// Where the answer to a request goes.
pub(super) type Reply = oneshot::Sender<Result<Receipt, LedgerError>>;

/// Where a checkpoint goes.
pub(super) type CheckpointReply = oneshot::Sender<Result<KeptCheckpoint, LedgerError>>;

/// The size at which a checkpoint is wanted.
#[derive(Debug, Clone)]
pub(super) enum CheckpointAt {
    /// The size that the stream has when the writer comes to it.
    Now,
    /// An earlier size and its root, and the consistency path that leads to the tree of a checkpoint that was kept.
    Earlier { size: u64, root: TreeHash, later_size: u64, path: Vec<TreeHash> },
}

/// What the writer works with.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) signer: &'a Signer,
    pub(super) store: &'a dyn EventStore,
}

/// A batch on its way to the store.
#[derive(Default)]
pub(super) struct Stage {
    appends: BTreeMap<TenantId, StreamAppend>,
    /// Everything new, in order.
    pub(super) events: Vec<Arc<Committed>>,
    answers: Vec<(Reply, Result<Receipt, LedgerError>)>,
    checkpoints: Vec<(CheckpointReply, Result<KeptCheckpoint, LedgerError>)>,
}

impl Stage {
    /// Decides a request on the writer's state, which may run one batch ahead of what is durable.
    pub(super) fn add(&mut self, world: &mut World, request: Request, reply: Reply, with: Means<'_>) {
        let answer = self.carry_out(world, request, with);
        self.answers.push((reply, answer));
    }

    fn carry_out(
        &mut self,
        world: &mut World,
        request: Request,
        with: Means<'_>,
    ) -> Result<Receipt, LedgerError> {
        let tenant = tenant_of(world, &request, with.clock.now());
        self.do_what_is_due(world, &tenant, &request, with)?;
        self.do_what_is_asked(world, &tenant, request, with)
    }

    /// Does what the passing of time leads to. Bounded: what is left is done before the next request.
    fn do_what_is_due(
        &mut self,
        world: &mut World,
        tenant: &TenantId,
        request: &Request,
        with: Means<'_>,
    ) -> Result<(), LedgerError> {
        for _ in 0..DUE_COUNT_MAX {
            let at = next_time(world, tenant, with.clock);
            let Some(command) = world.stream(tenant).and_then(|stream| due(&stream.tenant, at)) else {
                return Ok(());
            };
            let request = Request {
                tenant: tenant.clone(),
                actor: Actor::System,
                request_id: request.request_id.clone(),
                idempotency: None,
                command,
                side: Vec::new(),
            };
            self.do_what_is_asked(world, tenant, request, with)?;
        }
        Ok(())
    }

    fn do_what_is_asked(
        &mut self,
        world: &mut World,
        tenant: &TenantId,
        request: Request,
        with: Means<'_>,
    ) -> Result<Receipt, LedgerError> {
        let envelope = Envelope {
            seq: world.stream(tenant).map_or(0, |stream| stream.head.size),
            at: next_time(world, tenant, with.clock),
            actor: request.actor,
            request_id: request.request_id,
            idempotency: request.idempotency,
            is_deployment_new: world.is_new(),
            command: request.command,
        };
        let fresh = crate::domain::Tenant::default();
        let state = world.stream(tenant).map_or(&fresh, |stream| &stream.tenant);
        let events = match decide(state, &envelope)? {
            Decision::Replay { seq } => {
                let event = self.find(with.store, tenant, seq)?;
                return Ok(Receipt { events: vec![event], is_replay: true });
            }
            Decision::Events(events) => events,
        };

        let mut committed = Vec::with_capacity(events.len());
        let mut side = request.side;
        side.retain(|row| events.iter().any(|event| event.keeps(row.kind)));
        for recorded in record(&envelope, events) {
            let head = world.stream(tenant).map(|stream| stream.head);
            let prev = head.map_or(EntryHash::GENESIS, |head| head.hash);
            let sealed = seal(tenant, &recorded, &prev, with.signer).map_err(|_| LedgerError::TooLarge)?;
            let leaf = leaf_hash(&sealed.bytes);
            let event = Arc::new(Committed { tenant: tenant.clone(), recorded, hash: sealed.hash, leaf });
            world.apply(&event);

            let append = self.append_to(tenant, head);
            append.head = Head { size: event.recorded.seq + 1, hash: sealed.hash };
            append.entries.push(sealed.bytes);
            append.side.append(&mut side);
            self.events.push(Arc::clone(&event));
            committed.push(event);
        }
        Ok(Receipt { events: committed, is_replay: false })
    }

    fn append_to(&mut self, tenant: &TenantId, head: Option<Head>) -> &mut StreamAppend {
        self.appends.entry(tenant.clone()).or_insert_with(|| StreamAppend {
            tenant: tenant.clone(),
            expected: head,
            entries: Vec::new(),
            head: head.unwrap_or(Head { size: 0, hash: EntryHash::GENESIS }),
            side: Vec::new(),
        })
    }

    /// Signs a checkpoint, unless one was signed at this size before.
    pub(super) fn add_checkpoint(
        &mut self,
        world: &World,
        tenant: &TenantId,
        at: &CheckpointAt,
        reply: CheckpointReply,
        with: Means<'_>,
    ) {
        let kept = self.checkpoint(world, tenant, at, with);
        self.checkpoints.push((reply, kept));
    }

    fn checkpoint(
        &mut self,
        world: &World,
        tenant: &TenantId,
        at: &CheckpointAt,
        with: Means<'_>,
    ) -> Result<KeptCheckpoint, LedgerError> {
        let stream = world.stream(tenant).ok_or(LedgerError::Unknown)?;
        let (size, root) = match at {
            CheckpointAt::Now => (stream.head.size, stream.tree.root()),
            CheckpointAt::Earlier { size, root, .. } => (*size, *root),
        };
        let unreadable = |error: StoreError| LedgerError::Unreadable(error.to_string());
        if let Some(kept) = checkpoints::at_size(with.store, tenant, size).map_err(unreadable)? {
            return Ok(kept);
        }
        let id = size.to_be_bytes();
        let staged = self.appends.get(tenant).into_iter().flat_map(|append| &append.side);
        if let Some(row) = staged.into_iter().find(|row| row.kind == SideKind::Checkpoint && row.id == id) {
            return KeptCheckpoint::of_row(row).ok_or(LedgerError::Unknown);
        }
        // IMPORTANT: a root that others computed is signed only if it leads to one that was computed here.
        if let CheckpointAt::Earlier { size, root, later_size, path } = at {
            let later = checkpoints::at_size(with.store, tenant, *later_size).map_err(unreadable)?;
            let later = later.ok_or(LedgerError::Unknown)?;
            let is_beginning = match size {
                0 => *root == Tree::default().root(),
                _ => check_consistency(*size, later.size, root, &later.root, path).is_ok(),
            };
            if !is_beginning {
                return Err(LedgerError::Unknown);
            }
        }
        let head = stream.head;
        let kept = KeptCheckpoint::sign(tenant, size, root, with.clock.now(), with.signer);
        self.append_to(tenant, Some(head)).side.push(kept.row());
        Ok(kept)
    }

    /// An earlier event, from this batch or from the store.
    fn find(
        &self,
        store: &dyn EventStore,
        tenant: &TenantId,
        seq: u64,
    ) -> Result<Arc<Committed>, LedgerError> {
        let staged = self.events.iter().find(|event| event.tenant == *tenant && event.recorded.seq == seq);
        if let Some(event) = staged {
            return Ok(Arc::clone(event));
        }
        let unreadable = |why: &dyn std::fmt::Display| LedgerError::Unreadable(why.to_string());
        let page = store.read(tenant, seq, 1).map_err(|error| unreadable(&error))?;
        let bytes = page.first().ok_or_else(|| unreadable(&format_args!("entry {seq} is missing")))?;
        let entry = entry::open(bytes).map_err(|error| unreadable(&error))?;
        let leaf = leaf_hash(bytes);
        Ok(Arc::new(Committed { tenant: entry.tenant, recorded: entry.recorded, hash: entry.hash, leaf }))
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// What the store is to append.
    pub(super) fn take_appends(&mut self) -> Vec<StreamAppend> {
        std::mem::take(&mut self.appends).into_values().collect()
    }

    /// Tells every caller what became of its request. A caller that went away is not missed.
    pub(super) fn answer(mut self) {
        for (reply, answer) in self.answers.drain(..) {
            let _ = reply.send(answer);
        }
        for (reply, kept) in self.checkpoints.drain(..) {
            let _ = reply.send(kept);
        }
    }

    /// Tells every caller the same bad news.
    pub(super) fn answer_all(&mut self, error: &LedgerError) {
        for (reply, _) in self.answers.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        for (reply, _) in self.checkpoints.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

impl Drop for Stage {
    /// A batch that is dropped unanswered was left by a panic, and may be on disk.
    fn drop(&mut self) {
        self.answer_all(&LedgerError::Poisoned);
    }
}

impl Event {
    /// Whether something of this kind stands beside the entries of the decision that leads to this event.
    const fn keeps(&self, kind: SideKind) -> bool {
        match kind {
            SideKind::Details => matches!(self, Self::ActionLogged(_)),
            SideKind::MintedKey => matches!(self, Self::KeyMinted(_)),
            SideKind::ApprovalDetails => matches!(self, Self::ApprovalRequested(_)),
            SideKind::Excerpt => matches!(self, Self::WebhookAttempted(_)),
            SideKind::EvidencePack => matches!(self, Self::ScheduleRan(ran) if ran.outcome.is_delivered()),
            SideKind::CallArguments => matches!(self, Self::CallAuthorized(_) | Self::CallDenied(_)),
            SideKind::ToolDefinition => {
                matches!(self, Self::UpstreamRegistered(_) | Self::ToolsObserved(_))
            }
            // Signed, and not decided.
            SideKind::Checkpoint => false,
        }
    }
}

/// A retry of a tenant's founding cannot know the tenant; the idempotency key does.
fn tenant_of(world: &World, request: &Request, now: Timestamp) -> TenantId {
    let founded = match (&request.actor, &request.idempotency) {
        (Actor::Bootstrap | Actor::FirstCaller, Some(idempotency)) => world.founded_by(&idempotency.key, now),
        _ => None,
    };
    founded.unwrap_or(&request.tenant).clone()
}

/// Now, or just after the stream's last entry if the clock has stood still or stepped back.
fn next_time(world: &World, tenant: &TenantId, clock: &dyn Clock) -> Timestamp {
    let earliest = world.stream(tenant).map(|stream| stream.last_at.next());
    clock.now().max(earliest.unwrap_or_default())
}
