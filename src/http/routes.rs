//! The table of routes. Each path answers 405 to methods that it does not have; unknown paths answer 404.

use actix_web::http::Method;
use actix_web::http::header::{ALLOW, LOCATION};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, Route, guard, web};

use super::error::ApiError;
use super::{
    anomalies, approval_page, approvals, audit, audit_export, budgets, compliance, health, keys, ledger,
    openapi, past, payments, policies, proofs, proxy, secrets, sessions, usage, vault, webhooks,
};

/// Adds every route.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(path("/v1/keys").post(keys::mint).get(keys::list).done())
        .service(path("/v1/keys/{prefix}").delete(keys::revoke).done())
        .service(path("/v1/sessions").post(sessions::open).get(sessions::list).done())
        .service(path("/v1/sessions/{session_id}").get(sessions::get).delete(sessions::revoke).done())
        .service(path("/v1/sessions/{session_id}/descendants").get(sessions::descendants).done())
        .service(path("/v1/sessions/{session_id}/check").post(sessions::check).done())
        .service(path("/v1/secrets").post(secrets::store).get(secrets::list).done())
        .service(rest_of_path("/v1/secrets/{name}").get(secrets::get).delete(secrets::delete).done())
        .service(path("/v1/vault/keys").get(vault::keys).done())
        .service(path("/v1/vault/rotate").post(vault::rotate).done())
        .service(path("/v1/payments/authorize").post(payments::authorize).done())
        .service(path("/v1/payments/reserve").post(payments::reserve).done())
        .service(path("/v1/payments/{authorization_id}/settle").post(payments::settle).done())
        .service(path("/v1/payments/{authorization_id}/release").post(payments::release).done())
        .service(path("/v1/budgets").get(budgets::list).put(budgets::set).done())
        .service(path("/v1/budgets/report").get(budgets::report).done())
        .service(path("/v1/approvals/rules").post(approvals::add_rule).get(approvals::rules).done())
        .service(path("/v1/approvals/rules/{rule_id}").delete(approvals::remove_rule).done())
        .service(path("/v1/approvals/request").post(approvals::request_approval).done())
        .service(path("/v1/approvals/pending").get(approvals::pending).done())
        .service(path("/v1/approvals/{request_id}").get(approvals::get).done())
        .service(path("/v1/approvals/{request_id}/approve").post(approvals::approve).done())
        .service(path("/v1/approvals/{request_id}/deny").post(approvals::deny).done())
        .service(path("/approvals/{request_id}").get(approval_page::show).post(approval_page::decide).done())
        .service(path("/v1/audit").post(audit::log).get(audit::trail).done())
        .service(path("/v1/audit/spend").get(audit::spend).done())
        .service(path("/v1/audit/verify").get(audit::verify).done())
        .service(path("/v1/audit/export").get(audit_export::export).done())
        .service(path("/v1/audit/export/manifest").get(audit_export::manifest).done())
        .service(path("/v1/audit/tree-head").get(proofs::tree_head).done())
        .service(path("/v1/audit/inclusion-proof/{entry_id}").get(proofs::inclusion).done())
        .service(path("/v1/audit/consistency-proof").get(proofs::consistency).done())
        .service(path("/v1/audit/sth-log").get(proofs::tree_head_log).done())
        .service(path("/v1/audit/sth-log/verify").get(proofs::check_pin).done())
        .service(path("/v1/anomalies").get(anomalies::find).done())
        .service(path("/v1/anomalies/rules").post(anomalies::add_rule).get(anomalies::rules).done())
        .service(path("/v1/anomalies/rules/{rule_id}").delete(anomalies::remove_rule).done())
        .service(path("/v1/ledger/export").get(ledger::export).done())
        .service(path("/v1/ledger/events").get(ledger::events).done())
        .service(path("/v1/ledger/state").get(past::state).done())
        .service(path("/v1/ledger/checkpoint").get(proofs::checkpoint).done())
        .service(path("/v1/ledger/proof/{entry}").get(proofs::proof_file).done())
        .service(path("/.well-known/jwks.json").get(proofs::jwks).done())
        .service(path("/v1/webhooks").post(webhooks::register).get(webhooks::list).done())
        .service(path("/v1/webhooks/deliveries").get(webhooks::deliveries).done())
        .service(path("/v1/webhooks/deliveries/{event_id}/redeliver").post(webhooks::redeliver).done())
        .service(path("/v1/webhooks/dead-letters").get(webhooks::dead_letters).done())
        .service(path("/v1/webhooks/{webhook_id}").delete(webhooks::remove).done())
        .service(path("/v1/webhooks/{webhook_id}/rotate-secret").post(webhooks::rotate).done())
        .service(path("/v1/webhooks/{webhook_id}/test").post(webhooks::test).done())
        .service(path("/v1/proxy/upstreams").post(proxy::register).get(proxy::list).done())
        .service(path("/v1/proxy/upstreams/{name}").delete(proxy::remove).done())
        .service(path("/v1/proxy/upstreams/{name}/reconnect").post(proxy::reconnect).done())
        .service(path("/v1/proxy/upstreams/{name}/tools").get(proxy::pins).done())
        .service(path("/v1/proxy/upstreams/{name}/tools/{tool}/accept").post(proxy::accept).done())
        .service(path("/v1/proxy/tools").get(proxy::tools).done())
        .service(path("/v1/proxy/call").post(proxy::call).done())
        .service(path("/v1/proxy/calls").get(proxy::open_calls).done())
        .service(path("/v1/proxy/calls/{call_id}/resolve").post(proxy::resolve).done())
        .service(
            path("/v1/proxy/policies").post(policies::add).get(policies::list).put(policies::replace).done(),
        )
        .service(path("/v1/proxy/policies/explain").post(policies::explain).done())
        .service(path("/v1/proxy/policies/replay").post(policies::replay).done())
        .service(path("/v1/proxy/policies/{policy_id}").delete(policies::remove).done())
        .service(path("/v1/usage").get(usage::report).done())
        .service(path("/v1/compliance/evidence").get(compliance::evidence).done())
        .service(path("/v1/compliance/evidence/manifest").get(compliance::manifest).done())
        .service(path("/v1/compliance/score").get(compliance::score).done())
        .service(
            path("/v1/compliance/schedules")
                .post(compliance::create_schedule)
                .get(compliance::list_schedules)
                .done(),
        )
        .service(path("/v1/compliance/schedules/{schedule_id}").delete(compliance::remove_schedule).done())
        .service(path("/v1").get(health::index).done())
        .service(path("/healthz").get(health::healthz).done())
        .service(path("/health").get(health::healthz).done())
        .service(path("/livez").get(health::livez).done())
        .service(path("/readyz").get(health::readyz).done())
        .service(path("/openapi.json").get(openapi::document).done())
        .default_service(web::to(unknown));
}

