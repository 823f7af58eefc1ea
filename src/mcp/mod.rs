//! The Model Context Protocol edge.
//!
//! [`bridge`] carries requests between the server's HTTP and the SDK, which speaks the protocol; [`access`] says from where
//! an endpoint may be called; [`message`] refuses what is no single, unambiguous JSON-RPC message.

pub mod access;
pub mod bridge;
pub mod message;
