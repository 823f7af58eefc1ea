//! Talks to upstream MCP servers, and knows nothing of sessions, policies and the ledger.
//!
//! [`upstreams`] keeps the connections and makes them when they are needed; a [`connection`] carries calls. Both generations
//! of the protocol are spoken, and the plain JSON-RPC of servers that know neither (`plain`). An upstream is not trusted:
//! what it sends is bounded in size and time before anybody looks at it, it is reached through the guard of
//! [`outbound`](crate::outbound) or as a child process whose command is on a list (`children`), and what it asks on its own
//! goes to whoever stands behind the call that it belongs to ([`relay`]), or is refused.
//!
//! Connections live on threads of their own (`threads`), so that an upstream that sends much does not slow the server down.

pub mod address;
pub mod connection;
pub mod definitions;
pub mod failure;
pub mod hub;
pub mod relay;
pub mod settings;
pub mod subscriptions;
pub mod upstreams;

mod children;
mod ears;
mod establish;
mod events;
mod http;
mod inbound;
mod plain;
mod tap;
mod threads;
mod voice;
