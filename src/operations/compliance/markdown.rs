//! A pack as a document for people. See contract section 15.3.

use std::fmt::Write as _;

use super::numbers::grouped;
use super::sections::Control;
use super::{DISCLAIMER, Evidence};

/// Writes the document.
#[must_use]
pub fn document(pack: &Evidence) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# Haldir Audit-Prep Evidence Pack\n\n> {DISCLAIMER}\n\n**Tenant:** `{}`  \n**Period:** {} → {}  \n\
         **Generated:** {}  \n**Format version:** {}\n\n---",
        pack.tenant_id, pack.period_start, pack.period_end, pack.generated_at, pack.format_version
    );
    identity(&mut text, pack);
    access_control(&mut text, pack);
    encryption(&mut text, pack);
    audit_trail(&mut text, pack);
    spend_governance(&mut text, pack);
    approvals(&mut text, pack);
    webhooks(&mut text, pack);
    signature(&mut text, pack);
    text
}

fn heading(text: &mut String, title: &str, control: &Control) {
    let _ =
        writeln!(text, "\n## {title} · relevant to SOC2 {}\n\n*{}*\n", control.criterion, control.evidence);
}

fn bullet(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "- {name}: {value}");
}

const fn yes_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn identity(text: &mut String, pack: &Evidence) {
    let _ = writeln!(text, "\n## 1. Identity\n");
    let identity = &pack.identity;
    bullet(text, "Tenant", format_args!("`{}`", identity.tenant_id));
    bullet(text, "Plan", format_args!("{} ({})", identity.subscription.tier, identity.subscription.status));
    bullet(text, "Length of the period", format_args!("{} days", identity.period_days.grouped()));
}

fn access_control(text: &mut String, pack: &Evidence) {
    heading(text, "2. Access control", &pack.controls.access_control);
    let section = &pack.access_control;
    bullet(text, "Keys ever minted", grouped(section.key_count));
    bullet(text, "Some key is scoped", yes_no(section.has_scoped_keys));
    bullet(text, "An active key is scoped", yes_no(section.least_privilege_used));
    if section.keys.is_empty() {
        return;
    }
    text.push_str("\n| prefix | name | tier | scopes | last used | revoked |\n|---|---|---|---|---|---|\n");
    for key in &section.keys {
        let last_used = key.last_used.as_deref().unwrap_or("never");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {last_used} | {} |",
            cell(&key.prefix),
            cell(&key.name),
            key.tier,
            cell(&key.scopes.join(", ")),
            yes_no(key.revoked),
        );
    }
}

/// A text as it can stand in a cell of a table without becoming anything else.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '!' | '#' | '~' | '&' => {
                cell.push('\\');
                cell.push(character);
            }
            it if it.is_control() || matches!(it, '\u{2028}' | '\u{2029}') => cell.push(' '),
            it => cell.push(it),
        }
    }
    cell
}

fn encryption(text: &mut String, pack: &Evidence) {
    heading(text, "3. Encryption", &pack.controls.encryption);
    let section = &pack.encryption;
    bullet(text, "Cipher", section.cipher);
    bullet(
        text,
        "Key, nonce and tag",
        format_args!(
            "{}, {} and {} bits",
            section.key_size_bits, section.nonce_size_bits, section.tag_size_bits
        ),
    );
    bullet(text, "Bound to", section.aad_binding);
    bullet(text, "Secrets kept", grouped(section.secrets_count));
    bullet(text, "Master key configured", yes_no(section.key_configured));
    bullet(text, "Rotation", section.rotation_policy);
    bullet(text, "A ciphertext opens elsewhere", yes_no(section.ciphertext_portable));
}

