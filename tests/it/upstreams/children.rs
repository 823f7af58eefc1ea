//! Upstreams that are processes.

use std::time::{Duration, Instant};

use haldir::proxy::address::Address;
use haldir::proxy::failure::CallError;
use haldir::proxy::settings::UpstreamSettings;

use super::{call, line, pair, pool};

/// A server of the older generation in a few lines of Python: `tool` does what the test wants.
const SERVER: &str = r#"
import json, os, subprocess, sys, time
def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, answer = message["method"], {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        capabilities, info = {"tools": {}}, {"name": "py", "version": "1"}
        answer["result"] = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        tool, text = message["params"]["name"], ""
        if tool == "environment":
            text = json.dumps(sorted(os.environ))
        elif tool == "secret":
            text = os.environ.get("SECRET", "none")
            print("my secret is", text, file=sys.stderr, flush=True)
        elif tool == "die":
            sys.exit(3)
        elif tool == "flood":
            while True:
                sys.stdout.write("x" * 65536)
        elif tool == "grandchild":
            text = str(subprocess.Popen(["sleep", "1000"]).pid)
        elif tool == "pid":
            text = str(os.getpid())
        answer["result"] = {"content": [{"type": "text", "text": text}]}
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    send(answer)
if sys.argv[1:] == ["stubborn"]:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
"#;

fn python(args: &[&str], env: &[(&str, &str)]) -> Address {
    let args = ["-c", SERVER].iter().chain(args).map(|&arg| arg.to_owned()).collect();
    let env = env.iter().map(|(name, value)| pair(name, value)).collect();
    Address::Stdio { command: "python3".to_owned(), args, env }
}

fn allowing(settings: &mut UpstreamSettings) {
    settings.commands = vec!["python3".to_owned()];
}

fn is_alive(pid: &str) -> bool {
    // A zombie has ended.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[tokio::test]
async fn a_child_sees_what_it_is_given_and_ends_with_all_it_started() {
    for args in [&[][..], &["stubborn"]] {
        let pool = pool(allowing);
        let address = || python(args, &[("SECRET", "s3cr3t")]);
        let connection = pool.connect(&line(), address(), None).await.unwrap();
        assert_eq!(connection.tools().await.unwrap()[0].name, "t");
        assert_eq!(call(&connection, "secret").await.unwrap(), "s3cr3t");
        let names = call(&connection, "environment").await.unwrap();
        let names: Vec<String> = serde_json::from_str(&names).unwrap();
        // Python may be a script that sets something of its own.
        let mut ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("CARGO"));
        assert!(names.contains(&"SECRET".to_owned()) && ours.next().is_some());
        assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");

        let child = call(&connection, "pid").await.unwrap();
        let grandchild = call(&connection, "grandchild").await.unwrap();
        assert!(is_alive(&child) && is_alive(&grandchild));
        let started = Instant::now();
        pool.close_all(Duration::from_secs(10)).await;
        // Killed is not dead yet.
        for _ in 0..100 {
            if !is_alive(&child) && !is_alive(&grandchild) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!is_alive(&child) && !is_alive(&grandchild), "{args:?}");
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_child_that_dies_or_floods_is_started_again_with_the_next_connection() {
    let pool = pool(allowing);
    let connection = pool.connect(&line(), python(&[], &[]), None).await.unwrap();
    let died = call(&connection, "die").await.unwrap_err();
    assert!(matches!(died, CallError::Lost(_)), "{died:?}");
    let late = call(&connection, "pid").await.unwrap_err();
    assert!(late.is_unsent(), "{late:?}");

    let again = pool.connect(&line(), python(&[], &[]), None).await.unwrap();
    let pid = call(&again, "pid").await.unwrap();
    assert_eq!(call(&again, "flood").await, Err(CallError::TooLarge));
    for _ in 0..100 {
        if !is_alive(&pid) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_alive(&pid), "it is ended");
    assert!(pool.connect(&line(), python(&[], &[]), None).await.is_ok());
}

#[tokio::test]
async fn only_commands_on_the_list_are_started_and_only_so_many() {
    let none = pool(|_| {});
    let error = none.connect(&line(), python(&[], &[]), None).await.err().unwrap();
    assert!(error.is_unsent() && error.to_string().contains("--upstream-command"), "{error}");

    let other = pool(|settings| settings.commands = vec!["/usr/bin/true".to_owned(), "python".to_owned()]);
    let error = other.connect(&line(), python(&[], &[]), None).await.err().unwrap();
    assert!(error.is_unsent() && error.to_string().contains("not among"), "{error}");
    assert!(other.check(&python(&[], &[])).await.is_err());

    let missing = pool(|settings| settings.commands = vec!["haldir-nothing".to_owned()]);
    let address = Address::Stdio { command: "haldir-nothing".to_owned(), args: vec![], env: vec![] };
    let error = missing.connect(&line(), address, None).await.err().unwrap();
    assert!(error.is_unsent() && error.to_string().contains("cannot be started"), "{error}");

    let few = pool(|settings| {
        allowing(settings);
        settings.child_count_max = 1;
    });
    let mut second = line();
    second.upstream = "second".to_owned();
    let first = few.connect(&line(), python(&[], &[]), None).await.unwrap();
    let error = few.connect(&second, python(&[], &[]), None).await.err().unwrap();
    assert!(error.is_unsent() && error.to_string().contains("as many commands"), "{error}");
    first.close();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(few.connect(&second, python(&[], &[]), None).await.is_ok());
}

#[tokio::test]
async fn a_command_that_is_no_server_is_left() {
    let pool = pool(|settings| settings.commands = vec!["true".to_owned()]);
    let address = Address::Stdio { command: "true".to_owned(), args: vec![], env: vec![] };
    let started = Instant::now();
    let error = pool.connect(&line(), address, None).await.err().unwrap();
    assert!(matches!(error, CallError::Lost(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}
