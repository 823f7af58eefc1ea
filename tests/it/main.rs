//! One binary; modules by the question they ask.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod audit_export;
mod bytes;
mod crash;
mod document;
mod faults;
mod ocsf;
mod power;
mod proofs;
mod routes;
mod samples;
mod server;
mod stores;
mod tidy;
mod writing;
