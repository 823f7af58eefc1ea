//! `/approvals/{request_id}`: the page behind the link in a notification, where a person approves or denies.
//!
//! Following the link decides nothing, because mail programs and chats follow links too: the page asks once more.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};

use super::body::Form;
use super::error::ApiError;
use super::query::Query;
use crate::domain::approvals::Verdict;
use crate::domain::id::RequestId;
use crate::domain::limits::{DECIDER_CHARS_MAX, NOTE_CHARS_MAX};
use crate::operations::approval_links::Link;
use crate::operations::approvals::{self, ApprovalView, Decision};
use crate::operations::{App, OperationError};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a}\
h1{font-size:1.4rem}dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1rem}dt{color:#666}dd{margin:0;\
overflow-wrap:anywhere}label{display:block;margin:1rem 0 .2rem}input,textarea{width:100%;font:inherit;padding:.4rem;\
box-sizing:border-box}button{font:inherit;padding:.5rem 1.2rem;margin:1rem .6rem 0 0;border:1px solid #888;\
border-radius:.4rem;background:#fff;cursor:pointer}button.yes{background:#1a7f37;border-color:#1a7f37;color:#fff}";

/// Shows what is asked for.
pub(super) async fn show(
    app: web::Data<Arc<App>>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let id = request.match_info().query("request_id");
    let token = query.text("token").unwrap_or_default();
    let Some(link) = Link::check(&app, id, &token) else {
        return Ok(strange());
    };
    let moment = app.moment(&link.tenant, None).await?;
    let approval = approvals::get(&app, &link.tenant, &moment, id)?;
    if approval.status != "pending" {
        return Ok(page(StatusCode::OK, &format!("This request is {}", approval.status), &facts(&approval)));
    }
    let form = format!(
        "{}<form method=\"post\" action=\"/approvals/{}\"><input type=\"hidden\" name=\"token\" value=\"{}\">\
         <label for=\"name\">Your name</label><input id=\"name\" name=\"name\" maxlength=\"{DECIDER_CHARS_MAX}\" required>\
         <label for=\"note\">Note</label><textarea id=\"note\" name=\"note\" rows=\"3\" maxlength=\"{NOTE_CHARS_MAX}\"></textarea>\
         <button class=\"yes\" name=\"verdict\" value=\"approve\">Approve</button>\
         <button name=\"verdict\" value=\"deny\">Deny</button></form>",
        facts(&approval),
        escaped(id),
        escaped(&token),
    );
    Ok(page(StatusCode::OK, "An agent asks for your approval", &form))
}

/// Takes the decision.
pub(super) async fn decide(
    app: web::Data<Arc<App>>,
    request: HttpRequest,
    form: Form,
) -> Result<HttpResponse, ApiError> {
    let id = request.match_info().query("request_id");
    let Some(link) = Link::check(&app, id, form.text("token")) else {
        return Ok(strange());
    };
    let verdict = match form.text("verdict") {
        "approve" => Verdict::Approve { amount: None, ttl_s: None },
        "deny" => Verdict::Deny,
        _ => return Err(OperationError::invalid("verdict", "expected approve or deny").into()),
    };
    let short = |name: &'static str, chars_max: usize| {
        let text = form.text(name);
        let is_fine = text.chars().count() <= chars_max
            && !text.chars().any(|it| it.is_control() && !matches!(it, '\n' | '\r' | '\t'));
        let expected = || OperationError::invalid(name, format!("expected at most {chars_max} characters"));
        if is_fine { Ok(text.to_owned()) } else { Err(expected()) }
    };
    // The name stands before the note in what is recorded.
    let note = short("note", NOTE_CHARS_MAX - DECIDER_CHARS_MAX - 2)?;
    let decision = Decision { verdict, decided_by: short("name", DECIDER_CHARS_MAX)?, note };
    let request_id = request.extensions().get::<RequestId>().cloned();
    let request_id = request_id.unwrap_or_else(|| RequestId::issue(app.ledger.random().bytes()));
    let (status, title) = match approvals::decide_by_link(&app, &link, request_id, decision).await {
        Ok(decided) if decided.denied == Some(true) => (StatusCode::OK, "Denied"),
        Ok(decided) if decided.missing_approvals > 0 => (StatusCode::OK, "Approved; others must approve too"),
        Ok(_) => (StatusCode::OK, "Approved"),
        Err(OperationError::Conflict { .. }) => (StatusCode::CONFLICT, "Somebody decided before"),
        Err(OperationError::Illegal { .. }) => (StatusCode::BAD_REQUEST, "This request has expired"),
        Err(error) => return Err(error.into()),
    };
    let moment = app.moment(&link.tenant, None).await?;
    let approval = approvals::get(&app, &link.tenant, &moment, id)?;
    Ok(page(status, title, &facts(&approval)))
}

fn facts(approval: &ApprovalView) -> String {
    let amount = if approval.amount.0.nanos() == 0 { String::new() } else { approval.amount.0.to_string() };
    let rows = [
        ("Agent", approval.agent_id.as_str()),
        ("Tool", &approval.tool),
        ("Action", &approval.action),
        ("Amount", &amount),
        ("Currency", &approval.currency),
        ("For", &approval.description),
        ("Reason", &approval.reason),
        ("Details", approval.details.get()),
        ("Status", approval.status),
        ("Decided by", &approval.decided_by),
        ("Note", &approval.decision_note),
    ];
    let told = rows.into_iter().filter(|(_, value)| !value.is_empty() && *value != "{}");
    let rows: Vec<String> =
        told.map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escaped(value))).collect();
    format!("<dl>{}</dl>", rows.concat())
}

fn strange() -> HttpResponse {
    page(StatusCode::FORBIDDEN, "This link is not valid", "<p>Ask whoever sent it for a new one.</p>")
}

fn page(status: StatusCode, title: &str, body: &str) -> HttpResponse {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title} · Haldir</title><style>{STYLE}</style><h1>{title}</h1>{body}</html>"
    );
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        ))
        .body(html)
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
