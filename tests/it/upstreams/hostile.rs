//! Upstreams that lie, hang, die and flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use haldir::outbound::client::Client;
use haldir::outbound::names::SystemNames;
use haldir::proxy::failure::CallError;
use haldir::proxy::settings::UpstreamSettings;
use haldir::proxy::upstreams::Upstreams;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{call, http, line, pool};

/// An answer with a JSON body.
pub(super) fn json_answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Reads one request, and gives its body; nothing when the client has gone.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let len = text.split("content-length: ").nth(1).and_then(|it| it.split("\r\n").next());
            let len: usize = len.map_or(0, |len| len.parse().unwrap());
            if bytes.len() >= end + 4 + len {
                return Some(String::from_utf8_lossy(&bytes[end + 4..]).into_owned());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(len) if len > 0 => bytes.extend_from_slice(&buffer[..len]),
            _ => return None,
        }
    }
}

/// An upstream that answers each request with bytes, or closes the connection.
pub(super) async fn serve(answer: impl Fn(String) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    let answer = Arc::new(answer);
    accept(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let Some(bytes) = answer(request) else { return };
                let _ = stream.write_all(&bytes).await;
            }
        }
    })
    .await
}

/// An upstream that does as it likes with each connection.
async fn accept<F, Done>(serve: F) -> String
where
    F: Fn(TcpStream) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    format!("http://127.0.0.1:{port}/mcp")
}

/// An upstream of the newer generation that answers calls with whatever `answer` makes of the id.
async fn lying(answer: impl Fn(TcpStream, Value) -> BoxFuture + Send + Sync + 'static) -> String {
    let answer = Arc::new(answer);
    accept(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let message: Value = serde_json::from_str(&request).unwrap_or_default();
                if message["method"] == "server/discover" {
                    let bytes = json_answer(200, &discovered(&message["id"]));
                    let _ = stream.write_all(&bytes).await;
                } else {
                    return answer(stream, message).await;
                }
            }
        }
    })
    .await
}

type BoxFuture = futures_util::future::BoxFuture<'static, ()>;

fn discovered(id: &Value) -> Value {
    let result = json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "private",
    });
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn result(id: &Value, text: &str) -> Value {
    let result = json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// What comes of a call to such an upstream, and how long it takes.
async fn outcome(url: &str) -> (Result<String, CallError>, Duration) {
    let pool = pool(|_| {});
    let connection = pool.connect(&line(), http(url), None).await.unwrap();
    let started = Instant::now();
    (call(&connection, "any").await, started.elapsed())
}

#[tokio::test]
async fn the_honest_one_is_understood() {
    let url = lying(|mut stream, message| {
        Box::pin(async move {
            let _ = stream.write_all(&json_answer(200, &result(&message["id"], "yes"))).await;
        })
    })
    .await;
    assert_eq!(outcome(&url).await.0, Ok("yes".to_owned()));
}

#[tokio::test]
async fn one_that_hangs_is_left_in_time() {
    let url = lying(|stream, _| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        })
    })
    .await;
    let (outcome, took) = outcome(&url).await;
    assert_eq!(outcome, Err(CallError::TimedOut));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn one_that_dies_in_the_middle_leaves_the_outcome_open() {
    for beginning in
        ["", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"j"]
    {
        let url = lying(move |mut stream, _| {
            Box::pin(async move {
                let _ = stream.write_all(beginning.as_bytes()).await;
            })
        })
        .await;
        let (outcome, _) = outcome(&url).await;
        assert!(matches!(outcome, Err(CallError::Lost(_))), "{beginning}: {outcome:?}");
    }
    let streaming = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"jso";
    let url = lying(move |mut stream, _| {
        Box::pin(async move {
            let _ = stream.write_all(streaming.as_bytes()).await;
        })
    })
    .await;
    let (outcome, _) = outcome(&url).await;
    assert!(matches!(outcome, Err(CallError::Lost(_))), "{outcome:?}");
}

#[tokio::test]
async fn nobody_there_means_nothing_was_sent() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let pool = pool(|_| {});
    let url = format!("http://127.0.0.1:{free}/mcp");
    let error = pool.connect(&line(), http(&url), None).await.err().unwrap();
    assert!(error.is_unsent(), "{error:?}");

    // An upstream that was there, and is gone when it is called.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let once = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request: Value = serde_json::from_str(&read_request(&mut stream).await.unwrap()).unwrap();
        let answer = json_answer(200, &discovered(&request["id"]));
        stream.write_all(&answer).await.unwrap();
    });
    let connection = pool.connect(&line(), http(&url), None).await.unwrap();
    once.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = call(&connection, "any").await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
}

