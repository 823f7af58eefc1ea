//! The Model Context Protocol edge: tools, resources and prompts, each of which is a request to the REST edge.
//!
//! [`bridge`] carries requests between the server's HTTP and the SDK, which speaks the protocol; [`access`] says from where
//! an endpoint may be called; [`message`] refuses what is no single, unambiguous JSON-RPC message. [`catalogue`] is the table
//! of the tools; [`schema`] reads what they take and give from the description of the REST edge; [`arguments`] makes a call
//! into a request ([`rest`]). [`proxy`] is where clients reach upstreams.

pub mod access;
pub mod arguments;
pub mod bridge;
pub mod catalogue;
pub mod discovery;
pub mod inner;
pub mod message;
pub mod prompts;
pub mod proxy;
pub mod resources;
pub mod rest;
pub mod results;
pub mod routes;
pub mod schema;
pub mod server;
