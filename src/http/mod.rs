//! The REST edge: routes, extractors, the error envelope. Handlers translate and do nothing else.
//!
//! [`routes`] is the table; [`edge`] wraps every request (id, key, limits, metering, headers, log); [`caller`] puts the
//! right that a handler needs into its signature; [`body`] and [`query`] read what clients send; [`error`] is the one
//! table from errors to status and envelope; [`openapi`] describes it all.

mod anomalies;
mod approval_page;
mod approvals;
mod audit;
mod audit_export;
pub mod body;
mod budgets;
pub mod caller;
mod compliance;

pub mod edge;
mod elsewhere;
pub mod error;
mod health;
mod keys;
mod ledger;
pub mod openapi;
mod past;
mod payments;
mod policies;
mod policy_body;
mod proofs;
pub mod proxy;
pub mod query;
mod retry;
pub mod routes;
mod secrets;
pub mod server;
mod sessions;
mod stream;
mod usage;
mod vault;
mod webhooks;
