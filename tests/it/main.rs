//! One binary; modules by the question they ask.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod anomalies;
mod attacks;
mod audit_export;
mod between;
mod bytes;
mod checkpoints;
mod compliance;
mod crash;
mod custody;
mod decisions;
mod document;
mod faults;
mod full;
mod ocsf;
mod outbound;
mod past;
mod power;
mod proofs;
mod recovery;
mod routes;
mod samples;
mod scrub;
mod server;
mod stores;
mod tidy;
mod upstreams;
mod writing;
