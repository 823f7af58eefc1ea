//! What the CLI needs to talk to a server: where it is and with which key.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;

use actix_web::web::Bytes;
use futures_util::{Stream, StreamExt as _};
pub use reqwest::Method;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Serialize;
use serde_json::{Map, Value};

use super::installation::Installation;
pub use crate::http::query::percent_encoded;
use crate::outbound::client::build;

/// Where the CLI finds the server when nothing else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8000";

/// A server and the key to talk to it with.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Base URL without a slash at its end.
    pub url: String,
    /// API key.
    pub key: Option<String>,
}

impl Connection {
    /// Flags and environment first, then `config.json` in the data directory.
    #[must_use]
    pub fn find(url: Option<String>, key: Option<String>, data_dir: &Path) -> Self {
        let config = read_config(data_dir);
        let text = |name: &str| config.get(name).and_then(Value::as_str).map(str::to_owned);
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let url = given(url).or_else(|| text("base_url")).unwrap_or_else(|| DEFAULT_URL.to_owned());
        Self { url: url.trim_end_matches('/').to_owned(), key: given(key).or_else(|| text("api_key")) }
    }
}

impl Connection {
    /// The API key.
    ///
    /// # Errors
    ///
    /// A sentence, when there is none.
    pub fn key(&self) -> Result<&str, String> {
        self.key.as_deref().ok_or_else(|| "no API key: use --key, HALDIR_API_KEY or config.json".to_owned())
    }
}

/// Asks a server for something and reads its answer as it arrives.
///
/// # Errors
///
/// A sentence, when there is no answer, or one that says no.
pub fn get(url: &str, key: &str, headers: &[(&'static str, String)]) -> Result<impl Read + use<>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let client = build(|| reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()))?;
    let response = runtime.block_on(async {
        let request = client.get(url).bearer_auth(key);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        request.send().await
    });
    let response = response.map_err(|error| format!("cannot reach {url}: {}", innermost(&error)))?;
    let status = response.status();
    let stream = response.bytes_stream();
    let mut body = Body { runtime, stream: Box::pin(stream), chunk: Bytes::new() };
    if status.is_success() {
        return Ok(body);
    }
    let mut text = String::new();
    let _ = (&mut body).take(64 * 1024).read_to_string(&mut text);
    Err(refusal(url, status, &text))
}

/// What sends requests whose answers are streams.
///
/// # Errors
///
/// A sentence, when TLS cannot be set up.
pub fn streaming_client() -> Result<reqwest::Client, String> {
    build(|| reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()))
}

/// What a server answered to [`ask`].
#[derive(Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// A sentence, when it is none.
    pub fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.body).map_err(|error| format!("the server's answer is no JSON: {error}"))
    }
}

/// Asks a server for something, with a JSON body if there is one, and reads its whole answer.
///
/// # Errors
///
/// A sentence, when there is no answer, or one that says no.
pub fn ask<B: Serialize + ?Sized>(
    method: Method,
    url: &str,
    key: &str,
    body: Option<&B>,
) -> Result<Answer, String> {
    let body = body.map(serde_json::to_string).transpose().map_err(|error| error.to_string())?;
    let (status, answer) = exchange(method, url, key, body)?;
    if status.is_success() { Ok(answer) } else { Err(refusal(url, status, &answer.body)) }
}

/// Posts a call through the proxy and reads its result, which comes with another status when it failed or was denied.
///
/// # Errors
///
/// A sentence, when there is no result.
pub fn ask_for_result(url: &str, key: &str, body: &str) -> Result<Answer, String> {
    let (status, answer) = exchange(Method::POST, url, key, Some(body.to_owned()))?;
    let has_result = answer.json().is_ok_and(|result| result["content"].is_array());
    if has_result { Ok(answer) } else { Err(refusal(url, status, &answer.body)) }
}

fn exchange(
    method: Method,
    url: &str,
    key: &str,
    body: Option<String>,
) -> Result<(StatusCode, Answer), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let client = build(|| reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()))?;
    let answered = runtime.block_on(async {
        let request = client.request(method, url).bearer_auth(key);
        let request = body
            .into_iter()
            .fold(request, |request, body| request.header(CONTENT_TYPE, "application/json").body(body));
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, response.text().await?))
    });
    let (status, headers, body) =
        answered.map_err(|error| format!("cannot reach {url}: {}", innermost(&error)))?;
    Ok((status, Answer { headers, body }))
}

/// What a server that says no has to say.
fn refusal(url: &str, status: StatusCode, body: &str) -> String {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let why = answer["error"].as_str().unwrap_or("this does not look like a Haldir server");
    format!("{url} answered {status}: {why}")
}

/// A response body as a reader.
struct Body<S> {
    runtime: tokio::runtime::Runtime,
    stream: Pin<Box<S>>,
    chunk: Bytes,
}

impl<S: Stream<Item = reqwest::Result<Bytes>>> Read for Body<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(chunk) => self.chunk = chunk.map_err(std::io::Error::other)?,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.chunk.len());
        buffer[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}

/// What lies under a chain of errors, which is what a person can act on.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The CLI's configuration. One that cannot be read counts as empty.
#[must_use]
pub fn read_config(data_dir: &Path) -> Map<String, Value> {
    let text = fs::read_to_string(data_dir.join("config.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Stores key and URL for the CLI; other settings in the file stay.
///
/// # Errors
///
/// A sentence, when the file cannot be written.
pub fn write_config(installation: &Installation, key: Option<&str>, url: &str) -> Result<(), String> {
    let mut config = read_config(installation.dir());
    let before = config.clone();
    config.insert("base_url".to_owned(), Value::from(url));
    if let Some(key) = key {
        config.insert("api_key".to_owned(), Value::from(key));
    }
    if config == before {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&config).map_err(|error| error.to_string())? + "\n";
    installation.write_private("config.json", text.as_bytes())
}