/// A path and its methods.
pub struct Path {
    resource: Resource,
    methods: Vec<&'static str>,
}

/// A path without methods yet.
#[must_use]
pub fn path(template: &str) -> Path {
    Path { resource: web::resource(template), methods: vec!["OPTIONS"] }
}

/// The same where the last parameter is the rest of the path, slashes included.
fn rest_of_path(template: &str) -> Path {
    path(&template.replace('}', ":.*}"))
}

impl Path {
    /// What the handlers of this path have in common.
    #[must_use]
    pub fn data<T: 'static>(self, data: T) -> Self {
        Self { resource: self.resource.app_data(data), ..self }
    }

    /// `GET`, and `HEAD` with it.
    #[must_use]
    pub fn get<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.methods.extend(["GET", "HEAD"]);
        self.add(web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler))
    }

    /// `POST`.
    #[must_use]
    pub fn post<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.methods.push("POST");
        self.add(web::post().to(handler))
    }

    /// `PUT`.
    #[must_use]
    pub fn put<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.methods.push("PUT");
        self.add(web::put().to(handler))
    }

    /// `DELETE`.
    #[must_use]
    pub fn delete<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.methods.push("DELETE");
        self.add(web::delete().to(handler))
    }

    fn add(self, route: Route) -> Self {
        Self { resource: self.resource.route(route), ..self }
    }

    /// Answers `OPTIONS`, and 405 to every other method.
    #[must_use]
    pub fn done(mut self) -> Resource {
        self.methods.sort_unstable();
        let methods = self.methods.join(", ");
        self.resource.default_service(web::to(move |request: HttpRequest| {
            let methods = methods.clone();
            async move {
                if request.method() == Method::OPTIONS {
                    return Ok(HttpResponse::Ok().insert_header((ALLOW, methods)).finish());
                }
                Err(ApiError::MethodNotAllowed)
            }
        }))
    }
}

/// Paths with repeated slashes are sent to the one they mean; others do not exist.
async fn unknown(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = request.path();
    if !path.contains("//") {
        return Err(ApiError::RouteUnknown);
    }
    let mut location = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        location.push('/');
        location.push_str(part);
    }
    if location.is_empty() {
        location.push('/');
    }
    if !request.query_string().is_empty() {
        location.push('?');
        location.push_str(request.query_string());
    }
    Ok(HttpResponse::PermanentRedirect().insert_header((LOCATION, location)).finish())
}
