//! `/v1/proxy`: upstreams, their tools, and calls.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::body::{Field, Fields};
use super::caller::{Authorized, ProxyRead, ProxyWrite};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::calls::{CallDenial, Method};
use crate::domain::limits::{
    CALL_NAME_CHARS_MAX, DECIDER_CHARS_MAX, NOTE_CHARS_MAX, SESSION_ID_CHARS_MAX, UPSTREAM_ARG_COUNT_MAX,
    UPSTREAM_NAME_LEN_MAX, UPSTREAM_SETTING_COUNT_MAX, UPSTREAM_TEXT_LEN_MAX, URL_CHARS_MAX,
};
use crate::domain::upstreams::{Setting, Transport, UpstreamName};
use crate::operations::calls::{CallAnswer, CallRequest, DeniedCall};
use crate::operations::catalogue::{self, PinList, ToolList, UpstreamList, UpstreamView};
use crate::operations::open_calls::{self, OpenCallList, ResolvedCall};
use crate::operations::redaction::SECRET_SCHEME;
use crate::operations::upstreams::{
    self, AcceptedTool, RegisterRequest, RegisteredUpstream, RemovedUpstream,
};
use crate::operations::{App, OperationError, forwarding};

/// Parts of names of headers and variables whose values are secrets, as a rule.
const SECRET_WORDS: [&str; 7] = ["auth", "cookie", "key", "passw", "secret", "token", "credential"];
/// Headers that belong to the protocol.
const RESERVED_HEADERS: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];

/// An upstream to be registered: `url`, or `command`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct UpstreamBody {
    /// Under which name: letters, digits, `-` and `_`.
    #[schema(max_length = 64)]
    name: String,
    /// Where it is, for one that is reached over HTTP.
    #[schema(required = false, max_length = 2048)]
    url: Option<String>,
    /// Headers of every request, by name. A value may end in `secret://` and the name of a secret.
    #[schema(required = false, value_type = Object)]
    headers: Option<Value>,
    /// The program, for one that is a process; it must be among the commands that the server allows.
    #[schema(required = false, max_length = 256)]
    command: Option<String>,
    /// Its arguments.
    #[schema(required = false)]
    args: Option<Vec<String>>,
    /// Its environment, by name. A value may end in `secret://` and the name of a secret.
    #[schema(required = false, value_type = Object)]
    env: Option<Value>,
    /// The session whose secrets are used to look at it.
    #[schema(required = false, max_length = 128)]
    session_id: Option<String>,
}

/// A call.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct CallBody {
    /// The tool: `upstream.tool`, or the tool's own name.
    #[schema(max_length = 2048)]
    tool: String,
    /// The session that calls.
    #[schema(max_length = 128)]
    session_id: String,
    /// The arguments. A text may end in `secret://` and the name of a secret.
    #[schema(required = false, value_type = Object)]
    arguments: Value,
    /// The approval to use.
    #[schema(required = false, max_length = 64)]
    approval_id: Option<String>,
}

/// The result of a call, as the Model Context Protocol has it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is passed on")]
pub(super) struct CallResult {
    /// What the tool gave, in blocks.
    #[schema(value_type = Vec<Object>)]
    content: Value,
    /// Whether the call failed or was denied.
    #[serde(rename = "isError")]
    #[schema(required = false)]
    is_error: bool,
}

/// Who trusts a tool as it is now.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct AcceptBody {
    /// Digest of the definition that was looked at, hex: `seen` in the list of the upstream's tools.
    #[schema(min_length = 64, max_length = 64)]
    digest: String,
    /// Who accepts it; the caller's key unless given.
    #[schema(required = false, max_length = 128)]
    decided_by: Option<String>,
    /// What they say about it.
    #[schema(required = false, max_length = 2000)]
    note: Option<String>,
}

/// What became of a call whose outcome was not recorded.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is read")]
pub(super) struct ResolveBody {
    /// `happened`, so that what it costs is paid, or `not_sent`, so that it is given back.
    outcome: String,
}

fn required(fields: &Fields, name: &'static str, chars_max: usize) -> Result<String, OperationError> {
    let field = fields.field(name);
    let text = field.required(field.or_null().text(chars_max))?;
    if text.is_empty() {
        return Err(OperationError::invalid(name, "required field is empty"));
    }
    Ok(text)
}

