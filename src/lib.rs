//! Haldir.
pub mod domain;
pub mod format;
