//! The whole state of a tenant at a moment: who may do what, and what was spent.

use serde::Serialize;
use utoipa::ToSchema;

use super::keys::KeyRow;
use super::past::Moment;
use super::sessions::SessionRow;
use crate::domain::sessions::Standing as SessionStanding;

/// Everything that is true of a tenant at a moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct State {
    /// Entries that it is folded from.
    pub size: u64,
    /// Hash of the last of them.
    pub head: String,
    /// The moment.
    pub at: String,
    /// API keys, newest first, revoked ones included.
    pub keys: Vec<KeyRow>,
    /// Sessions, newest first, ended ones included.
    pub sessions: Vec<StateSession>,
    /// Agents that hold a live session.
    pub live_agents: Vec<String>,
    /// Actions that were logged.
    pub actions_logged: u64,
    /// The key that signs the stream, hex, if it was ever rotated.
    pub signer: Option<String>,
    /// How often the stream was rebuilt after damage.
    pub repairs: u64,
}

/// A session, and how it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct StateSession {
    /// The session.
    #[serde(flatten)]
    pub session: SessionRow,
    /// `live`, `revoked` or `expired`.
    pub standing: &'static str,
}
