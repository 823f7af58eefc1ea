//! How often a schedule runs, where its packs go, and what becomes of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How often a schedule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cadence {
    /// Every day.
    Daily,
    /// Every 7 days.
    Weekly,
    /// Every 30 days.
    Monthly,
    /// Every 90 days.
    Quarterly,
}

impl Cadence {
    /// Every cadence there is.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Weekly, Self::Monthly, Self::Quarterly];

    /// The cadence's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Quarterly => "quarterly",
        }
    }

    /// The cadence with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cadence| cadence.name() == name)
    }

    /// Seconds from one run to the next.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        const DAY_S: u64 = 86_400;
        match self {
            Self::Daily => DAY_S,
            Self::Weekly => 7 * DAY_S,
            Self::Monthly => 30 * DAY_S,
            Self::Quarterly => 90 * DAY_S,
        }
    }
}

/// Where packs go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// To the webhook that this names, by id, name or URL; `all` is every webhook that wants the event.
    Webhook(String),
    /// To this address.
    Email(String),
}

impl Delivery {
    /// Reads `webhook:<target>` or `email:<address>`. An address has one `@`, a dot in what follows it, and no space.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let delivery = Self::read(text)?;
        let is_possible = match &delivery {
            Self::Webhook(target) => !target.trim().is_empty(),
            Self::Email(address) => is_address(address),
        };
        is_possible.then_some(delivery)
    }

    /// Reads what was accepted once: anything after `webhook:` or `email:`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let webhook = text.strip_prefix("webhook:").map(|target| Self::Webhook(target.to_owned()));
        webhook.or_else(|| text.strip_prefix("email:").map(|address| Self::Email(address.to_owned())))
    }
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    !local.is_empty()
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
        && !domain.contains('@')
        && !text.contains(|it: char| it.is_whitespace() || it.is_control())
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(target) => write!(f, "webhook:{target}"),
            Self::Email(address) => write!(f, "email:{address}"),
        }
    }
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunOutcome {
    /// The pack is on its way to a webhook.
    Fired,
    /// A mail server took the pack.
    Sent,
    /// No pack could be built.
    BuildFailed,
    /// No webhook is named like the schedule's target.
    NoDispatcher,
    /// No mail server is configured.
    SmtpUnconfigured,
    /// The mail server did not take the pack.
    SmtpFailed,
}

impl RunOutcome {
    /// The outcome's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Sent => "sent",
            Self::BuildFailed => "build_failed",
            Self::NoDispatcher => "no_dispatcher",
            Self::SmtpUnconfigured => "smtp_unconfigured",
            Self::SmtpFailed => "smtp_failed",
        }
    }

    /// Whether the pack got where it should. A run that failed is tried again.
    #[must_use]
    pub const fn is_delivered(self) -> bool {
        match self {
            Self::Fired | Self::Sent => true,
            Self::BuildFailed | Self::NoDispatcher | Self::SmtpUnconfigured | Self::SmtpFailed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_delivered_to_is_told_from_what_cannot() {
        for text in ["webhook:all", "webhook:https://a.b/c?d=e:f", "webhook:7", "email:a.b+c@d.e"] {
            assert_eq!(Delivery::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "webhook",
            "webhook:",
            "webhook: ",
            "Webhook:a",
            "sms:1",
            "email:",
            "email:a",
            "email:a@b",
            "email:@b.c",
            "email:a@b.",
            "email:a@.c",
            "email:a@b@c.d",
            "email:a b@c.d",
            "email:a@b.c\r\nBcc:x",
        ] {
            assert_eq!(Delivery::parse(text), None, "{text}");
        }
    }
}
