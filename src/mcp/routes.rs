//! The paths of this edge, beside those of the REST edge.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::ACCEPT;
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, web};

use super::access::Access;
use super::bridge::{Endpoint, Mode};
use super::catalogue::Face;
use super::discovery;
use super::inner::Inner;
use super::proxy::{self, Proxy};
use super::server::Server;
use crate::http::caller::AnyKey;
use crate::http::error::ApiError;
use crate::http::routes::path;
use crate::operations::App;

/// The endpoints, which all threads that serve connections share.
#[derive(Clone)]
pub struct Endpoints {
    haldir: Arc<Endpoint<Server<Inner>>>,
    proxy: Proxy,
}

impl Endpoints {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// When there is no thread for the REST edge that tools ask.
    pub fn start(app: &Arc<App>, access: Access) -> std::io::Result<Self> {
        let inner = Arc::new(Inner::start(Arc::clone(app))?);
        let server = move || Server::new(Arc::clone(&inner), Face::Http);
        let proxy = Proxy::new(app, access.clone());
        // The tools ask nothing of clients: there is nothing to remember between requests.
        Ok(Self { haldir: Arc::new(Endpoint::new(server, access, Mode::Stateless)), proxy })
    }

    /// Adds the routes.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::from(Arc::clone(&self.haldir)))
            .app_data(web::Data::from(Arc::clone(&self.proxy.endpoint)))
            .service(path("/mcp").post(call).get(describe).done())
            .service(path("/mcp/proxy").get(proxy::serve).post(proxy::serve).delete(proxy::serve).done())
            .service(
                path("/mcp/proxy/{upstream}")
                    .get(proxy::serve)
                    .post(proxy::serve)
                    .delete(proxy::serve)
                    .done(),
            )
            .service(path("/.well-known/mcp/mcp.json").get(endpoint).done())
            .service(path("/.well-known/mcp/server-card.json").get(card).done());
    }

    /// Ends streams, so that the server can stop.
    pub fn stop(&self) {
        self.haldir.stop();
        self.proxy.endpoint.stop();
    }

    /// Ends what goes on without requests, so that it is on record before the server is gone.
    pub async fn end(&self, within: Duration) {
        self.proxy.end(within).await;
    }
}

type Haldir = web::Data<Endpoint<Server<Inner>>>;

async fn call(
    endpoint: Haldir,
    AnyKey(caller): AnyKey,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    endpoint.handle(&request, payload, Some(caller)).await
}

/// The description, unless a client wants a stream.
async fn describe(
    endpoint: Haldir,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let accepted = request.headers().get_all(ACCEPT).filter_map(|accept| accept.to_str().ok());
    let wants_stream = accepted.into_iter().any(|accept| accept.contains("text/event-stream"));
    if !wants_stream {
        return Ok(HttpResponse::Ok().json(discovery::description()));
    }
    let AnyKey(caller) = AnyKey::extract(&request).await?;
    endpoint.handle(&request, payload, Some(caller)).await
}

async fn endpoint(app: web::Data<Arc<App>>) -> HttpResponse {
    HttpResponse::Ok().json(discovery::endpoint(base_url(&app)))
}

async fn card(app: web::Data<Arc<App>>) -> HttpResponse {
    HttpResponse::Ok().json(discovery::card(base_url(&app)))
}

fn base_url(app: &App) -> &str {
    app.public_url.get().map_or("", String::as_str)
}
