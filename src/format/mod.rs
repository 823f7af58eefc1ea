//! The ledger's bytes. `ledger-format.md` is normative; this module is its implementation and knows no clock, disk,
//! network or log.
//!
//! [`chain`] hashes and signs, [`entry`] lays out the header, [`v1`] the payloads, [`merkle`] the tree over all
//! entries, and [`verify`] is the oracle that checks a whole stream.

#![deny(
    clippy::float_arithmetic,
    clippy::wildcard_enum_match_arm,
    clippy::host_endian_bytes,
    clippy::iter_over_hash_type
)]

pub mod certificate;
pub mod chain;
pub mod checkpoint;
pub mod entry;
pub mod merkle;
pub mod proof;
pub mod proof_file;
pub mod tiles;
pub mod v1;
pub mod verify;
