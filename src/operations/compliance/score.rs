//! How ready a tenant is to show evidence: seven criteria, each passed, warned of or failed. See contract section 15.5.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::Period;
use super::numbers::Rounded;
use super::sections::Attempts;
use crate::domain::id::TenantId;
use crate::operations::past::Moment;
use crate::operations::verification::first_bad_seq;
use crate::operations::wire::Epoch;
use crate::operations::{App, OperationError, blocking};

/// Seconds that what should happen every day may lie back.
const DAY_S: u64 = 86_400;
/// The share of deliveries that must be answered well, in ten-thousandths.
const DELIVERY_RATE_MIN: u128 = 9_500;

/// How a tenant stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Score {
    /// From 0 to 100: a criterion that is passed counts whole, one that is warned of half.
    pub score: u64,
    /// All seven, in a fixed order.
    pub criteria: Vec<Criterion>,
    /// How many are passed.
    pub passing: u64,
    /// How many are warned of.
    pub warning: u64,
    /// How many are failed.
    pub failing: u64,
    /// How many there are.
    pub total: u64,
    /// When.
    pub computed_at: Epoch,
}

/// One criterion.
#[derive(Debug, Serialize, ToSchema)]
pub struct Criterion {
    /// Its name.
    pub key: &'static str,
    /// The criterion of SOC 2's trust services criteria that it speaks to.
    pub control: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// `pass`, `warn` or `fail`.
    pub state: State,
    /// Why.
    pub reason: String,
    /// What would help; empty when it is passed.
    pub remediation: &'static str,
}

/// How a criterion is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Pass,
    /// Not quite.
    Warn,
    /// It is not.
    Fail,
}

/// What the criteria are judged by.
#[derive(Debug, Clone)]
struct Facts {
    active_keys: u64,
    scoped_keys: u64,
    is_chain_sound: bool,
    actions: u64,
    actions_in_a_day: u64,
    entries: u64,
    webhooks: u64,
    attempts: Attempts,
    sessions: u64,
    capped_sessions: u64,
    anomaly_rules: u64,
    decided_approvals: u64,
}

/// Judges a tenant at a moment.
///
/// # Errors
///
/// [`OperationError::Busy`] when the views are behind, [`OperationError::Unavailable`] when the ledger cannot be read.
pub async fn score(app: &Arc<App>, tenant: &TenantId, moment: &Moment) -> Result<Score, OperationError> {
    let size = moment.stream.head.size;
    app.views.wait_for(tenant, size).await?;
    let (app, tenant, moment) = (Arc::clone(app), tenant.clone(), moment.clone());
    blocking(move || {
        let is_chain_sound = first_bad_seq(&app, &tenant)?.is_none_or(|seq| seq >= size);
        let until = moment.at.next();
        let period = Period { since: until.minus_seconds(DAY_S), until };
        let source = super::sections::Source { app: &app, tenant: &tenant, moment: &moment, period, size };
        let state = &moment.stream.tenant;
        let active_keys = state.keys.newest_first().into_iter().filter(|(_, key)| !key.is_revoked);
        let mut facts = Facts {
            active_keys: 0,
            scoped_keys: 0,
            is_chain_sound,
            actions: state.audit.logged,
            actions_in_a_day: source.actions_in_period()?,
            entries: size,
            webhooks: source.registered_endpoints(),
            attempts: source.attempts()?,
            sessions: 0,
            capped_sessions: 0,
            anomaly_rules: 0,
            decided_approvals: source.approvals_ever_decided(),
        };
        for (_, key) in active_keys {
            facts.active_keys += 1;
            facts.scoped_keys += u64::from(key.scopes.as_slice() != ["*"]);
        }
        for (_, session) in state.sessions.newest_first() {
            facts.sessions += 1;
            facts.capped_sessions += u64::from(session.budget.cap.is_some());
        }
        Ok(Score::of(facts.criteria(), Epoch(moment.at)))
    })
    .await
}