fn session_id(fields: &Fields) -> Result<Option<String>, OperationError> {
    let given = fields.field("session_id").or_null().text(SESSION_ID_CHARS_MAX)?;
    Ok(given.filter(|given| !given.is_empty()))
}

fn register_request(fields: &Fields) -> Result<RegisterRequest, OperationError> {
    let name = required(fields, "name", UPSTREAM_NAME_LEN_MAX)?;
    let expected = format!("expected 1 to {UPSTREAM_NAME_LEN_MAX} letters, digits, - and _");
    let name = UpstreamName::parse(&name).ok_or_else(|| OperationError::invalid("name", expected))?;
    let command = fields.field("command").or_null().text(UPSTREAM_TEXT_LEN_MAX)?;
    if command.as_ref().is_some_and(|command| command.len() > UPSTREAM_TEXT_LEN_MAX) {
        let expected = format!("expected at most {UPSTREAM_TEXT_LEN_MAX} bytes");
        return Err(OperationError::invalid("command", expected));
    }
    let transport = match command {
        Some(command) if !command.is_empty() => {
            if fields.field("url").or_null().raw().is_some() {
                return Err(OperationError::invalid("url", "expected either url or command"));
            }
            Transport::Stdio { command, args: args(fields.field("args"))?, env: settings(fields, "env")? }
        }
        _ => {
            let url = required(fields, "url", URL_CHARS_MAX)?.trim().to_owned();
            if url.contains(SECRET_SCHEME) {
                return Err(OperationError::invalid(
                    "url",
                    "expected a URL without secrets: they belong into headers",
                ));
            }
            Transport::Http { url, headers: settings(fields, "headers")? }
        }
    };
    Ok(RegisterRequest { name, transport, session_id: session_id(fields)? })
}

fn args(field: Field<'_>) -> Result<Vec<String>, OperationError> {
    let args = field.or_null().texts()?.unwrap_or_default();
    let fits = |arg: &String| arg.len() <= UPSTREAM_TEXT_LEN_MAX && !arg.contains('\0');
    if args.len() > UPSTREAM_ARG_COUNT_MAX || !args.iter().all(fits) {
        let expected =
            format!("expected at most {UPSTREAM_ARG_COUNT_MAX} texts of {UPSTREAM_TEXT_LEN_MAX} bytes");
        return Err(OperationError::invalid("args", expected));
    }
    Ok(args)
}

/// Headers or variables. What is a secret by its name must be one in the vault: it would stand in the ledger otherwise.
fn settings(fields: &Fields, name: &'static str) -> Result<Vec<Setting>, OperationError> {
    let Some(raw) = fields.field(name).or_null().raw() else { return Ok(Vec::new()) };
    let invalid = |why: String| OperationError::invalid(name, why);
    let pairs: std::collections::BTreeMap<String, String> =
        serde_json::from_str(raw).map_err(|_| invalid("expected an object of texts".to_owned()))?;
    if pairs.len() > UPSTREAM_SETTING_COUNT_MAX {
        return Err(invalid(format!("expected at most {UPSTREAM_SETTING_COUNT_MAX}")));
    }
    let mut settings = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if key.is_empty() || key.len() > UPSTREAM_TEXT_LEN_MAX || !key.bytes().all(legal) {
            return Err(invalid("expected names of letters, digits, - and _".to_owned()));
        }
        let lower = key.to_ascii_lowercase();
        if name == "headers" && RESERVED_HEADERS.contains(&lower.as_str()) {
            return Err(invalid(format!("{key} belongs to the protocol")));
        }
        if value.len() > UPSTREAM_TEXT_LEN_MAX || value.chars().any(char::is_control) {
            return Err(invalid(format!("expected values of at most {UPSTREAM_TEXT_LEN_MAX} bytes")));
        }
        if SECRET_WORDS.iter().any(|word| lower.contains(word)) && !value.contains(SECRET_SCHEME) {
            let why = format!(
                "{key} is a secret by its name: store it in the vault, and refer to it as {SECRET_SCHEME}<name>"
            );
            return Err(invalid(why));
        }
        settings.push(Setting { name: key, value });
    }
    Ok(settings)
}

