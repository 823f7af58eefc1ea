//! How far upstreams are trusted.

use std::time::Duration;

/// How long a connection over HTTP may take until the upstream has said who it is. The contract's limit for discovery.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a child process, which may have to fetch itself first.
pub(super) const CHILD_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a list of tools may take. The contract's limit for discovery.
pub(super) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(15);
/// Tools of one upstream. More than that helps no model.
pub const TOOL_COUNT_MAX: usize = 256;
/// Bytes of one tool's definition, as JSON.
pub const TOOL_LEN_MAX: usize = 64 << 10;
/// Prompts, resources or templates of one upstream that are listed.
pub const ITEM_COUNT_MAX: usize = 4096;
/// Pages of one list.
pub(super) const PAGE_COUNT_MAX: usize = 64;
/// Requests that may wait for one upstream on one connection. More would only queue behind a hanging one.
pub(super) const WAITING_COUNT_MAX: usize = 256;
/// Notifications and requests of an upstream that wait for whoever stands behind a call.
pub(super) const HEARD_COUNT_MAX: usize = 64;
/// Connections of all tenants together.
pub(super) const LINE_COUNT_MAX: usize = 4096;
/// How often idle connections are looked for.
pub(super) const IDLE_TICK: Duration = Duration::from_secs(30);
/// Ticks after which an idle connection is closed: ten minutes.
pub(super) const IDLE_TICKS_MAX: u32 = 20;
/// The same for a connection that somebody stands behind, who may wait for notifications: one hour.
pub(super) const IDLE_TICKS_MAX_EXCLUSIVE: u32 = 120;
/// How long whoever stands behind a call may take to take a notification.
pub(super) const RELAY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a child process may take to end after its input was closed, before it is told to.
pub(super) const CHILD_GRACE: Duration = Duration::from_secs(2);
/// How long it may take to end after it was told to, before it is killed.
pub(super) const CHILD_TERM_GRACE: Duration = Duration::from_secs(1);
/// Bytes of a line that a child process writes to its standard error, as far as it is logged.
pub(super) const STDERR_LINE_LEN_MAX: u64 = 4096;

/// What the operator decides about upstreams.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Commands that may be started: paths, or names that are looked for in the path. None without.
    pub commands: Vec<String>,
    /// How long a call may take without any sign of progress.
    pub call_timeout: Duration,
    /// How long a call may take with progress.
    pub call_timeout_max: Duration,
    /// Bytes of one message of an upstream.
    pub answer_len_max: usize,
    /// Child processes at once.
    pub child_count_max: usize,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            commands: Vec::new(),
            call_timeout: Duration::from_secs(30),
            call_timeout_max: Duration::from_secs(600),
            answer_len_max: 16 << 20,
            child_count_max: 64,
        }
    }
}