impl Score {
    fn of(criteria: Vec<Criterion>, computed_at: Epoch) -> Self {
        let count = |state| criteria.iter().filter(|criterion| criterion.state == state).count() as u64;
        let (passing, warning, failing) = (count(State::Pass), count(State::Warn), count(State::Fail));
        let total = criteria.len() as u64;
        // Rounded to the nearest: 100 (p + w/2) / n is (100 (2p + w) + n) / 2n, cut.
        let score = (100 * (2 * passing + warning) + total).checked_div(2 * total).unwrap_or(0);
        Self { score, criteria, passing, warning, failing, total, computed_at }
    }
}

impl Facts {
    fn criteria(&self) -> Vec<Criterion> {
        vec![
            self.access_control(),
            Criterion {
                key: "encryption",
                control: "CC6.7",
                description: "Secrets are encrypted with a key that survives a restart",
                state: State::Pass,
                reason: "the vault's master keys are kept, and secrets are sealed with AES-256-GCM-SIV"
                    .to_owned(),
                remediation: "",
            },
            self.audit_trail(),
            Criterion {
                key: "tamper_evidence",
                control: "CC7.2",
                description: "The log is a Merkle tree whose head is signed with a lasting key",
                state: if self.entries == 0 { State::Warn } else { State::Pass },
                reason: format!("{} entries under an Ed25519 tree head", self.entries),
                remediation: if self.entries == 0 { "record something" } else { "" },
            },
            self.alerting(),
            self.spend_governance(),
            self.approvals(),
        ]
    }

    fn access_control(&self) -> Criterion {
        let (state, reason, remediation) = if self.scoped_keys > 0 {
            (State::Pass, format!("{} of {} active keys are scoped", self.scoped_keys, self.active_keys), "")
        } else if self.active_keys > 0 {
            let reason = format!("all of the {} active keys may do everything", self.active_keys);
            (
                State::Warn,
                reason,
                "mint keys with the scopes that their users need: POST /v1/keys with scopes",
            )
        } else {
            (State::Fail, "no key is active".to_owned(), "mint a key: POST /v1/keys")
        };
        let description = "API keys hold only the scopes that they need";
        Criterion { key: "access_control", control: "CC6.1", description, state, reason, remediation }
    }

    fn audit_trail(&self) -> Criterion {
        let (state, reason, remediation) = if !self.is_chain_sound {
            (
                State::Fail,
                "the chain is not sound".to_owned(),
                "see GET /v1/audit/verify, and restore a backup",
            )
        } else if self.actions == 0 {
            (State::Fail, "nothing was ever logged".to_owned(), "log what agents do: POST /v1/audit")
        } else if self.actions_in_a_day == 0 {
            let reason = "the chain is sound, but nothing was logged for 24 hours".to_owned();
            (State::Warn, reason, "see whether agents still log what they do: POST /v1/audit")
        } else {
            (State::Pass, format!("the chain is sound; {} actions in 24 hours", self.actions_in_a_day), "")
        };
        let description = "Agents' actions are logged in a chain that verifies";
        Criterion { key: "audit_trail", control: "CC7.2", description, state, reason, remediation }
    }

    fn alerting(&self) -> Criterion {
        let Attempts { all, successful } = self.attempts;
        let rate = Rounded::ratio(successful, all);
        let (state, reason, remediation) = if self.webhooks == 0 {
            (State::Warn, "no webhook is registered".to_owned(), "register one: POST /v1/webhooks")
        } else if all == 0 {
            let reason = "nothing was delivered for 24 hours".to_owned();
            (State::Warn, reason, "see whether the webhooks want the events that happen")
        } else if rate.is_at_least(DELIVERY_RATE_MIN) {
            (State::Pass, format!("{} of {all} deliveries in 24 hours succeeded", rate.percent()), "")
        } else {
            let reason = format!("only {} of {all} deliveries in 24 hours succeeded", rate.percent());
            (State::Fail, reason, "see why they fail: GET /v1/webhooks/deliveries")
        };
        let description = "Somebody is told when something happens";
        Criterion { key: "alerting", control: "CC7.3", description, state, reason, remediation }
    }

