//! Haldir.
pub mod cli;
pub mod config;
pub mod domain;
pub mod format;
pub mod http;
pub mod ledger;
pub mod operations;
pub mod store;
pub mod telemetry;
pub mod views;