#[tokio::test]
async fn one_that_sends_a_hundred_megabytes_is_cut_off_early() {
    for kind in ["application/json", "text/event-stream"] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let url = lying(move |mut stream, _| {
            let count = Arc::clone(&count);
            Box::pin(async move {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\ndata: \"");
                let _ = stream.write_all(head.as_bytes()).await;
                for _ in 0..100 {
                    if stream.write_all(&vec![b'x'; 1 << 20]).await.is_err() {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .await;
        let (outcome, took) = outcome(&url).await;
        assert_eq!(outcome, Err(CallError::TooLarge), "{kind}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(sent.load(Ordering::SeqCst) < 20, "{kind}: {} MiB were taken", sent.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn one_that_streams_for_ever_is_ended_by_the_time() {
    // Comments, and progress, which extends the time up to a bound.
    for (event, at_least, at_most) in [
        (": still here\n\n".to_owned(), Duration::from_millis(900), Duration::from_secs(2)),
        (progress(), Duration::from_millis(2900), Duration::from_secs(4)),
    ] {
        let url = lying(move |mut stream, message| {
            let event = event.replace("TOKEN", &message["params"]["_meta"]["progressToken"].to_string());
            Box::pin(async move {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(event.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .await;
        let (outcome, took) = outcome(&url).await;
        assert_eq!(outcome, Err(CallError::TimedOut));
        assert!((at_least..at_most).contains(&took), "{took:?}");
    }
}

fn progress() -> String {
    let params = r#"{"progressToken": TOKEN, "progress": 1}"#;
    format!(
        "data: {{\"jsonrpc\": \"2.0\", \"method\": \"notifications/progress\", \"params\": {params}}}\n\n"
    )
}

#[tokio::test]
async fn an_answer_to_another_request_is_no_answer() {
    let url = lying(|mut stream, _| {
        Box::pin(async move {
            let _ = stream.write_all(&json_answer(200, &result(&json!(4711), "for somebody else"))).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
    })
    .await;
    assert_eq!(outcome(&url).await.0, Err(CallError::TimedOut));
}

#[tokio::test]
async fn what_is_no_message_has_a_name() {
    let cases: [(Vec<u8>, CallError); 4] = [
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 6\r\n\r\nsecret".to_vec(), CallError::Status(500)),
        (b"HTTP/1.1 404 Nothing\r\ncontent-length: 0\r\n\r\n".to_vec(), CallError::Status(404)),
        (
            json_answer(200, &json!({"hello": "world"})),
            CallError::Malformed("it is no message of the protocol".to_owned()),
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>".to_vec(),
            CallError::Malformed("it is no message of the protocol".to_owned()),
        ),
    ];
    for (bytes, expected) in cases {
        let url = lying(move |mut stream, _| {
            let bytes = bytes.clone();
            Box::pin(async move {
                let _ = stream.write_all(&bytes).await;
            })
        })
        .await;
        assert_eq!(outcome(&url).await.0, Err(expected));
    }
}

#[tokio::test]
async fn redirects_lead_nowhere_and_private_places_are_not_asked() {
    let inside = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&inside);
    let target = serve(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    })
    .await;
    let redirect =
        format!("HTTP/1.1 307 Elsewhere\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let url = lying(move |mut stream, _| {
        let redirect = redirect.clone();
        Box::pin(async move {
            let _ = stream.write_all(&redirect).await;
        })
    })
    .await;
    assert_eq!(outcome(&url).await.0, Err(CallError::Status(307)));

    let guarded = Client::new(Arc::new(SystemNames), false).unwrap();
    let guarded = Upstreams::new(guarded, UpstreamSettings::default(), [7; 32]).unwrap();
    for url in
        [target.clone(), target.replace("127.0.0.1", "localhost"), target.replace("127.0.0.1", "[::1]")]
    {
        let error = guarded.connect(&line(), http(&url), None).await.err().unwrap();
        assert!(error.is_unsent() && error.to_string().contains("not public"), "{url}: {error}");
        assert!(guarded.check(&http(&url)).await.is_err());
    }
    assert_eq!(inside.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn lists_are_bounded() {
    let tools = |count: usize, description: &str| {
        let tool =
            |index| json!({"name": format!("t{index}"), "description": description, "inputSchema": {}});
        (0..count).map(tool).collect::<Vec<Value>>()
    };
    let endless = Some("again");
    for (tools, cursor, problem) in [
        (tools(256, ""), None, None),
        (tools(257, ""), None, Some("more than 256 tools")),
        (tools(1, &"x".repeat(65 << 10)), None, Some("larger than 65536 bytes")),
        (tools(1, ""), endless, Some("has no end")),
        (vec![], endless, Some("has no end")),
    ] {
        let url = serve(move |request| {
            let message: Value = serde_json::from_str(&request).ok()?;
            let id = &message["id"];
            let mut list =
                json!({"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"});
            if let Some(cursor) = cursor {
                list["nextCursor"] = json!(cursor);
            }
            Some(json_answer(
                200,
                &match message["method"].as_str()? {
                    "server/discover" => discovered(id),
                    _ => json!({"jsonrpc": "2.0", "id": id, "result": list}),
                },
            ))
        })
        .await;
        let pool = pool(|_| {});
        let connection = pool.connect(&line(), http(&url), None).await.unwrap();
        match (connection.tools().await, problem) {
            (Ok(tools), None) => assert_eq!(tools.len(), 256),
            (Err(error), Some(problem)) => assert!(error.to_string().contains(problem), "{error}"),
            (got, _) => panic!("{problem:?}: {got:?}"),
        }
    }
}

#[tokio::test]
async fn those_who_wait_for_a_dead_upstream_wait_once() {
    let url = accept(|stream| async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(stream);
    })
    .await;
    let pool = pool(|_| {});
    let started = Instant::now();
    let line = line();
    let all = futures_util::future::join_all((0..20).map(|_| pool.connect(&line, http(&url), None))).await;
    assert!(all.iter().all(Result::is_err));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
