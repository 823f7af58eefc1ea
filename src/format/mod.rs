//! The ledger's bytes. `ledger-format.md` is normative; this module is its implementation and knows no clock, disk,
//! network or log.
//!
//! [`chain`] hashes and signs, [`entry`] lays out the header, [`v1`] and [`v2`] the payloads, [`merkle`] the tree over all
//! entries, [`verify`] is the oracle that checks a whole stream, [`manifest`] is what a key signs of an export, and
//! [`certificate`] what a root key says of a signing key.
//!
//! For whoever holds less than the whole stream: [`proof`] makes and checks proofs over the tree, [`checkpoint`] signs
//! its size and root, [`proof_file`] puts an entry, its proof and a checkpoint into one text, and [`tiles`] cuts tree
//! and entries into files.

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
pub mod manifest;
pub mod merkle;
mod payload;
pub mod proof;
pub mod proof_file;
pub mod tiles;
pub mod v1;
pub mod v2;
pub mod verify;
