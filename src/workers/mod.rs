//! What is done on a timer, while nobody asks.
//!
//! [`scrub`] verifies every stream over and over; [`checkpoints`] signs their roots. [`control`] waits for the operator.

pub mod checkpoints;
pub mod control;
pub mod scrub;
