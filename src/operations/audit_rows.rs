//! The rows of an audit export: one action as a line of JSON or as a record of CSV. Pure.

use serde::Serialize;
use serde_json::value::RawValue;

use super::OperationError;
use super::audit::TrailEntry;
use super::wire::{Epoch, Usd, without_line_ends};
use crate::domain::id::TenantId;
use crate::domain::money::Money;

/// The first record of a CSV export. Readers rely on the order of the columns.
pub const CSV_HEADER: &str = "entry_id,timestamp,timestamp_iso,tenant_id,session_id,agent_id,tool,action,cost_usd,\
                              flagged,flag_reason,details_json,prev_hash,entry_hash\n";

/// A row of a JSONL export. Its keys stand in this order.
#[derive(Serialize)]
struct JsonRow<'entry> {
    entry_id: &'entry str,
    timestamp: Epoch,
    tenant_id: &'entry str,
    session_id: &'entry str,
    agent_id: &'entry str,
    tool: &'entry str,
    action: &'entry str,
    cost_usd: Usd,
    flagged: bool,
    flag_reason: &'entry str,
    details: Box<RawValue>,
    prev_hash: &'entry str,
    entry_hash: &'entry str,
}

/// An action as one line of compact JSON, its line end included.
///
/// # Errors
///
/// [`OperationError::Internal`] when the details are not JSON; what was recorded is.
pub fn json_line(tenant: &TenantId, entry: &TrailEntry) -> Result<String, OperationError> {
    let internal = |error: serde_json::Error| OperationError::Internal(error.to_string());
    let row = JsonRow {
        entry_id: &entry.entry_id,
        timestamp: entry.timestamp,
        tenant_id: tenant.as_str(),
        session_id: &entry.session_id,
        agent_id: &entry.agent_id,
        tool: &entry.tool,
        action: &entry.action,
        cost_usd: entry.cost_usd,
        flagged: entry.flagged,
        flag_reason: &entry.flag_reason,
        details: RawValue::from_string(compact(entry.details.get())).map_err(internal)?,
        prev_hash: &entry.prev_hash,
        entry_hash: &entry.entry_hash,
    };
    let line = serde_json::to_string(&row).map_err(internal)?;
    Ok(without_line_ends(line) + "\n")
}

/// An action as one record of CSV (RFC 4180, but LF at its end).
#[must_use]
pub fn csv_record(tenant: &TenantId, entry: &TrailEntry) -> String {
    let micros = entry.timestamp.0.micros();
    let cells = [
        entry.entry_id.clone(),
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000),
        entry.timestamp.0.to_string(),
        tenant.to_string(),
        entry.session_id.clone(),
        entry.agent_id.clone(),
        entry.tool.clone(),
        entry.action.clone(),
        two_places(entry.cost_usd.0),
        entry.flagged.to_string(),
        entry.flag_reason.clone(),
        compact(entry.details.get()),
        entry.prev_hash.clone(),
        entry.entry_hash.clone(),
    ];
    cells.map(quoted).join(",") + "\n"
}

/// JSON without the spaces between its parts. Keys keep their order, and numbers their digits.
fn compact(json: &str) -> String {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let is_kept = |character: &char| {
        if !is_in_string {
            is_in_string = *character == '"';
            return !character.is_ascii_whitespace();
        }
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_in_string = false,
            _ => {}
        }
        true
    };
    json.chars().filter(is_kept).collect()
}

/// The exact amount with at least two decimal places.
fn two_places(amount: Money) -> String {
    let exact = amount.to_string();
    let places = exact.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if places < 2 { exact + "0" } else { exact }
}

/// A cell, between quotes if it needs them.
fn quoted(cell: String) -> String {
    if cell.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn entry(action: &str, cost: &str, details: &str) -> TrailEntry {
        TrailEntry {
            entry_id: "aud_1".to_owned(),
            session_id: "ses_1".to_owned(),
            agent_id: "agent".to_owned(),
            tool: String::new(),
            action: action.to_owned(),
            cost_usd: Usd(Money::parse(cost).unwrap()),
            flagged: true,
            flag_reason: "odd, \"very\"".to_owned(),
            timestamp: Epoch(Timestamp::from_micros(1_700_000_000_250_000)),
            details: RawValue::from_string(details.to_owned()).unwrap(),
            prev_hash: String::new(),
            entry_hash: "ab".to_owned(),
            seq: 3,
        }
    }

    fn tenant() -> TenantId {
        TenantId::parse("t").unwrap()
    }

    #[test]
    fn a_line_of_json_has_its_keys_in_order_and_one_end() {
        let details = "{ \"b\" : [ 1 ,\n 1e400 ],\r\t\"a \\\" \\\\\" : \" x \" }";
        let line = json_line(&tenant(), &entry("a\nb\u{2028}\u{2029}\u{85}é", "0.1", details)).unwrap();
        let expected = r#"{"entry_id":"aud_1","timestamp":1700000000.25,"tenant_id":"t","session_id":"ses_1","agent_id":"agent","tool":"","action":"a\nb\u2028\u2029\u0085é","cost_usd":0.1,"flagged":true,"flag_reason":"odd, \"very\"","details":{"b":[1,1e400],"a \" \\":" x "},"prev_hash":"","entry_hash":"ab"}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn a_record_of_csv_quotes_only_what_needs_it() {
        let record = csv_record(&tenant(), &entry("a,\"b\"\r\nc", "5", "{\"k\": \"v\"}"));
        let expected = "aud_1,1700000000.250000,2023-11-14T22:13:20.250000Z,t,ses_1,agent,,\"a,\"\"b\"\"\r\nc\",5.00,true,\
                        \"odd, \"\"very\"\"\",\"{\"\"k\"\":\"\"v\"\"}\",,ab\n";
        assert_eq!(record, expected);
        assert_eq!(CSV_HEADER.matches(',').count(), 13);
    }

    #[test]
    fn costs_are_never_rounded() {
        for (cost, text) in [("0", "0.00"), ("1.5", "1.50"), ("2.25", "2.25"), ("0.000000001", "0.000000001")]
        {
            assert_eq!(two_places(Money::parse(cost).unwrap()), text);
        }
    }
}
