//! Settings: flags, environment and file, the limits they set, and what those limits look like to clients.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use haldir::domain::Event;
use haldir::domain::id::Actor;
use haldir::format::entry;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::server::{Answer, Client, Finished, Home, answer};

#[tokio::test]
async fn the_call_after_the_last_of_an_hour_is_turned_away_with_everything_a_client_needs_to_wait() {
    let server = Home::new().serve_with(&["--requests-per-hour", "3"], &[]);
    let client = server.client();
    let minted = client.post("/v1/keys", &json!({ "scopes": ["sessions:read"] })).await.expect(201);
    for used in 1..=3 {
        let answer = client.get("/v1/sessions").await;
        answer.expect(200);
        check_bucket(&answer, "x-ratelimit", 3, used);
        assert_eq!(answer.header("x-ratelimit-resource"), Some("hourly"));
        assert_eq!(answer.header("retry-after"), None);
    }
    // Before routing: even a path that does not exist.
    for path in ["/v1/sessions", "/v1/nothing"] {
        let answer = client.get(path).await;
        let body = answer.expect(429);
        assert_eq!(body["code"], "rate_limit_exceeded");
        assert_eq!(body["resource"], "hourly");
        assert_eq!(body["limit"], 3);
        assert!(body["error"].is_string() && body["tier"].is_string(), "{body}");
        assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
        assert_eq!(answer.header("x-ratelimit-monthly-limit"), None, "the month was not looked at");
        let retry_after = number(&answer, "retry-after");
        assert!((1..=3600).contains(&retry_after), "{retry_after}");
        assert_eq!(body["retry_after"], retry_after);
        assert_eq!(number(&answer, "x-ratelimit-reset-after"), retry_after);
    }
    // Minting and listing keys is not limited, nor is anything outside of /v1/; other keys have hours of their own.
    for path in ["/v1/keys", "/healthz"] {
        let answer = client.get(path).await;
        answer.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit"), None, "{path}");
    }
    client.with_key(minted["key"].as_str().unwrap()).get("/v1/sessions").await.expect(200);
    let unknown = client.with_key("hld_unknown").get("/v1/sessions").await;
    unknown.expect(401);
    assert_eq!(unknown.header("x-ratelimit-limit"), None);
}

#[tokio::test]
async fn a_months_quota_counts_calls_across_restarts() {
    let home = Home::new();
    let flags = ["--requests-per-month", "3"];
    let server = home.serve_with(&flags, &[]);
    let client = server.client();
    for used in 0..2 {
        let answer = client.get("/v1/sessions").await;
        answer.expect(200);
        check_bucket(&answer, "x-ratelimit-monthly", 3, used);
    }
    server.stop();

    let server = home.serve_with(&flags, &[]);
    let client = server.client();
    client.get("/v1/nothing").await.expect(404); // Whatever its status, it was a call.
    let answer = client.get("/v1/sessions").await;
    let body = answer.expect(429);
    assert_eq!(body["code"], "monthly_quota_exceeded");
    assert_eq!((&body["limit"], &body["used"], &body["resource"]), (&json!(3), &json!(3), &json!("monthly")));
    assert!(body["error"].is_string() && body["tier"].is_string() && body["upgrade"].is_string(), "{body}");
    assert_eq!(answer.header("x-ratelimit-resource"), Some("monthly"));
    check_bucket(&answer, "x-ratelimit-monthly", 3, 3);
    let retry_after = number(&answer, "retry-after");
    assert!((1..=31 * 86_400).contains(&retry_after), "{retry_after}");
    assert_eq!(body["retry_after"], retry_after);
    // A call that is turned away is not counted.
    assert_eq!(client.get("/v1/sessions").await.expect(429)["used"], 3);
}

#[tokio::test]
async fn calls_are_counted_once_although_the_server_stops_while_it_records_them() {
    let home = Home::new();
    let mut calls = 0;
    for _ in 0..8 {
        let server = home.serve_with(&["--meter-interval", "1ms"], &[]);
        let client = server.client();
        for _ in 0..3 {
            client.get("/v1/sessions").await.expect(200);
            calls += 1;
        }
        server.stop();
    }
    let usage = home.serve().client().get("/v1/usage").await.expect(200);
    assert_eq!(usage["action_count"], calls);
}

