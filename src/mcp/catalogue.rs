//! The tools: their names, and which operation of the REST edge each of them is.
//!
//! What a tool takes and gives is not said here. It is read from the description of the operation ([`super::schema`]), so that
//! tools and REST cannot differ.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use rmcp::model::{self, ToolAnnotations};

use super::schema::Operation;
use crate::http::openapi;

/// What calling a tool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It changes nothing.
    Reads,
    /// It adds something each time.
    Adds,
    /// It changes something, and again the same.
    Sets,
    /// It ends something, and again the same.
    Ends,
}

/// One tool, as far as it is not described by its operation.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The name that older clients use over HTTP; empty when they do not know it.
    pub alias: &'static str,
    title: &'static str,
    description: &'static str,
    /// The operation's id in the `OpenAPI` description.
    pub operation: &'static str,
    effect: Effect,
    /// Arguments that it requires and the operation does not.
    pub required: &'static [&'static str],
    /// The same over stdio alone, where older clients count on being told.
    pub required_over_stdio: &'static [&'static str],
    /// Other names of arguments: given, meant.
    pub synonyms: &'static [(&'static str, &'static str)],
    /// Arguments that travel in a header.
    pub headers: &'static [(&'static str, &'static str)],
    /// Parameters of the operation that make no sense here.
    pub left_out: &'static [&'static str],
}

const PLAIN: Entry = Entry {
    name: "",
    alias: "",
    title: "",
    description: "",
    operation: "",
    effect: Effect::Reads,
    required: &[],
    required_over_stdio: &[],
    synonyms: &[],
    headers: &[],
    left_out: &[],
};

/// The tools, in the order in which they are listed.
pub const ENTRIES: [Entry; 19] = [
    Entry {
        name: "haldir_create_session",
        alias: "createSession",
        title: "Create Agent Session",
        description: "Open a session for an agent, with scopes, a spending limit and a time to live. Everything else that the \
                      agent does happens in it.",
        operation: "post_create_session",
        effect: Effect::Adds,
        ..PLAIN
    },
    Entry {
        name: "haldir_get_session",
        alias: "getSession",
        title: "Get Session Info",
        description: "Look up a live session: its scopes, what it has spent, what it may still spend, when it expires.",
        operation: "get_get_session",
        ..PLAIN
    },
    Entry {
        name: "haldir_check_permission",
        alias: "checkPermission",
        title: "Check Permission",
        description: "Ask whether a session holds a scope, before acting. Unknown and ended sessions hold none.",
        operation: "post_check_permission",
        ..PLAIN
    },
    Entry {
        name: "haldir_revoke_session",
        alias: "revokeSession",
        title: "Revoke Session",
        description: "End a session at once, with every session that was delegated from it.",
        operation: "delete_revoke_session",
        effect: Effect::Ends,
        ..PLAIN
    },
    Entry {
        name: "haldir_store_secret",
        alias: "storeSecret",
        title: "Store Secret",
        description: "Store a secret, encrypted. Sessions can read it that hold the scope it requires.",
        operation: "post_store_secret",
        effect: Effect::Sets,
        ..PLAIN
    },
    Entry {
        name: "haldir_get_secret",
        alias: "getSecret",
        title: "Get Secret",
        description: "Read a secret's value through a session that holds the scope it requires. Every read is on record.",
        operation: "get_get_secret",
        required: &["session_id"],
        headers: &[("session_id", "X-Session-ID")],
        ..PLAIN
    },
    Entry {
        name: "haldir_list_secrets",
        title: "List Secrets",
        description: "List the names of the stored secrets, never their values.",
        operation: "get_list_secrets",
        ..PLAIN
    },
    Entry {
        name: "haldir_log_audit_action",
        alias: "logAction",
        title: "Log Action",
        description: "Put what an agent did on the tamper-evident audit trail: the tool, the action, its cost, details.",
        operation: "post_log_action",
        effect: Effect::Adds,
        required_over_stdio: &["tool"],
        ..PLAIN
    },
    Entry {
        name: "haldir_query_audit_trail",
        alias: "getAuditTrail",
        title: "Get Audit Trail",
        description: "Find logged actions, newest first: of a session, of an agent, with a tool, or only flagged ones.",
        operation: "get_get_audit_trail",
        synonyms: &[("flagged_only", "flagged")],
        ..PLAIN
    },
    Entry {
        name: "haldir_get_spend",
        alias: "getSpend",
        title: "Get Spend Summary",
        description: "Sum up what logged actions cost, by tool: of everything, of a session or of an agent.",
        operation: "get_get_spend",
        ..PLAIN
    },
    Entry {
        name: "haldir_verify_audit_chain",
        title: "Verify Audit Chain",
        description: "Verify that the tenant's ledger was not tampered with: chain, signatures and decisions.",
        operation: "get_verify_audit_chain",
        ..PLAIN
    },
    Entry {
        name: "haldir_get_tree_head",
        title: "Get Tree Head",
        description: "Get the signed head of the tenant's Merkle tree. Whoever keeps it can prove later that nothing before it \
                      was changed.",
        operation: "get_get_audit_tree_head",
        ..PLAIN
    },
    Entry {
        name: "haldir_get_inclusion_proof",
        title: "Get Inclusion Proof",
        description: "Prove that an entry is in the tenant's Merkle tree (RFC 6962).",
        operation: "get_get_audit_inclusion_proof",
        ..PLAIN
    },
    Entry {
        name: "haldir_get_consistency_proof",
        title: "Get Consistency Proof",
        description: "Prove that the tenant's Merkle tree of one size is the beginning of the tree of another (RFC 6962).",
        operation: "get_get_audit_consistency_proof",
        ..PLAIN
    },
    Entry {
        name: "haldir_request_approval",
        title: "Request Approval",
        description: "Ask people to approve something before it is done. Asking the same again while nobody has decided gives \
                      the same request.",
        operation: "post_request_approval",
        effect: Effect::Sets,
        required: &["action", "reason"],
        ..PLAIN
    },
    Entry {
        name: "haldir_get_approval_status",
        title: "Get Approval Status",
        description: "Tell what became of a request for an approval, and with `wait` wait until it is decided.",
        operation: "get_check_approval",
        synonyms: &[("approval_id", "request_id")],
        ..PLAIN
    },
    Entry {
        name: "haldir_compliance_score",
        title: "Get Compliance Score",
        description: "Tell how ready the tenant is to show evidence to auditors: seven criteria, and what would help.",
        operation: "get_compliance_score",
        ..PLAIN
    },
    Entry {
        name: "haldir_build_evidence_pack",
        title: "Build Evidence Pack",
        description: "Gather evidence of a period for auditors: keys, secrets, actions, spending, approvals and alerts, signed.",
        operation: "get_compliance_evidence",
        left_out: &["format"],
        ..PLAIN
    },
    Entry {
        name: "haldir_authorize_payment",
        alias: "authorizePayment",
        title: "Authorize Payment",
        description: "Authorize a payment against a session's budget, before paying. A denial is an answer too: `authorized` \
                      is false, and `reason` says why.",
        operation: "post_authorize_payment",
        effect: Effect::Adds,
        ..PLAIN
    },
];

