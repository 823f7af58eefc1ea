//! `/v1/audit/tree-head` and the other proofs of contract section 9, `/v1/ledger/checkpoint`, `/v1/ledger/proof` and the
//! public keys.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

use super::caller::{AuditRead, Authorized};
use super::error::ApiError;
use super::query::Query;
use crate::format::certificate::KeyCertificate;
use crate::operations::proofs::{
    self, ConsistencyProof, EntryName, InclusionProof, KEY_SOURCE, LOG_LEN_DEFAULT, LOG_LEN_MAX, PinReport,
    TreeHead, TreeHeadLog,
};
use crate::operations::{App, OperationError};

/// Signs the tenant's tree as it is now.
#[utoipa::path(
    get, path = "/v1/audit/tree-head", operation_id = "get_get_audit_tree_head", tag = "watch",
    responses((status = 200, description = "The signed tree head", body = TreeHead)),
)]
pub(super) async fn tree_head(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(proofs::tree_head(&app, &caller).await?))
}

/// Proves that an entry is in the tenant's tree.
#[utoipa::path(
    get, path = "/v1/audit/inclusion-proof/{entry_id}", operation_id = "get_get_audit_inclusion_proof", tag = "watch",
    params(("entry_id" = String, Path, description = "An audit entry's id, or the seq of any ledger entry")),
    responses((status = 200, description = "The proof", body = InclusionProof)),
)]
pub(super) async fn inclusion(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let name = EntryName::parse(request.match_info().query("entry_id"));
    Ok(HttpResponse::Ok().json(proofs::inclusion(&app, &caller, name).await?))
}

/// Proves that the tenant's tree of one size is the beginning of its tree of another.
#[utoipa::path(
    get, path = "/v1/audit/consistency-proof", operation_id = "get_get_audit_consistency_proof", tag = "watch",
    params(
        ("first" = u64, Query, description = "The earlier size, at least 1"),
        ("second" = u64, Query, description = "The later size, at most the size of the stream"),
    ),
    responses((status = 200, description = "The proof", body = ConsistencyProof)),
)]
pub(super) async fn consistency(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let (first, second) = (query.argument("first")?, query.argument("second")?);
    let proof = proofs::consistency(Arc::clone(&app), &caller, first, second).await?;
    Ok(HttpResponse::Ok().json(proof))
}

/// Lists the tree heads that were signed, by ascending size.
#[utoipa::path(
    get, path = "/v1/audit/sth-log", operation_id = "get_get_audit_sth_log", tag = "watch",
    params(
        ("since" = Option<u64>, Query, description = "Only of sizes greater than this; 0 unless given"),
        ("limit" = Option<u32>, Query, description = "At most this many, 1 to 10000; 1000 unless given"),
    ),
    responses((status = 200, description = "The log", body = TreeHeadLog)),
)]
pub(super) async fn tree_head_log(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let since = query.optional_argument("since")?.unwrap_or(0);
    let limit = query.optional_argument("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(LOG_LEN_DEFAULT).clamp(1, LOG_LEN_MAX);
    Ok(HttpResponse::Ok().json(proofs::tree_head_log(&app, &caller, since, limit).await?))
}

/// Compares a tree head that you kept with the one in the log.
#[utoipa::path(
    get, path = "/v1/audit/sth-log/verify", operation_id = "get_verify_audit_sth_log", tag = "watch",
    params(
        ("pinned_size" = u64, Query, description = "The size that you kept"),
        ("pinned_root" = String, Query, description = "The root that you kept, hex"),
    ),
    responses((status = 200, description = "Whether they are the same", body = PinReport)),
)]
pub(super) async fn check_pin(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let size = query.argument("pinned_size")?;
    let root = query.text("pinned_root").map(|root| root.trim().to_ascii_lowercase());
    let is_hash = |root: &String| root.len() == 64 && root.bytes().all(|byte| byte.is_ascii_hexdigit());
    let root = root.filter(is_hash).ok_or_else(|| OperationError::InvalidArgument {
        field: "pinned_root",
        reason: "expected 64 hex digits".to_owned(),
    })?;
    Ok(HttpResponse::Ok().json(proofs::check_pin(&app, &caller, size, root).await?))
}

/// The signed checkpoint of the tenant's stream, a C2SP `tlog-checkpoint`.
#[utoipa::path(
    get, path = "/v1/ledger/checkpoint", operation_id = "get_checkpoint", tag = "watch",
    params(("size" = Option<u64>, Query, description = "Of the first so many entries; of all unless given")),
    responses((status = 200, description = "The signed note", body = String, content_type = "text/plain")),
)]
pub(super) async fn checkpoint(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let size = query.optional_argument("size")?;
    let kept = proofs::checkpoint(&app, &caller, size).await?;
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(kept.note))
}

/// A self-contained proof that an entry is in the ledger, a C2SP `tlog-proof` with the entry's bytes.
#[utoipa::path(
    get, path = "/v1/ledger/proof/{entry}", operation_id = "get_ledger_proof", tag = "watch",
    params(("entry" = String, Path, description = "A seq, or an audit entry's id")),
    responses((status = 200, description = "The proof file", body = String, content_type = "text/plain")),
)]
pub(super) async fn proof_file(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let name = request.match_info().query("entry").to_owned();
    let proof = proofs::proof_file(&app, &caller, EntryName::parse(&name)).await?;
    // The name in the path is one of ours, or there would be no proof.
    let disposition = format!("attachment; filename=\"{name}.tlog-proof\"");
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header(("Content-Disposition", disposition))
        .body(proof))
}

/// The public keys that sign or signed this installation's ledgers (RFC 7517, RFC 8037), with their certificates.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "get_jwks_json", tag = "watch", security(()),
    responses((status = 200, description = "The keys", body = serde_json::Value)),
)]
pub(super) async fn jwks(app: web::Data<Arc<App>>) -> HttpResponse {
    let current = app.ledger.public_key();
    let keys: Vec<_> = app
        .keys()
        .into_iter()
        .rev()
        .map(|key| {
            let certificates = app.certificates.iter().filter(|certificate| certificate.subject == key);
            json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "kid": key.id().to_string(),
                "x": BASE64URL_NOPAD.encode(&key.to_bytes()),
                "x-haldir-source": if key == current { KEY_SOURCE } else { "former" },
                "x-haldir-certificates": certificates.map(KeyCertificate::line).collect::<Vec<_>>(),
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "keys": keys }))
}
