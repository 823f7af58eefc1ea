//! Puts headers on requests that the suite cannot be told to send: the API key, and the session.

use std::net::{SocketAddr, TcpListener};

use actix_web::http::StatusCode;
use actix_web::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::web::{Bytes, Data, PayloadConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use reqwest::Client;

/// Larger than anything that the suite sends.
const BODY_LEN_MAX: usize = 16 << 20;

struct Target {
    client: Client,
    origin: String,
    headers: Vec<(&'static str, String)>,
}

/// Forwards every request to this origin with these headers added. Bodies of answers are passed on as they come.
pub(crate) fn serve(origin: String, headers: Vec<(&'static str, String)>) -> SocketAddr {
    let client = haldir::outbound::client::build(|| Client::builder().no_proxy());
    let target = Data::new(Target { client: client.expect("a client needs nothing"), origin, headers });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let app = move || {
        let limit = PayloadConfig::new(BODY_LEN_MAX);
        App::new().app_data(target.clone()).app_data(limit).default_service(web::to(forward))
    };
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let server = HttpServer::new(app).workers(1).disable_signals().listen(listener);
            server.expect("it listens").run().await
        })
    });
    address
}

async fn forward(target: Data<Target>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).expect("it was a method");
    let mut forwarded = target.client.request(method, format!("{}{}", target.origin, request.uri()));
    // The host, too: some scenarios come with one that must be refused.
    for (name, value) in request.headers() {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            forwarded = forwarded.header(name.as_str(), value.as_bytes());
        }
    }
    for (name, value) in &target.headers {
        forwarded = forwarded.header(*name, value);
    }
    let answer = match forwarded.body(body).send().await {
        Ok(answer) => answer,
        Err(error) => return HttpResponse::BadGateway().body(error.to_string()),
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).expect("it was a status");
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers() {
        if ![CONNECTION.as_str(), TRANSFER_ENCODING.as_str(), CONTENT_LENGTH.as_str()]
            .contains(&name.as_str())
        {
            response.append_header((name.as_str(), value.as_bytes()));
        }
    }
    response.streaming(answer.bytes_stream())
}
