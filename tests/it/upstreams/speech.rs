//! Both generations of the protocol, and none of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use haldir::mcp::bridge::Mode;
use haldir::proxy::address::Address;
use haldir::proxy::failure::CallError;
use haldir::proxy::relay::Talk;
use rmcp::model::ProtocolVersion;
use serde_json::json;

use super::fixture::start;
use super::hostile::{json_answer, serve};
use super::{Notes, call, call_with, http, line, line_of, pair, params, pool};

const OLD: ProtocolVersion = ProtocolVersion::V_2025_11_25;
const NEW: ProtocolVersion = ProtocolVersion::V_2026_07_28;

#[tokio::test]
async fn both_generations_are_spoken() {
    for (mode, newest) in
        [(Mode::Sessions, OLD), (Mode::Stateless, OLD), (Mode::Sessions, NEW), (Mode::Stateless, NEW)]
    {
        let (url, seen) = start(mode, newest.clone());
        let pool = pool(|_| {});
        let connection = pool.connect(&line(), http(&url), None).await.unwrap();
        assert_eq!(connection.protocol_version(), Some(newest.clone()), "{mode:?}");
        assert_eq!(connection.instructions().as_deref(), Some("Be kind."));
        assert_eq!(connection.tools().await.unwrap().len(), 8, "all pages are read");
        let echo = connection.call(params("echo", &json!({"a": [1, "b"]})), Talk::default()).await.unwrap();
        let rmcp::model::CallToolResponse::Complete(result) = echo else { panic!("{echo:?}") };
        assert_eq!(result.content[0].as_text().unwrap().text, r#"{"a":[1,"b"]}"#);

        let refusal = call(&connection, "refuse").await.unwrap_err();
        let data = Some(json!({"tried": "refuse"}));
        let message = "no such thing".to_owned();
        assert_eq!(refusal, CallError::Refused { code: -32602, message, data });
        assert_eq!(call(&connection, "large").await, Err(CallError::TooLarge), "{mode:?} {newest}");
        assert_eq!(call(&connection, "echo").await.unwrap(), "{}", "the connection lives on");

        let notes = Notes::default();
        assert_eq!(call_with(&connection, "steps", Talk::with(&notes)).await.unwrap(), "done");
        assert_eq!(*notes.heard.lock(), ["progress 1", "progress 2", "progress 3"], "{mode:?} {newest}");

        // The second connection knows what is spoken: with the newer generation nothing is said before the first call.
        let before = seen.requests.load(Ordering::SeqCst);
        let again = pool.connect(&line(), http(&url), None).await.unwrap();
        assert!(Arc::ptr_eq(&connection, &again));
        assert_eq!(seen.requests.load(Ordering::SeqCst), before);
        pool.close_all(Duration::from_secs(5)).await;
        assert!(connection.is_closed() && pool.connection_count() == 0);
        let late = call(&connection, "echo").await.unwrap_err();
        assert!(late.is_unsent(), "{late}");
    }
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let (url, _) = start(Mode::Stateless, NEW);
    let pool = pool(|_| {});
    let line = line();
    let connections = (0..32).map(|_| pool.connect(&line, http(&url), None));
    let connections = futures_util::future::join_all(connections).await;
    let first = connections[0].as_ref().unwrap();
    assert!(connections.iter().all(|it| Arc::ptr_eq(it.as_ref().unwrap(), first)));
    let waiting: Vec<_> = (0..20).map(|_| call(first, "wait")).collect();
    let quick = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..50 {
            assert_eq!(call(first, "echo").await.unwrap(), "{}", "those who hang block nobody");
        }
    };
    let (hung, ()) = tokio::join!(futures_util::future::join_all(waiting), quick);
    assert!(hung.iter().all(|outcome| *outcome == Err(CallError::TimedOut)), "{hung:?}");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled() {
    for (mode, newest) in [(Mode::Sessions, OLD), (Mode::Stateless, NEW)] {
        let (url, seen) = start(mode, newest);
        let pool = pool(|_| {});
        let connection = pool.connect(&line(), http(&url), None).await.unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(200), call(&connection, "wait")).await;
        assert!(dropped.is_err());
        for _ in 0..100 {
            if seen.was_cancelled.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(seen.was_cancelled.load(Ordering::SeqCst), "{mode:?}");
        assert_eq!(call(&connection, "echo").await.unwrap(), "{}");
    }
}

#[tokio::test]
async fn an_upstream_asks_whoever_stands_behind_the_call_and_nobody_else() {
    let (url, _) = start(Mode::Sessions, OLD);
    let pool = pool(|_| {});
    let notes = Arc::new(Notes::default());
    let relay = Some(Arc::clone(&notes) as Arc<dyn haldir::proxy::relay::Relay>);
    let own = pool.connect(&line_of(Some("client")), http(&url), relay).await.unwrap();
    let answer = call_with(&own, "ask", Talk::with(&*notes)).await.unwrap();
    assert_eq!(answer, r#"{"color":"blue"}"#);
    assert_eq!(call_with(&own, "log", Talk::with(&*notes)).await.unwrap(), "logged");
    assert_eq!(*notes.heard.lock(), ["elicitation", "log \"said\""]);

    let shared = pool.connect(&line(), http(&url), None).await.unwrap();
    assert!(!Arc::ptr_eq(&own, &shared));
    let refused = call(&shared, "ask").await.unwrap();
    assert!(refused.to_lowercase().contains("elicitation"), "{refused}");

    pool.close_of("client");
    assert!(pool.connected(&line_of(Some("client"))).is_none() && pool.connected(&line()).is_some());
}

#[tokio::test]
async fn secrets_in_headers_arrive_and_another_secret_is_another_connection() {
    let (url, _) = start(Mode::Stateless, NEW);
    let pool = pool(|_| {});
    let with = |value: &str| Address::Http { url: url.clone(), headers: vec![pair("X-Secret", value)] };
    let first = pool.connect(&line(), with("one"), None).await.unwrap();
    assert_eq!(call(&first, "header").await.unwrap(), "one");
    let second = pool.connect(&line(), with("two"), None).await.unwrap();
    assert_eq!(call(&second, "header").await.unwrap(), "two");
    assert!(!Arc::ptr_eq(&first, &second) && pool.connection_count() == 1);

    for (name, why) in [("Mcp-Session-Id", "is set by Haldir"), ("bad name", "has no valid name")] {
        let address = Address::Http { url: url.clone(), headers: vec![pair(name, "x")] };
        let refused = pool.connect(&line(), address, None).await.err().unwrap();
        assert!(refused.is_unsent() && refused.to_string().contains(why), "{refused}");
    }
}

#[tokio::test]
async fn upstreams_without_the_protocol_are_called_as_before() {
    let url = serve(|request| {
        let message: serde_json::Value = serde_json::from_str(&request).ok()?;
        let id = &message["id"];
        let tools = json!([{"name": "add", "description": "Adds"}]);
        Some(json_answer(200, &match message["method"].as_str()? {
            "tools/list" => json!({"jsonrpc": "2.0", "id": id, "result": {"tools": tools}}),
            "tools/call" if message["params"]["name"] == "add" => {
                let content = json!([{"type": "text", "text": message["params"]["arguments"].to_string()}]);
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": content}})
            }
            "tools/call" => json!({"jsonrpc": "2.0", "id": id, "result": null}),
            _ => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}),
        }))
    })
    .await;
    let pool = pool(|_| {});
    let connection = pool.connect(&line(), http(&url), None).await.unwrap();
    assert_eq!(connection.protocol_version(), None);
    let tools = connection.tools().await.unwrap();
    assert_eq!((&*tools[0].name, json!(tools[0].input_schema)), ("add", json!({"type": "object"})));
    assert_eq!(call(&connection, "add").await.unwrap(), "{}");
    assert_eq!(call(&connection, "nothing").await.unwrap(), "Empty response");
}
