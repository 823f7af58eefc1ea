//! What is done on a timer, while nobody asks.
//!
//! [`scrub`] verifies every stream over and over; [`checkpoints`] signs their roots; [`deliveries`] tells webhooks;
//! [`schedules`] sends evidence packs; [`upstreams`] looks at the tools of upstreams; [`expiry`] records what nobody settled or decided in time. [`control`] waits for the
//! operator.

pub mod checkpoints;
pub mod control;
pub mod deliveries;
pub mod expiry;
pub mod schedules;
pub mod scrub;
pub mod upstreams;