#[tokio::test]
async fn one_agent_too_many_is_denied_and_the_denial_recorded() {
    let server = Home::new().serve_with(&["--agents", "1"], &[]);
    let client = server.client();
    let open = async |agent: &str, retry_key: &str| {
        let request =
            client.request(reqwest::Method::POST, "/v1/sessions").header("Idempotency-Key", retry_key);
        answer(request.json(&json!({ "agent_id": agent }))).await
    };
    let first = open("first", "a").await.expect(201);
    open("first", "b").await.expect(201);
    let denied = open("second", "c").await.expect(403);
    assert_eq!((&denied["limit"], &denied["current"]), (&json!(1), &json!(1)), "{denied}");
    assert!(
        denied["error"].is_string() && denied["tier"].is_string() && denied["upgrade"].is_string(),
        "{denied}"
    );
    let events = events(&client).await;
    let [Event::SessionDenied(recorded)] =
        &events.iter().filter(|it| matches!(it, Event::SessionDenied(_))).collect::<Vec<_>>()[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((recorded.agent_id.as_str(), recorded.agent_limit, recorded.agents_live), ("second", 1, 1));

    // The denial is not final: once there is room, the same request succeeds.
    let sessions = client.get("/v1/sessions").await.expect(200);
    for session in sessions["sessions"].as_array().unwrap() {
        client.delete(&format!("/v1/sessions/{}", session["session_id"].as_str().unwrap())).await.expect(200);
    }
    let second = open("second", "c").await.expect(201);
    assert_ne!(second["session_id"], first["session_id"]);
}

#[tokio::test]
async fn a_key_without_the_scope_is_denied_and_the_denial_recorded() {
    let server = Home::new().serve();
    let client = server.client();
    let minted = client.post("/v1/keys", &json!({ "scopes": ["audit:read"] })).await.expect(201);
    let narrow = client.with_key(minted["key"].as_str().unwrap());
    let answer = narrow.post("/v1/sessions", &json!({ "agent_id": "agent" })).await;
    let body = answer.expect(403);
    assert_eq!(body["code"], "insufficient_scope");
    assert_eq!(body["required"], "sessions:write");
    assert_eq!(body["granted"], json!(["audit:read"]));
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    narrow.delete("/v1/sessions/some").await.expect(403);
    narrow.post("/v1/keys", &json!({ "scopes": ["audit:write", "audit:read"] })).await.expect(403);

    let prefix = minted["prefix"].as_str().unwrap();
    let mut denials = Vec::new();
    for recorded in recorded(&narrow).await {
        if let Event::AccessDenied(denied) = recorded.event {
            assert_eq!(recorded.actor, Actor::parse(&format!("key:{prefix}")).unwrap());
            denials.push((denied.required, denied.operation));
        }
    }
    let expected = [
        ("sessions:write", "POST /v1/sessions"),
        ("sessions:write", "DELETE /v1/sessions/{session_id}"),
        ("audit:read audit:write", "mint key"),
    ];
    assert_eq!(denials, expected.map(|(required, operation)| (required.to_owned(), operation.to_owned())));
}

#[tokio::test]
async fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let home = Home::new();
    let [in_file, in_env, in_flag] = free_ports();
    let file = format!("port = {in_file}\nagents = 1\nshutdown-timeout = \"2m\"\nno-key = false\n");
    fs::create_dir(home.data_dir()).unwrap();
    fs::write(home.data_dir().join("haldir.toml"), file).unwrap();
    let dir = home.data_dir().to_string_lossy().into_owned();
    let env_port = in_env.to_string();
    let flag_port = in_flag.to_string();
    let (env_dir, env_both) = (
        [("HALDIR_DATA_DIR", dir.as_str())],
        [("HALDIR_DATA_DIR", dir.as_str()), ("HALDIR_PORT", &env_port)],
    );
    for (args, env, port) in [
        (vec!["serve"], &env_dir[..], in_file),
        (vec!["serve"], &env_both[..], in_env),
        (vec!["serve", "--port", &flag_port], &env_both[..], in_flag),
    ] {
        let server = home.try_launch(&args, env).unwrap_or_else(|finished| panic!("{finished:#?}"));
        assert_eq!(server.address(), format!("127.0.0.1:{port}"));
        let client = server.client();
        client.post("/v1/sessions", &json!({ "agent_id": "first", "ttl": 0 })).await.expect(201);
        let denied = client.post("/v1/sessions", &json!({ "agent_id": "second" })).await.expect(403);
        assert_eq!(denied["limit"], 1, "from the file, whatever else is given");
        server.stop();
    }
}

#[tokio::test]
async fn a_file_can_be_named_and_durations_are_written_as_people_write_them() {
    let home = Home::new();
    let file = home.data_dir().with_file_name("elsewhere.toml");
    fs::write(&file, "shutdown-timeout = \"1s\"\nmeter-interval = \"1h 30m\"\nworkers = 1\n").unwrap();
    let server = home.serve_with(&["--config", &file.to_string_lossy()], &[]);
    server.client().get("/livez").await.expect(200);

    // A request that never ends holds the server up for as long as it was told to wait, not for 30 seconds.
    let mut stuck = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    stuck.write_all(b"POST /v1/keys HTTP/1.1\r\nHost: haldir\r\nContent-Length: 9\r\n\r\n{").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = Instant::now();
    server.stop();
    let took = asked.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&took), "{took:?}");
}

