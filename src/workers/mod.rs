//! What is done on a timer, while nobody asks.
//!
//! [`scrub`] verifies every stream over and over; [`checkpoints`] signs their roots; [`schedules`] sends evidence packs.
//! [`control`] waits for the operator.

pub mod checkpoints;
pub mod control;
pub mod schedules;
pub mod scrub;
