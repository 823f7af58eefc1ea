//! Do calls reach upstreams of every kind, and does a bad upstream harm nobody but itself?

#![expect(deprecated, reason = "what the newer generation does without is spoken, too")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use haldir::domain::id::TenantId;
use haldir::outbound::client::Client;
use haldir::outbound::names::SystemNames;
use haldir::proxy::address::{Address, Line, Pair};
use haldir::proxy::connection::Connection;
use haldir::proxy::failure::CallError;
use haldir::proxy::relay::{Relay, Talk};
use haldir::proxy::settings::UpstreamSettings;
use haldir::proxy::upstreams::Upstreams;
use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientResult, ElicitResult,
    ElicitationAction, ErrorData, ServerNotification, ServerRequest,
};
use zeroize::Zeroizing;

mod children;
pub(crate) mod fixture;
mod hostile;
mod speech;

/// A pool with short times.
fn pool(adjust: impl FnOnce(&mut UpstreamSettings)) -> Upstreams {
    let mut settings = UpstreamSettings {
        call_timeout: Duration::from_secs(1),
        call_timeout_max: Duration::from_secs(3),
        answer_len_max: 1 << 20,
        ..UpstreamSettings::default()
    };
    adjust(&mut settings);
    let client = Client::new(Arc::new(SystemNames), true).unwrap();
    Upstreams::new(client, settings, [7; 32]).unwrap()
}

fn line() -> Line {
    line_of(None)
}

fn line_of(of: Option<&str>) -> Line {
    let tenant = TenantId::parse("tnt_0123456789abcdef").unwrap();
    Line { tenant, upstream: "tools".to_owned(), of: of.map(str::to_owned) }
}

fn http(url: &str) -> Address {
    Address::Http { url: url.to_owned(), headers: Vec::new() }
}

fn pair(name: &str, value: &str) -> Pair {
    (name.to_owned(), Zeroizing::new(value.to_owned()))
}

fn params(tool: &str, arguments: &serde_json::Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.as_object().unwrap().clone())
}

async fn call(connection: &Connection, tool: &str) -> Result<String, CallError> {
    call_with(connection, tool, Talk::default()).await
}

/// The text that a tool answers with.
async fn call_with(connection: &Connection, tool: &str, talk: Talk<'_>) -> Result<String, CallError> {
    match connection.call(params(tool, &serde_json::json!({})), talk).await? {
        CallToolResponse::Complete(result) => {
            Ok(result.content.iter().filter_map(|block| block.as_text()).map(|it| it.text.as_str()).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// Somebody who takes notes, and accepts whatever is asked.
#[derive(Default)]
struct Notes {
    heard: Mutex<Vec<String>>,
}

impl Relay for Notes {
    fn capabilities(&self) -> ClientCapabilities {
        ClientCapabilities::builder().enable_elicitation().build()
    }

    fn notified(&self, notification: ServerNotification) -> BoxFuture<'_, ()> {
        let note = match notification {
            ServerNotification::ProgressNotification(it) => format!("progress {}", it.params.progress),
            ServerNotification::LoggingMessageNotification(it) => format!("log {}", it.params.data),
            other => format!("{other:?}"),
        };
        self.heard.lock().push(note);
        Box::pin(std::future::ready(()))
    }

    fn asked(&self, request: ServerRequest) -> BoxFuture<'_, Result<ClientResult, ErrorData>> {
        assert!(matches!(request, ServerRequest::ElicitRequest(_)), "{request:?}");
        self.heard.lock().push("elicitation".to_owned());
        let content = serde_json::json!({"color": "blue"});
        let accepted = ElicitResult::new(ElicitationAction::Accept).with_content(content);
        Box::pin(std::future::ready(Ok(ClientResult::ElicitResult(accepted))))
    }
}