#[test]
fn a_mistake_in_a_setting_is_named() {
    let home = Home::new();
    fs::create_dir(home.data_dir()).unwrap();
    let file = home.data_dir().join("haldir.toml");
    for (mistake, named) in [
        ("prot = 8000\n", "prot"),
        ("port = \"eight\"\n", "port"),
        ("port = 70000\n", "port"),
        ("shutdown-timeout = \"soon\"\n", "shutdown-timeout"),
        ("shutdown-timeout = 30\n", "shutdown-timeout"),
        ("workers = 0\n", "workers"),
        ("queue-len = 0\n", "queue-len"),
        ("meter-interval = \"0s\"\n", "meter-interval"),
        ("log-level = \"[\"\n", "log level"),
        ("port 8000\n", "haldir.toml"),
    ] {
        fs::write(&file, mistake).unwrap();
        check_refused(&home, &[], &[], named, mistake);
    }
    fs::remove_file(&file).unwrap();
    check_refused(&home, &["--config", "missing.toml"], &[], "missing.toml", "a file that is not there");
    for (name, value) in [
        ("HALDIR_REQUESTS_PER_HOUR", "many"),
        ("HALDIR_SHUTDOWN_TIMEOUT", "soon"),
        ("HALDIR_WORKERS", "-1"),
        ("HALDIR_LOG_JSON", "perhaps"),
    ] {
        let flag = name.trim_start_matches("HALDIR_").to_lowercase().replace('_', "-");
        check_refused(&home, &[], &[(name, value)], &flag, name);
    }
    assert!(!home.data_dir().join("signing.key").exists(), "a mistake makes no installation");
}

#[tokio::test]
async fn without_a_key_the_first_caller_from_this_machine_gets_one_unless_a_token_is_set() {
    let home = Home::new();
    let server = home.serve_with(&[], &[("HALDIR_NO_KEY", "true")]);
    assert!(!home.data_dir().join("config.json").exists());
    let client = server.client();
    let minted = client.post("/v1/keys", &json!({})).await.expect(201);
    client.post("/v1/keys", &json!({})).await.expect(401);
    client.with_key(minted["key"].as_str().unwrap()).get("/v1/sessions").await.expect(200);

    let server = Home::new().serve_with(&["--no-key"], &[("HALDIR_BOOTSTRAP_TOKEN", "open sesame")]);
    let client = server.client();
    client.post("/v1/keys", &json!({})).await.expect(401);
    client.post("/v1/keys", &json!({ "bootstrap_token": "open barley" })).await.expect(401);
    let minted = client.post("/v1/keys", &json!({ "bootstrap_token": "open sesame" })).await.expect(201);
    client.with_key(minted["key"].as_str().unwrap()).get("/v1/sessions").await.expect(200);
}

/// A limit, what was used of it and what is left, and when it starts anew.
fn check_bucket(answer: &Answer, prefix: &str, limit: u64, used: u64) {
    assert_eq!(number(answer, &format!("{prefix}-limit")), limit);
    assert_eq!(number(answer, &format!("{prefix}-used")), used);
    assert_eq!(number(answer, &format!("{prefix}-remaining")), limit - used);
    let after = number(answer, &format!("{prefix}-reset-after"));
    assert!(after <= 31 * 86_400, "{after}");
    assert!(number(answer, &format!("{prefix}-reset")) > 1_700_000_000 + after);
}

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer.header(header).unwrap_or_else(|| panic!("no {header}: {:?}", answer.headers));
    text.parse().unwrap_or_else(|error| panic!("{header}: {text:?}: {error}"))
}

fn check_refused(home: &Home, args: &[&str], env: &[(&str, &str)], named: &str, what: &str) {
    let Err(Finished { code, stdout, stderr }) = home.try_serve(args, env) else {
        panic!("{what}: accepted");
    };
    assert!(code.is_some_and(|code| code == 1 || code == 2), "{what}: {code:?} {stderr}");
    assert!(stderr.contains(named), "{what}: {named:?} is not named: {stderr}");
    assert_eq!(stdout, "", "{what}");
}

/// Ports that nobody uses, below those that the system hands out to whoever asks for any.
fn free_ports() -> [u16; 3] {
    let mut taken = Vec::new();
    [(); 3].map(|()| {
        loop {
            let port = 20_000 + u16::try_from(getrandom::u64().unwrap() % 10_000).unwrap();
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                taken.push(listener);
                break port;
            }
        }
    })
}

async fn events(client: &Client) -> Vec<Event> {
    recorded(client).await.into_iter().map(|recorded| recorded.event).collect()
}

/// The caller's whole stream, from its export.
async fn recorded(client: &Client) -> Vec<haldir::domain::Recorded> {
    let export = client.get("/v1/ledger/export").await;
    assert_eq!(export.status, 200, "{}", export.body);
    let lines = export.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let entries = lines.filter(|line| line["type"] == "entry");
    entries
        .map(|line| BASE64.decode(line["entry"].as_str().unwrap().as_bytes()).unwrap())
        .map(|bytes| entry::open(&bytes).unwrap().recorded)
        .collect()
}
