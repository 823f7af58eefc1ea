//! Whether the service can do its work.

use serde::Serialize;
use utoipa::ToSchema;

use super::App;

/// One thing that must be right.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    /// `database`, `migrations` or `encryption_key`, the names that clients know.
    pub name: &'static str,
    /// Whether it is right.
    pub ok: bool,
    /// More about it.
    pub message: String,
    /// How long the check took.
    pub duration_ms: u64,
}

/// Whether the service is ready.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether everything is right.
    pub ready: bool,
    /// Always `haldir`.
    pub service: &'static str,
    /// Seconds since the epoch.
    pub checked_at: u64,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// Checks whether the ledger takes writes and the views follow it.
#[must_use]
pub fn readiness(app: &App) -> Readiness {
    let check = |name, failure: Option<String>, fine: String| Check {
        name,
        ok: failure.is_none(),
        message: failure.unwrap_or(fine),
        duration_ms: 0,
    };
    let ledger = app.ledger.health().failure().map(|why| format!("writes stopped, restart needed: {why}"));
    let ledger = ledger.or_else(|| app.scrubbed.failure());
    let views = app.views.failure().map(|why| format!("the audit view stopped: {why}"));
    let checks = vec![
        check("database", ledger, "the ledger takes writes".to_owned()),
        check("migrations", views, "ledger format 1; views follow the ledger".to_owned()),
        check(
            "encryption_key",
            None,
            format!("configured: entries are signed by {}", app.ledger.public_key().id()),
        ),
    ];
    Readiness {
        ready: checks.iter().all(|check| check.ok),
        service: "haldir",
        checked_at: app.ledger.clock().now().seconds(),
        checks,
    }
}
