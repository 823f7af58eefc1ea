//! A server on the data directory, and a client that asks it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::stock::api_key;

/// `haldir serve`, until it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open: a server whose output nobody reads ends.
    _output: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) url: String,
    /// How long it took until it said so.
    pub(crate) start_time: Duration,
    client: Client,
    runtime: Runtime,
    key: String,
}

impl Server {
    /// Starts a server and waits until it says that it listens.
    pub(crate) fn start(dir: &Path) -> Self {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_haldir"))
            .args(["serve", "--port", "0", "--log-level", "warn", "--data-dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let mut output = BufReader::new(child.stdout.take().expect("the output is piped"));
        let mut line = String::new();
        while !line.contains(" listens on ") {
            line.clear();
            let len = output.read_line(&mut line).expect("the server speaks UTF-8");
            assert!(len > 0, "the server did not start");
        }
        let start_time = started.elapsed();
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (client, runtime) = (Client::new(), runtime.expect("a runtime needs a few descriptors"));
        Self { child, _output: output, url, start_time, client, runtime, key: api_key(dir) }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for something and reads the answer, of which nothing is kept. How many bytes it had.
    pub(crate) fn get(&self, path: &str) -> u64 {
        self.runtime.block_on(async {
            let asked = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await;
            let mut answer = asked.and_then(reqwest::Response::error_for_status).expect("the server answers");
            let mut len = 0;
            while let Some(chunk) = answer.chunk().await.expect("the answer is complete") {
                len += chunk.len() as u64;
            }
            len
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