/// By which way clients come. It decides how results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// The server's own endpoint.
    Http,
    /// A process that the client started.
    Stdio,
}

/// A tool, whole.
#[derive(Debug)]
pub struct Tool {
    /// What it is called.
    pub entry: &'static Entry,
    /// What it does.
    pub operation: Operation,
    /// As it is listed over HTTP, and over stdio.
    listed: [model::Tool; 2],
}

impl Tool {
    /// As it is listed.
    #[must_use]
    pub fn listed(&self, face: Face) -> &model::Tool {
        &self.listed[face as usize]
    }
}

/// All tools, and how to find them.
#[derive(Debug)]
pub struct Catalogue {
    tools: Vec<Tool>,
    by_name: HashMap<&'static str, usize>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::new);

/// The catalogue.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    &CATALOGUE
}

impl Catalogue {
    fn new() -> Self {
        let document = openapi::description();
        let tools: Vec<Tool> = ENTRIES.iter().filter_map(|entry| whole(entry, &document)).collect();
        let names = tools.iter().enumerate().flat_map(|(index, tool)| {
            [tool.entry.name, tool.entry.alias]
                .map(|name| (name, index))
                .into_iter()
                .filter(|it| !it.0.is_empty())
        });
        Self { by_name: names.collect(), tools }
    }

    /// All tools, in their order.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The tool with this name, or with this older one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tool> {
        self.by_name.get(name).map(|index| &self.tools[*index])
    }
}

fn whole(entry: &'static Entry, document: &serde_json::Value) -> Option<Tool> {
    let operation = Operation::read(entry, document)?;
    let hints = ToolAnnotations::from_raw(
        Some(entry.title.to_owned()),
        Some(entry.effect == Effect::Reads),
        Some(entry.effect == Effect::Ends),
        Some(entry.effect != Effect::Adds),
        Some(false),
    );
    let listed = [Face::Http, Face::Stdio].map(|face| {
        model::Tool::new(entry.name, entry.description, Arc::new(operation.input(entry, face)))
            .with_title(entry.title)
            .with_raw_output_schema(Arc::new(operation.output.clone()))
            .with_annotations(hints.clone())
    });
    Some(Tool { entry, operation, listed })
}

#[cfg(test)]
mod tests;
