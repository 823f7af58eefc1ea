//! The REST edge within this process: the same routes and the same rules, without a socket and without a key.
//!
//! It has one thread of its own, because its handlers stay on the thread they started on, and the SDK's tasks do not.

use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use actix_http::{Payload, Request as HttpRequest};
use actix_service::{IntoServiceFactory as _, Service, ServiceFactory as _};
use actix_web::body::{BoxBody, to_bytes_limited};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri};
use actix_web::{App as Routes, Error, HttpMessage as _, middleware, rt, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};

use super::rest::{Answer, Backend, Failure, Request};
use crate::http::caller::Presented;
use crate::http::{edge, routes};
use crate::operations::{App, Caller};

/// Requests that wait to be begun.
const JOB_COUNT_MAX: usize = 256;
/// Bytes of an answer at most. An evidence pack of a year is smaller.
const ANSWER_LEN_MAX: usize = 64 << 20;

/// The REST edge within this process. It ends when the last of its handles is dropped.
#[derive(Debug, Clone)]
pub struct Inner {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    request: Request,
    caller: Caller,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

impl Inner {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(app: Arc<App>) -> std::io::Result<Self> {
        let (jobs, received) = mpsc::channel(JOB_COUNT_MAX);
        let run = move || match rt::Runtime::new() {
            Ok(runtime) => runtime.block_on(serve(app, received)),
            Err(error) => tracing::error!(%error, "tools cannot be called"),
        };
        thread::Builder::new().name("mcp".to_owned()).spawn(run)?;
        Ok(Self { jobs })
    }
}

impl Backend for Inner {
    async fn ask(&self, request: Request, caller: Option<Caller>) -> Result<Answer, Failure> {
        let caller = caller.ok_or_else(|| failure("an API key is required"))?;
        let (answer, answered) = oneshot::channel();
        let job = Job { request, caller, answer };
        self.jobs.send(job).await.map_err(|_| failure("the server is stopping"))?;
        answered.await.unwrap_or_else(|_| Err(failure("internal error")))
    }
}

fn failure(message: &str) -> Failure {
    Failure { kind: "dispatch_error", message: message.to_owned(), more: Vec::new() }
}

async fn serve(app: Arc<App>, mut jobs: mpsc::Receiver<Job>) {
    let routes = Routes::new()
        .app_data(web::Data::new(app))
        .configure(routes::configure)
        .wrap(middleware::from_fn(edge::edge));
    let Ok(service) = routes.into_factory().new_service(AppConfig::default()).await else {
        tracing::error!("tools cannot be called: the routes were not made");
        return;
    };
    let service = Rc::new(service);
    while let Some(job) = jobs.recv().await {
        let service = Rc::clone(&service);
        rt::spawn(async move {
            let answer = answer(&*service, job.request, job.caller).await;
            let _ = job.answer.send(answer.map_err(|why| {
                tracing::error!(why, "a tool got no answer");
                failure("internal error")
            }));
        });
    }
}

async fn answer<S>(service: &S, request: Request, caller: Caller) -> Result<Answer, String>
where
    S: Service<HttpRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    let request = http_request(request, caller)?;
    let response = service.call(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = to_bytes_limited(response.into_body(), ANSWER_LEN_MAX).await;
    let body = body.map_err(|_| format!("the answer has more than {ANSWER_LEN_MAX} bytes"))?;
    let body = body.map_err(|error| error.to_string())?;
    Ok(Answer { status, body: String::from_utf8(body.to_vec()).map_err(|error| error.to_string())? })
}

/// The request as the routes read it, in the name of a caller who was recognised before.
fn http_request(request: Request, caller: Caller) -> Result<HttpRequest, String> {
    let body = Bytes::from(request.body.unwrap_or_default());
    let chunks = stream::once(async move { Ok(body) });
    let payload: Payload = Payload::Stream { payload: Box::pin(chunks) };
    let mut made = HttpRequest::with_payload(payload);
    let head = made.head_mut();
    head.method = Method::from_bytes(request.method.as_bytes()).map_err(|error| error.to_string())?;
    head.uri = request.path.parse::<Uri>().map_err(|error| error.to_string())?;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let own = [("X-Request-ID", caller.request_id.to_string())];
    for (name, value) in request.headers.iter().chain(&own) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|error| error.to_string())?;
        head.headers.insert(name, value);
    }
    made.extensions_mut().insert(Presented::Key(caller));
    Ok(made)
}
