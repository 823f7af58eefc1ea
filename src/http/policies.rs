//! `/v1/proxy/policies`: what may be called.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{Authorized, ProxyRead, ProxyWrite};
use super::error::ApiError;
use super::past::answer;
use super::policy_body::{read, read_all};
use super::proxy::call_request;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::time::Timestamp;
use crate::operations::policies::{self, AddedPolicy, Explanation, PolicyList, RemovedPolicy};
use crate::operations::policy_json::to_json;
use crate::operations::policy_replay::{self, PolicyReplay};
use crate::operations::{App, OperationError};

/// A policy: its type, and the parameters of that type.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct PolicyBody {
    /// `block_tool` (`tool`), `allow_list` (`tools`), `deny_list` (`tools`), `spend_limit` (`max`), `rate_limit`
    /// (`max_per_minute`), `time_window` (`start` and `end` as `HH:MM`, or `start_hour` and `end_hour`; `days`, `timezone`),
    /// `require_approval` (`tools`, `above`, `required_approvals`), `price` (`tools`; `amount`, or `argument`), `argument` (`tools`,
    /// `argument`, `rule`, `pattern`) or `redact` (`tools`, `arguments`, `results`).
    #[schema(max_length = 64)]
    r#type: String,
}

/// A set of policies.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct PolicySetBody {
    /// The policies, in the order in which they are tried.
    policies: Vec<PolicyBody>,
    /// The revision that is replaced; without it, whichever there is.
    #[schema(required = false)]
    revision: Option<u64>,
}

/// A set of policies to be tried on the past.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct PolicyReplayBody {
    /// The policies, in the order in which they are tried.
    policies: Vec<PolicyBody>,
    /// From when on: unix seconds or ISO 8601; the beginning unless given.
    #[schema(required = false)]
    from: Option<String>,
    /// Until when; now unless given.
    #[schema(required = false)]
    to: Option<String>,
}

/// A call to be explained.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct ExplainBody {
    /// The tool: `upstream.tool`, or the tool's own name.
    #[schema(max_length = 2048)]
    tool: String,
    /// The session that would call.
    #[schema(max_length = 128)]
    session_id: String,
    /// The arguments.
    #[schema(required = false, value_type = Object)]
    arguments: Value,
}

/// Adds a policy behind the others.
#[utoipa::path(
    post, path = "/v1/proxy/policies", operation_id = "post_add_proxy_policy", tag = "proxy",
    request_body = PolicyBody,
    responses((status = 201, description = "Added", body = AddedPolicy)),
)]
pub(super) async fn add(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let policy = read(&fields)?;
    let retry = retry_of(&app, &caller, &request, &to_json(&policy))?;
    Ok(HttpResponse::Created().json(policies::add(&app, &caller, policy, retry.as_ref()).await?))
}

/// Lists the policies in the order in which they are tried.
#[utoipa::path(
    get, path = "/v1/proxy/policies", operation_id = "get_list_proxy_policies", tag = "proxy",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The policies", body = PolicyList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &policies::list(&moment))
}

/// Puts another set of policies in place of the whole one, in one step.
#[utoipa::path(
    put, path = "/v1/proxy/policies", operation_id = "put_proxy_policies", tag = "proxy",
    request_body = PolicySetBody,
    responses((status = 200, description = "The new set", body = PolicyList)),
)]
pub(super) async fn replace(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let expected = fields.field("revision").or_null().int(0..=u64::MAX)?;
    let set = read_all(fields.field("policies"))?;
    Ok(HttpResponse::Ok().json(policies::replace(&app, &caller, set, expected).await?))
}

/// Removes a policy.
#[utoipa::path(
    delete, path = "/v1/proxy/policies/{policy_id}", operation_id = "delete_proxy_policy", tag = "proxy",
    params(("policy_id" = u64, Path, description = "The policy")),
    responses((status = 200, description = "Removed", body = RemovedPolicy)),
)]
pub(super) async fn remove(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let policy_id = request.match_info().query("policy_id").parse();
    let policy_id = policy_id.map_err(|_| OperationError::NotFound("policy"))?;
    Ok(HttpResponse::Ok().json(policies::remove(&app, &caller, policy_id).await?))
}

/// Tells what would be decided about a call, and what each policy says of it. Nothing is called or recorded.
#[utoipa::path(
    post, path = "/v1/proxy/policies/explain", operation_id = "post_explain_proxy_policy", tag = "proxy",
    request_body = ExplainBody,
    responses((status = 200, description = "What would be decided", body = Explanation)),
)]
pub(super) async fn explain(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(policies::explain(&app, &caller, call_request(&fields)?)?))
}

/// Runs a set of policies over the calls of the past, and tells which decisions would have been others. Nothing is applied.
#[utoipa::path(
    post, path = "/v1/proxy/policies/replay", operation_id = "post_replay_proxy_policies", tag = "proxy",
    request_body = PolicyReplayBody,
    responses((status = 200, description = "What would have been decided otherwise", body = PolicyReplay)),
)]
pub(super) async fn replay(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let set = read_all(fields.field("policies"))?;
    let moment = |name: &'static str| {
        let text = fields.field(name).or_null().text(64)?;
        let read = |text: String| {
            Timestamp::parse(&text)
                .ok_or_else(|| OperationError::invalid(name, "expected unix seconds or ISO 8601"))
        };
        text.map(read).transpose()
    };
    let (from, to) = (moment("from")?, moment("to")?);
    Ok(HttpResponse::Ok().json(policy_replay::replay(Arc::clone(&app), &caller, set, from, to).await?))
}