    fn spend_governance(&self) -> Criterion {
        let (state, reason, remediation) = if self.capped_sessions > 0 {
            (State::Pass, format!("{} of {} sessions are capped", self.capped_sessions, self.sessions), "")
        } else if self.sessions == 0 {
            let reason = "no session was ever opened".to_owned();
            (State::Warn, reason, "open sessions with a limit: POST /v1/sessions with spend_limit")
        } else {
            let reason = format!("none of the {} sessions is capped", self.sessions);
            (State::Fail, reason, "open sessions with a limit: POST /v1/sessions with spend_limit")
        };
        let description = "Sessions may spend only so much";
        Criterion { key: "spend_governance", control: "CC5.2", description, state, reason, remediation }
    }

    fn approvals(&self) -> Criterion {
        let (rules, decided) = (self.anomaly_rules, self.decided_approvals);
        let (state, reason, remediation) = if rules > 0 || decided > 0 {
            (State::Pass, format!("{rules} anomaly rules, {decided} decided approvals"), "")
        } else {
            let reason = "no anomaly rule, and no approval was ever decided".to_owned();
            (State::Warn, reason, "say what needs a person: POST /v1/approvals/rules")
        };
        let description = "What is unusual is seen or decided by a person";
        Criterion { key: "approvals", control: "CC8.1", description, state, reason, remediation }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::time::Timestamp;

    use super::*;

    fn nothing() -> Facts {
        Facts {
            active_keys: 0,
            scoped_keys: 0,
            is_chain_sound: true,
            actions: 0,
            actions_in_a_day: 0,
            entries: 0,
            webhooks: 0,
            attempts: Attempts::default(),
            sessions: 0,
            capped_sessions: 0,
            anomaly_rules: 0,
            decided_approvals: 0,
        }
    }

    fn states(facts: &Facts) -> String {
        let letter = |criterion: &Criterion| match criterion.state {
            State::Pass => 'p',
            State::Warn => 'w',
            State::Fail => 'f',
        };
        facts.criteria().iter().map(letter).collect()
    }

    #[test]
    fn each_criterion_is_judged_by_its_own_facts() {
        let all = Facts {
            active_keys: 2,
            scoped_keys: 1,
            is_chain_sound: true,
            actions: 5,
            actions_in_a_day: 1,
            entries: 9,
            webhooks: 1,
            attempts: Attempts { all: 20, successful: 19 },
            sessions: 3,
            capped_sessions: 1,
            anomaly_rules: 0,
            decided_approvals: 1,
        };
        for (facts, expected) in [
            (nothing(), "fpfwwww"),
            (all.clone(), "ppppppp"),
            (Facts { scoped_keys: 0, ..all.clone() }, "wpppppp"),
            (Facts { is_chain_sound: false, ..all.clone() }, "ppfpppp"),
            (Facts { actions_in_a_day: 0, ..all.clone() }, "ppwpppp"),
            (Facts { attempts: Attempts { all: 20, successful: 18 }, ..all.clone() }, "ppppfpp"),
            (Facts { attempts: Attempts::default(), ..all.clone() }, "ppppwpp"),
            (Facts { capped_sessions: 0, ..all.clone() }, "pppppfp"),
            (Facts { decided_approvals: 0, anomaly_rules: 1, ..all.clone() }, "ppppppp"),
            (Facts { decided_approvals: 0, ..all }, "ppppppw"),
        ] {
            assert_eq!(states(&facts), expected);
            for criterion in facts.criteria() {
                assert_eq!(criterion.remediation.is_empty(), criterion.state == State::Pass, "{criterion:?}");
            }
        }
    }

    #[test]
    fn the_score_is_rounded_to_the_nearest() {
        let score = |facts: &Facts| Score::of(facts.criteria(), Epoch(Timestamp::default()));
        let worst = score(&nothing());
        assert_eq!((worst.passing, worst.warning, worst.failing, worst.total), (1, 4, 2, 7));
        assert_eq!(worst.score, 43, "100 · 3 / 7 = 42.86");
        assert_eq!(Score::of(Vec::new(), Epoch(Timestamp::default())).score, 0);
    }
}
