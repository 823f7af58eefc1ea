//! What a session may do, and what an API key may do. Two small languages.
//!
//! *Session scopes* are words of the tenant's choice, narrowed by `:`: `stripe` grants all of stripe, and
//! `stripe:refund` that alone. `spend:<number>` is different: it means the scope `spend` with that number as the
//! session's budget.
//!
//! *Key scopes* are `*` or `<resource>:<action>` from a fixed vocabulary.

use serde::{Deserialize, Serialize};

use super::limits::{KEY_SCOPE_COUNT_MAX, SCOPE_CHARS_MAX, SESSION_SCOPE_COUNT_MAX};
use super::money::{Money, MoneyError};

/// The session scope that grants every other.
const ADMIN: &str = "admin";
/// The session scope that payments need.
pub const SPEND: &str = "spend";

/// What a new session gets: its scopes and its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Scopes in the order asked for, duplicates kept.
    pub scopes: Vec<String>,
    /// The most that may be spent; `None` is no cap.
    pub cap: Option<Money>,
}

/// Why a list of session scopes cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// An empty word, or one with control characters.
    #[error("a scope must be a non-empty word without control characters")]
    NotAWord,
    /// A word that is too long.
    #[error("a scope has at most {SCOPE_CHARS_MAX} characters")]
    TooLong,
    /// Too many words.
    #[error("at most {SESSION_SCOPE_COUNT_MAX} scopes can be granted")]
    TooMany,
    /// `spend:` with a number that is not an amount.
    #[error("spend limit in the scope: {0}")]
    SpendLimit(MoneyError),
}

/// Turns requested scopes and an explicit limit into what is granted.
///
/// An explicit limit wins over `spend:<number>`; of several of those the last counts.
///
/// # Errors
///
/// [`ScopeError`] for the first word that cannot be granted.
pub fn resolve(requested: &[String], explicit_cap: Option<Money>) -> Result<Grant, ScopeError> {
    if requested.len() > SESSION_SCOPE_COUNT_MAX {
        return Err(ScopeError::TooMany);
    }
    let mut cap_in_scopes = None;
    let mut scopes = Vec::with_capacity(requested.len());
    for scope in requested {
        if scope.is_empty() || scope.chars().any(char::is_control) {
            return Err(ScopeError::NotAWord);
        }
        if scope.chars().count() > SCOPE_CHARS_MAX {
            return Err(ScopeError::TooLong);
        }
        match spend_limit_in(scope)? {
            Some(cap) => {
                cap_in_scopes = Some(cap);
                scopes.push(SPEND.to_owned());
            }
            None => scopes.push(scope.clone()),
        }
    }
    Ok(Grant { scopes, cap: explicit_cap.or(cap_in_scopes) })
}

/// The amount in `spend:<number>`; `None` when the scope is of another form.
fn spend_limit_in(scope: &str) -> Result<Option<Money>, ScopeError> {
    let Some(qualifier) = scope.strip_prefix("spend:") else {
        return Ok(None);
    };
    match Money::parse(qualifier) {
        Ok(cap) => Ok(Some(cap)),
        // A word such as `spend:refunds` narrows like any other; a number-like word must be a real amount.
        Err(MoneyError::NotANumber) if !is_number_like(qualifier) => Ok(None),
        Err(error) => Err(ScopeError::SpendLimit(error)),
    }
}

fn is_number_like(text: &str) -> bool {
    let unsigned = text.trim().trim_start_matches(['-', '+']).to_ascii_lowercase();
    unsigned.is_empty()
        || unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        || matches!(unsigned.as_str(), "nan" | "inf" | "infinity")
}

/// Whether a session that holds `held` may do `requested`.
///
/// `admin` grants everything; any other scope grants itself and whatever narrows it (`stripe` grants
/// `stripe:refund`, and `stripe:refund` grants `stripe:refund:partial` but not `stripe:charge`).
#[must_use]
pub fn grants(held: &[String], requested: &str) -> bool {
    held.iter().any(|scope| scope == ADMIN || narrows(requested, scope))
}

