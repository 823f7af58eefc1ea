//! The one way out: every request that Haldir sends to others goes through here.
//!
//! [`guard`] says which URLs and addresses may be asked at all, [`names`] turns hosts into addresses and lets only those
//! through, and [`client`] asks: no redirects, no proxy, nothing without a limit of time and size ([`exchange`] leaves these
//! two to callers who read an answer as it comes). A connection is made to
//! the very addresses that were checked, so a name that points elsewhere a moment later gains nothing. [`mail`] hands letters
//! to the mail server that the operator configured.

pub mod client;
pub mod exchange;
pub mod guard;
pub mod mail;
pub mod names;