/// Reads the parts of a call that `/v1/proxy/call` and the explanation of policies have in common.
pub(super) fn call_request(fields: &Fields) -> Result<CallRequest, OperationError> {
    let name = required(fields, "tool", CALL_NAME_CHARS_MAX)?;
    let session_id = required(fields, "session_id", SESSION_ID_CHARS_MAX)?;
    let arguments = match fields.field("arguments").or_null().canonical()? {
        None => Map::new(),
        Some(text) => serde_json::from_str(&text)
            .map_err(|_| OperationError::invalid("arguments", "expected an object"))?,
    };
    let approval_id = fields.field("approval_id").or_null().text(64)?.filter(|id| !id.is_empty());
    Ok(CallRequest { session_id, method: Method::Tool, upstream: None, name, arguments, approval_id })
}

/// Registers an upstream MCP server, in place of one with the same name, and pins its tools.
#[utoipa::path(
    post, path = "/v1/proxy/upstreams", operation_id = "post_register_upstream", tag = "proxy",
    request_body = UpstreamBody,
    responses((status = 201, description = "Registered, whether or not it was reached", body = RegisteredUpstream)),
)]
pub(super) async fn register(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let to_register = register_request(&fields)?;
    let retry = retry_of(&app, &caller, &request, &to_register)?;
    Ok(HttpResponse::Created().json(upstreams::register(&app, &caller, to_register, retry.as_ref()).await?))
}

/// Lists the tenant's upstreams.
#[utoipa::path(
    get, path = "/v1/proxy/upstreams", operation_id = "get_list_upstreams", tag = "proxy",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The upstreams", body = UpstreamList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &catalogue::list(&app, &caller, &moment))
}

/// Removes an upstream.
#[utoipa::path(
    delete, path = "/v1/proxy/upstreams/{name}", operation_id = "delete_upstream", tag = "proxy",
    params(("name" = String, Path, description = "The upstream")),
    responses((status = 200, description = "Removed", body = RemovedUpstream)),
)]
pub(super) async fn remove(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(upstreams::remove(&app, &caller, request.match_info().query("name")).await?))
}

/// Connects to an upstream anew, and looks at its tools.
#[utoipa::path(
    post, path = "/v1/proxy/upstreams/{name}/reconnect", operation_id = "post_reconnect_upstream", tag = "proxy",
    params(("name" = String, Path, description = "The upstream")),
    responses((status = 200, description = "The upstream", body = UpstreamView)),
)]
pub(super) async fn reconnect(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let name = request.match_info().query("name");
    Ok(HttpResponse::Ok().json(upstreams::refresh(&app, &caller, name, session_id(&fields)?).await?))
}

/// Lists the tools of an upstream as they are trusted and as they were seen last, with what changed.
#[utoipa::path(
    get, path = "/v1/proxy/upstreams/{name}/tools", operation_id = "get_upstream_tools", tag = "proxy",
    params(("name" = String, Path, description = "The upstream")),
    responses((status = 200, description = "Its tools", body = PinList)),
)]
pub(super) async fn pins(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let name = request.match_info().query("name").to_owned();
    let (app, caller) = (Arc::clone(&**app), caller.to_owned());
    Ok(HttpResponse::Ok().json(catalogue::pins(app, caller, name).await?))
}

/// Trusts a tool that changed, as it is now.
#[utoipa::path(
    post, path = "/v1/proxy/upstreams/{name}/tools/{tool}/accept", operation_id = "post_accept_tool", tag = "proxy",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("tool" = String, Path, description = "The tool"),
    ),
    request_body = AcceptBody,
    responses((status = 200, description = "Accepted", body = AcceptedTool)),
)]
pub(super) async fn accept(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let digest = required(&fields, "digest", 64)?;
    let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(digest.as_bytes()).ok();
    let digest = digest.and_then(|bytes| bytes.try_into().ok());
    let digest = digest.ok_or_else(|| OperationError::invalid("digest", "expected 64 hex digits"))?;
    let decider = fields.field("decided_by").or_null().text(DECIDER_CHARS_MAX)?.unwrap_or_default();
    let note = fields.field("note").or_null().lines(NOTE_CHARS_MAX)?.unwrap_or_default();
    let (name, tool) = (request.match_info().query("name"), request.match_info().query("tool").to_owned());
    let accepted = upstreams::accept(&app, &caller, name, tool, digest, decider, note).await?;
    Ok(HttpResponse::Ok().json(accepted))
}

