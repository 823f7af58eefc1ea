//! `/v1/vault`.

use std::sync::Arc;

use actix_web::{HttpResponse, web};

use super::caller::{Authorized, VaultRead, VaultRotate};
use super::error::ApiError;
use super::query::Query;
use crate::operations::App;
use crate::operations::vault::{self, KeyReport, Rotation};

/// Lists the master keys by their ids, and how many of the tenant's values each one seals.
#[utoipa::path(
    get, path = "/v1/vault/keys", operation_id = "get_vault_keys", tag = "vault",
    responses((status = 200, description = "The keys", body = KeyReport)),
)]
pub(super) async fn keys(
    app: web::Data<Arc<App>>,
    caller: Authorized<VaultRead>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(vault::keys(Arc::clone(&app), caller.to_owned()).await?))
}

/// Wraps every value of the tenant's under the primary master key. Values can be read meanwhile, and need not be stored again.
#[utoipa::path(
    post, path = "/v1/vault/rotate", operation_id = "post_vault_rotate", tag = "vault",
    params(("dry_run" = Option<bool>, Query, description = "`true` tells what would be done, and changes nothing")),
    responses(
        (status = 200, description = "Done", body = Rotation),
        (status = 207, description = "Done, but for those that failed", body = Rotation),
    ),
)]
pub(super) async fn rotate(
    app: web::Data<Arc<App>>,
    caller: Authorized<VaultRotate>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let rotation = vault::rotate(Arc::clone(&app), caller.to_owned(), query.is_true("dry_run")).await?;
    let mut response =
        if rotation.failed.is_empty() { HttpResponse::Ok() } else { HttpResponse::MultiStatus() };
    Ok(response.json(rotation))
}