fn audit_trail(text: &mut String, pack: &Evidence) {
    heading(text, "4. Audit trail", &pack.controls.audit_trail);
    let section = &pack.audit_trail;
    let or_none = |moment: &Option<String>| moment.clone().unwrap_or_else(|| "nothing yet".to_owned());
    bullet(text, "Actions in the period", grouped(section.total_entries_in_period));
    bullet(text, "Flagged in the period", grouped(section.flagged_in_period));
    bullet(text, "First recorded", or_none(&section.first_recorded));
    bullet(text, "Last recorded", or_none(&section.last_recorded));
    bullet(text, "Chain", section.chain_algorithm);
    let chain = if section.chain_verified { "verified" } else { "**FAILED VERIFICATION**" };
    bullet(text, "Chain status", chain);
    if !section.current_chain_hash.is_empty() {
        bullet(text, "Last action's hash", format_args!("`{}`", section.current_chain_hash));
    }
    let ledger = &pack.ledger;
    bullet(
        text,
        "This pack stands on",
        format_args!("{} ledger entries, the last with hash `{}`", grouped(ledger.size), ledger.head),
    );
    bullet(text, "Ledger entries in the period", grouped(ledger.entries_in_period));
    let head = &pack.tamper_evidence;
    text.push_str("\n**Signed Tree Head (RFC 6962 Merkle)**\n\n");
    bullet(text, "Algorithm", format_args!("{}, {}", head.algorithm, head.signature_algorithm));
    bullet(text, "Tree size", grouped(head.tree_size));
    bullet(text, "Root", format_args!("`{}`", head.root_hash));
    bullet(text, "Signed at", head.signed_at);
    bullet(text, "Signature", format_args!("`{}…`", head.signature.get(..32).unwrap_or(&head.signature)));
    bullet(text, "Key", format_args!("`{}`", head.key_id));
}

fn spend_governance(text: &mut String, pack: &Evidence) {
    heading(text, "5. Spend governance", &pack.controls.spend_governance);
    let section = &pack.spend_governance;
    bullet(
        text,
        "Cost of the period's actions",
        format_args!(
            "${} (exactly {})",
            section.total_spend_usd_in_period.grouped(),
            section.total_spend_usd_in_period_exact
        ),
    );
    bullet(
        text,
        "Sessions with a limit",
        format_args!(
            "{} of {} ({})",
            grouped(section.sessions_with_spend_caps),
            grouped(section.sessions_total),
            section.pct_sessions_capped.percent()
        ),
    );
    bullet(
        text,
        "Payments authorised",
        format_args!(
            "{}, together ${} (exactly {})",
            grouped(section.payment_authorizations_count),
            section.payment_authorizations_usd.grouped(),
            section.payment_authorizations_usd_exact
        ),
    );
}

fn approvals(text: &mut String, pack: &Evidence) {
    heading(text, "6. Human approvals", &pack.controls.approvals);
    let section = &pack.approvals;
    bullet(text, "Requests in the period", grouped(section.requests_in_period));
    let statuses = &section.by_status;
    bullet(text, "Pending", grouped(statuses.pending));
    bullet(text, "Approved", grouped(statuses.approved));
    bullet(text, "Denied", grouped(statuses.denied));
    bullet(text, "Expired", grouped(statuses.expired));
    bullet(text, "Decisions recorded", grouped(section.decisions_recorded));
}

fn webhooks(text: &mut String, pack: &Evidence) {
    heading(text, "7. Outbound alerting", &pack.controls.webhooks);
    let section = &pack.webhooks;
    bullet(text, "Registered endpoints", grouped(section.registered_endpoints));
    bullet(
        text,
        "Deliveries in the period",
        format_args!(
            "{}, {} successful ({})",
            grouped(section.deliveries_in_period),
            grouped(section.successful_deliveries),
            section.delivery_success_rate.percent()
        ),
    );
    bullet(
        text,
        "Payloads signed",
        format_args!("{} ({})", yes_no(section.signed_payloads), section.signature_algorithm),
    );
    bullet(text, "Replay protection", format_args!("{} seconds", section.replay_protection_window_s));
}

fn signature(text: &mut String, pack: &Evidence) {
    let signatures = &pack.signatures;
    let _ = writeln!(
        text,
        "\n## 8. Document signature\n\n{} over {}:\n\n```\n{}\n```\n\nThe checkpoint of the ledger entries that it stands on:\n\n```\n{}```",
        signatures.algorithm, signatures.input, signatures.digest, signatures.checkpoint
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        assert_eq!(cell("a|b\n## c <script> `x`"), "a\\|b \\#\\# c \\<script\\> \\`x\\`");
        assert_eq!(cell("größe 1"), "größe 1");
    }
}