/// Lists the tools that may be called.
#[utoipa::path(
    get, path = "/v1/proxy/tools", operation_id = "get_proxy_tools", tag = "proxy",
    responses((status = 200, description = "The tools", body = ToolList)),
)]
pub(super) async fn tools(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
) -> Result<HttpResponse, ApiError> {
    let (app, caller) = (Arc::clone(&**app), caller.to_owned());
    Ok(HttpResponse::Ok().json(catalogue::tools(app, caller).await?))
}

/// Calls a tool of an upstream: session, scope, policies, budget and approvals are looked at, and what is decided and what
/// came of it is recorded.
#[utoipa::path(
    post, path = "/v1/proxy/call", operation_id = "post_proxy_call", tag = "proxy",
    request_body = CallBody,
    responses(
        (status = 200, description = "What the upstream gave; or that the call waits for an approval", body = CallResult),
        (status = 403, description = "Denied, or the tool failed", body = CallResult),
    ),
)]
pub(super) async fn call(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let to_call = call_request(&fields)?;
    let retry = retry_of(&app, &caller, &request, &to_call)?;
    let answered = forwarding::call(Arc::clone(&**app), caller.to_owned(), to_call, retry).await?;
    Ok(match answered {
        CallAnswer::Result(result) if result["isError"] == Value::Bool(true) => {
            HttpResponse::Forbidden().json(result)
        }
        CallAnswer::Result(result) => HttpResponse::Ok().json(result),
        CallAnswer::Denied(denied) if denied.reason == CallDenial::ApprovalRequired => {
            HttpResponse::Ok().json(waiting(&denied))
        }
        CallAnswer::Denied(denied) => HttpResponse::Forbidden().json(blocked(&denied.sentence)),
        CallAnswer::Failed { reason, .. } => HttpResponse::Forbidden().json(blocked(&reason)),
    })
}

/// Lists calls that have no outcome: on their way now, or unconfirmed since the server stopped.
#[utoipa::path(
    get, path = "/v1/proxy/calls", operation_id = "get_open_calls", tag = "proxy",
    responses((status = 200, description = "Calls without an outcome", body = OpenCallList)),
)]
pub(super) async fn open_calls(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyRead>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(open_calls::list(&app, &caller)?))
}

/// Says what became of an unconfirmed call.
#[utoipa::path(
    post, path = "/v1/proxy/calls/{call_id}/resolve", operation_id = "post_resolve_call", tag = "proxy",
    params(("call_id" = String, Path, description = "The call")),
    request_body = ResolveBody,
    responses((status = 200, description = "Recorded", body = ResolvedCall)),
)]
pub(super) async fn resolve(
    app: web::Data<Arc<App>>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let happened = match required(&fields, "outcome", 64)?.as_str() {
        "happened" => true,
        "not_sent" => false,
        _ => return Err(OperationError::invalid("outcome", "expected happened or not_sent").into()),
    };
    let id = request.match_info().query("call_id");
    Ok(HttpResponse::Ok().json(open_calls::resolve(&app, &caller, id, happened).await?))
}

/// A denial as clients of the proxy read it: the result of a tool that failed.
#[must_use]
pub fn blocked(sentence: &str) -> Value {
    text_result(&[("error", sentence), ("blocked_by", "haldir")], true)
}

/// A call that waits, as clients of the proxy read it.
#[must_use]
pub fn waiting(denied: &DeniedCall) -> Value {
    let id = denied.approval_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let message = format!("Approval required: {id}. Ask again when it is approved.");
    let fields = [
        ("status", "approval_required"),
        ("request_id", id.as_str()),
        ("reason", denied.sentence.as_str()),
        ("message", message.as_str()),
    ];
    text_result(&fields, false)
}

/// A result whose only text is JSON, spaced as the contract has it.
fn text_result(fields: &[(&str, &str)], is_error: bool) -> Value {
    let fields =
        fields.iter().map(|(name, value)| format!("{}: {}", Value::from(*name), Value::from(*value)));
    let text = format!("{{{}}}", fields.collect::<Vec<_>>().join(", "));
    json!({ "content": [{ "type": "text", "text": text }], "isError": is_error })
}
