//! The shell around the rules: one thread that decides, writes, syncs and answers, in order.
//!
//! `writer` is the write path and the commit point; `stage` builds a batch in memory; [`replay`] rebuilds the state at
//! start, from a [`snapshot`] where there is one ([`snapshots`] takes them); [`world`] is that state for all tenants; [`checkpoints`] keeps what was
//! signed about sizes and roots; [`walk`] verifies streams on all cores; [`past`] tells what was true before; [`handle`] is what everybody else holds;
//! [`feed`] tells views what was committed. [`clock`] and [`random`] are
//! the only sources of time and randomness.

pub mod checkpoints;
pub mod clock;
pub mod feed;
pub mod handle;
pub mod past;
pub mod random;
pub mod replay;
pub mod snapshot;
pub mod snapshots;
mod stage;
pub mod walk;
pub mod world;
mod writer;

use std::sync::Arc;

use crate::domain::id::{Actor, RequestId, TenantId};
use crate::domain::replays::Idempotency;
use crate::domain::{Command, Recorded, Refusal};
use crate::format::chain::EntryHash;
use crate::format::merkle::TreeHash;
use crate::store::SideRow;

/// A command on its way to the writer, with everything but the time.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose stream.
    pub tenant: TenantId,
    /// On whose authority.
    pub actor: Actor,
    /// The request that asks.
    pub request_id: RequestId,
    /// Set when retries repeat the first outcome.
    pub idempotency: Option<Idempotency>,
    /// What is asked for.
    pub command: Command,
    /// What to keep beside the entries if the command is granted.
    pub side: Vec<SideRow>,
}

/// An event that is durable, with the hash of its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Whose stream.
    pub tenant: TenantId,
    /// What was recorded.
    pub recorded: Recorded,
    /// The hash of its entry.
    pub hash: EntryHash,
    /// The leaf of its entry in the tree.
    pub leaf: TreeHash,
}

/// The answer to a request that was carried out.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The events, all durable. Empty when what was asked for was already so.
    pub events: Vec<Arc<Committed>>,
    /// Whether the events were recorded by an earlier request with the same idempotency key.
    pub is_replay: bool,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not allowed in this state. The same command in the same state gets the same answer.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// There is no room on the disk. Nothing was written; it will be when there is room again.
    #[error("the disk is full: {0}")]
    Full(String),
    /// There is no such stream, or it never had the size that is asked for.
    #[error("no such stream, or it never had this size")]
    Unknown,
    /// The queue is full. Try again after a pause.
    #[error("the ledger is busy: its queue is full")]
    Busy,
    /// A write may or may not be on disk, and only a restart can tell. Nothing more is accepted.
    #[error("the ledger stopped after a failed write")]
    Poisoned,
    /// The process is shutting down.
    #[error("the ledger is closed")]
    Closed,
    /// The event is larger than an entry can be. The limits of the domain exclude it.
    #[error("the event is too large to record")]
    TooLarge,
    /// What was asked for lies in the past, and the past could not be read.
    #[error("the ledger could not be read: {0}")]
    Unreadable(String),
}
