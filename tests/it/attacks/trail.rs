//! Audit exports as the server writes them: rows, and the manifest that signs them.

use data_encoding::HEXLOWER;
use haldir::domain::Event;
use haldir::domain::id::TenantId;
use haldir::format::entry;
use haldir::operations::audit::TrailEntry;
use haldir::operations::audit_rows::{CSV_HEADER, csv_record, json_line};
use haldir::operations::wire::{Epoch, Usd};
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::world::{Story, hash_of, signer};

/// An audit export that can still be changed.
pub(super) struct Trail {
    tenant: TenantId,
    pub(super) rows: Vec<TrailEntry>,
    pub(super) key: u8,
    is_csv: bool,
}

impl Trail {
    pub(super) fn of(story: &Story, is_csv: bool) -> Self {
        let mut rows: Vec<TrailEntry> = Vec::new();
        for bytes in &story.entries {
            let recorded = entry::open(bytes).unwrap().recorded;
            let Event::ActionLogged(action) = recorded.event else { continue };
            rows.push(TrailEntry {
                entry_id: action.entry_id.to_string(),
                session_id: action.session_id.to_string(),
                agent_id: action.agent_id.to_string(),
                tool: action.tool,
                action: action.action,
                cost_usd: Usd(action.cost),
                flagged: false,
                flag_reason: String::new(),
                timestamp: Epoch(recorded.at),
                details: RawValue::from_string("{\"to\":\"a,b\"}".to_owned()).unwrap(),
                prev_hash: rows.last().map(|row| row.entry_hash.clone()).unwrap_or_default(),
                entry_hash: hash_of(bytes).to_string(),
                seq: recorded.seq,
            });
        }
        Self { tenant: story.tenant.clone(), rows, key: story.key, is_csv }
    }

    /// Everything that the manifest speaks of.
    pub(super) fn content(&self) -> String {
        let header = if self.is_csv { CSV_HEADER } else { "" };
        let row = |row| {
            if self.is_csv { csv_record(&self.tenant, row) } else { json_line(&self.tenant, row).unwrap() }
        };
        header.to_owned() + &self.rows.iter().map(row).collect::<String>()
    }

    /// The manifest, signed, without a line end.
    pub(super) fn manifest(&self) -> String {
        let signer = signer(self.key);
        let at = |row: Option<&TrailEntry>| json!(row.map(|row| row.timestamp));
        let ids: String = self.rows.iter().flat_map(|row| [row.entry_id.as_str(), "\n"]).collect();
        let digest = |text: &str| HEXLOWER.encode(&Sha256::digest(text));
        // In the order in which the server writes it: the type comes first.
        let members = [
            ("type", json!("manifest")),
            ("format_version", json!(1)),
            ("tenant_id", json!(self.tenant.as_str())),
            ("generated_at", json!("2023-11-14T23:00:00.000000Z")),
            ("filters", json!({})),
            ("count", json!(self.rows.len())),
            ("first_timestamp", at(self.rows.first())),
            ("last_timestamp", at(self.rows.last())),
            (
                "last_chain_hash",
                json!(self.rows.last().map(|row| row.entry_hash.clone()).unwrap_or_default()),
            ),
            ("sha256", json!(digest(&ids))),
            ("format", json!(if self.is_csv { "csv" } else { "jsonl" })),
            ("content_sha256", json!(digest(&self.content()))),
            ("key_id", json!(signer.id().to_string())),
            ("public_key", json!(HEXLOWER.encode(&signer.public_key().to_bytes()))),
        ];
        let body = members.map(|(name, value)| format!("\"{name}\":{value}")).join(",");
        let signature = HEXLOWER.encode(&signer.sign_manifest(format!("{{{body}}}").as_bytes()));
        format!("{{{body},\"signature\":\"{signature}\"}}")
    }

    /// The whole export in JSON lines.
    pub(super) fn json_lines(&self) -> String {
        self.content() + &self.manifest() + "\n"
    }
}