fn narrows(requested: &str, held: &str) -> bool {
    requested.strip_prefix(held).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// The scopes of an API key, sorted and without duplicates. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyScopes(Vec<String>);

/// What an API key's scopes may speak about.
const RESOURCES: [&str; 8] =
    ["sessions", "vault", "audit", "payments", "webhooks", "proxy", "approvals", "admin"];
const WILDCARD: &str = "*";

impl KeyScopes {
    /// The scopes that may do everything.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![WILDCARD.to_owned()])
    }

    /// Checks a list against the vocabulary.
    ///
    /// # Errors
    ///
    /// A sentence that names the first item that is not in the vocabulary.
    pub fn parse(items: &[String]) -> Result<Self, String> {
        let mut scopes = items.to_vec();
        scopes.sort();
        scopes.dedup();
        if scopes.is_empty() {
            return Err("scopes must name at least one scope".to_owned());
        }
        if scopes.len() > KEY_SCOPE_COUNT_MAX {
            return Err(format!("a key holds at most {KEY_SCOPE_COUNT_MAX} scopes"));
        }
        match items.iter().find(|item| !in_vocabulary(item)) {
            Some(item) => Err(format!(
                "unknown scope {:?}: expected '*' or '<resource>:<action>' with resource one of {} and action \
                 read, write or *",
                shortened(item),
                RESOURCES.join(", "),
            )),
            None => Ok(Self(scopes)),
        }
    }

    /// The scopes as text, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether a key with these scopes may do `required`, itself a scope such as `audit:read`.
    ///
    /// `*` grants all, `r:*` grants all of r, and `r:write` implies `r:read`. Nothing else implies anything.
    #[must_use]
    pub fn grants(&self, required: &str) -> bool {
        let (resource, action) = required.split_once(':').unwrap_or((required, ""));
        self.0.iter().any(|held| {
            held == WILDCARD
                || held == required
                || held.split_once(':').is_some_and(|(held_resource, held_action)| {
                    held_resource == resource
                        && (held_action == WILDCARD || (held_action == "write" && action == "read"))
                })
        })
    }

    /// Whether these scopes cover all of `others`, so that a key with these may mint one with those.
    #[must_use]
    pub fn covers(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.grants(other))
    }
}

fn in_vocabulary(item: &str) -> bool {
    if item == WILDCARD || item == "vault:rotate" {
        return true;
    }
    item.split_once(':').is_some_and(|(resource, action)| {
        RESOURCES.contains(&resource) && matches!(action, "read" | "write" | WILDCARD)
    })
}

/// The start of a text that a caller sent, short enough to repeat in an error.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|&word| word.to_owned()).collect()
    }

    fn usd(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    #[test]
    fn spend_with_a_number_is_a_budget_and_other_qualifiers_narrow() {
        let grant = resolve(&words(&["read", "spend:50", "stripe:refund"]), None).unwrap();
        assert_eq!(grant, Grant { scopes: words(&["read", "spend", "stripe:refund"]), cap: Some(usd("50")) });
        let grant = resolve(&words(&["spend:1", "spend:2"]), None).unwrap();
        assert_eq!(grant.cap, Some(usd("2")), "the last one counts");
        let grant = resolve(&words(&["spend:1"]), Some(usd("7"))).unwrap();
        assert_eq!(grant.cap, Some(usd("7")), "an explicit limit wins");
        let grant = resolve(&words(&["spend:refunds"]), None).unwrap();
        assert_eq!(grant, Grant { scopes: words(&["spend:refunds"]), cap: None });
    }

    #[test]
    fn numbers_that_are_no_amounts_are_not_granted() {
        for scope in [
            "spend:nan",
            "spend:-inf",
            "spend:Infinity",
            "spend:-5",
            "spend:1e400",
            "spend:",
            "spend:5:x",
            "spend:0.0000000001",
            "",
            "a\nb",
        ] {
            assert!(resolve(&words(&[scope]), None).is_err(), "{scope}");
        }
        assert!(resolve(&words(&["a"; SESSION_SCOPE_COUNT_MAX + 1]), None).is_err());
    }

    #[test]
    fn a_scope_grants_itself_and_what_narrows_it() {
        for (held, requested, granted) in [
            ("stripe", "stripe:refund", true),
            ("stripe:refund", "stripe:refund", true),
            ("stripe:refund", "stripe:refund:partial", true),
            ("stripe:refund", "stripe:charge", false),
            ("stripe:refund", "stripe", false),
            ("stripe", "stripes", false),
            ("admin", "anything:at:all", true),
            ("admin:x", "read", false),
            ("*", "read", false),
            ("write", "read", false),
            ("Read", "read", false),
        ] {
            assert_eq!(grants(&words(&[held]), requested), granted, "{held} grants {requested}");
        }
    }

    #[test]
    fn keys_imply_only_what_the_contract_says() {
        for (held, required, granted) in [
            ("*", "admin:write", true),
            ("audit:write", "audit:read", true),
            ("audit:read", "audit:write", false),
            ("audit:*", "audit:write", true),
            ("audit:*", "audit:*", true),
            ("audit:write", "audit:*", false),
            ("admin:*", "*", false),
            ("vault:*", "vault:rotate", true),
            ("vault:write", "vault:rotate", false),
        ] {
            let scopes = KeyScopes::parse(&words(&[held])).unwrap();
            assert_eq!(scopes.grants(required), granted, "{held} grants {required}");
        }
    }

    #[test]
    fn words_outside_the_vocabulary_are_named() {
        for item in ["audit", "audit:read:x", "audits:read", "audit:delete", ""] {
            let error = KeyScopes::parse(&words(&["*", item])).unwrap_err();
            assert!(error.contains(&format!("{item:?}")), "{error}");
        }
        assert!(KeyScopes::parse(&[]).is_err());
        assert_eq!(
            KeyScopes::parse(&words(&["vault:read", "*", "*"])).unwrap().as_slice(),
            ["*", "vault:read"]
        );
    }
}
