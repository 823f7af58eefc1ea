//! What is done on a timer, while nobody asks.
//!
//! [`scrub`] verifies every stream over and over; [`checkpoints`] signs their roots.

pub mod checkpoints;
pub mod scrub;
