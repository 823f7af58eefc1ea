//! Haldir, the governance layer for AI agents. **The ledger is the only truth**: whatever Haldir does for an agent is an
//! event in an append-only, hash-chained, individually signed stream, and everything else is folded from it.
//!
//! # The write path
//!
//! A request arrives in [`http`], which translates it and calls one function of [`operations`]. That function makes a
//! command and hands it to [`ledger::handle::LedgerHandle::submit`]. One thread, the writer, takes what is waiting and
//! tells the rest in order (`ledger/writer.rs`, two screens):
//!
//! 1. *decide* each command with [`domain::decide`] on the writer's state, and *apply* the events, so that later commands
//!    of the batch see earlier ones;
//! 2. *encode, chain and sign* each event ([`format::entry::seal`]);
//! 3. *append* the whole batch to the [`store`], atomically, and *sync*;
//! 4. the **commit point**: before it nothing happened, after it everything did;
//! 5. *publish* to readers, *answer* the callers, *wake* the [`views`].
//!
//! # The read path
//!
//! Sessions, keys and usage are read from the published state in memory, which is copied at no cost
//! ([`domain::table`]). The audit trail, its sums and the hashes of the trees come from [`views`], which follow the ledger and
//! make a reader wait until they have come as far as the ledger had when it asked. The past is folded from the nearest
//! snapshot ([`ledger::past`]), and any read of state can be one of the past ([`operations::past`]).
//!
//! # The auditor's path
//!
//! [`mod@format`] makes and checks proofs and checkpoints; [`operations::export`] writes what auditors take away, and
//! [`operations::evidence`] verifies it, without a server: each entry alone on all cores, then place, signer and decision in order
//! ([`ledger::walk`], [`format::verify`], [`domain::rederive`]).
//!
//! # What always holds
//!
//! - **No record, no effect.** Callers hear of success only after the commit point. If the record cannot be written, the
//!   operation did not happen, and the writer stops: stopped is better than forked.
//! - **Every decision is explained.** A denial is an event like a grant, with its reason. What is malformed or illegal is
//!   refused and leaves no trace.
//! - **Exact.** Money is whole billionths; one thread decides; a budget is never overspent.
//! - **Anyone can check.** `ledger-format.md` is normative; [`format::verify`] is the oracle, live, at start and in tests.
//! - **Nothing secret leaves.** Keys are kept as SHA-256, idempotency keys as keyed digests.
//!
//! # The map, in reading order
//!
//! Each module uses itself and what stands above it, nothing below; a test reads the source and holds this.
//!
//! - [`domain`]: the rules, pure. Start with `domain/mod.rs`, then `domain/budgets.rs`.
//! - [`mod@format`]: the bytes, pure.
//! - [`store`]: durable bytes behind a trait; sled on disk, and a reference in memory that fails as planned.
//! - [`ledger`]: the writer, replay, and the handle that everybody else holds; the one clock and random source.
//! - [`views`]: read models behind the ledger.
//! - [`outbound`]: the one way out, guarded against requests that lead inside.
//! - [`proxy`]: upstream MCP servers, and how far they are trusted.
//! - [`vault`]: values that are sealed, and destroyed on request.
//! - [`operations`]: one function per product operation.
//! - [`workers`]: what is done on a timer: scrubbing and checkpoints.
//! - [`http`]: the REST edge.
//! - [`mcp`]: the Model Context Protocol edge.
//! - [`cli`]: the command line, with [`config`] and [`telemetry`].

pub mod cli;
pub mod config;
pub mod domain;
pub mod format;
pub mod http;
pub mod ledger;
pub mod mcp;
pub mod operations;
pub mod outbound;
pub mod proxy;
pub mod store;
pub mod telemetry;
pub mod vault;
pub mod views;
pub mod workers;
