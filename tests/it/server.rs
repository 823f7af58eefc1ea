//! The real binary as its users meet it: a data directory, a process that can be stopped or killed, and a client.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use haldir::outbound::client::build;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

/// How long a process may take to start or to stop. Generous: the machine may be busy, and a test that hangs tells nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of standard error that are shown when a test fails.
const STDERR_TAIL_LEN: usize = 4096;

/// A place of its own for one test: the data directory, and beside it what the program writes to standard error.
pub(crate) struct Home {
    dir: Rc<TempDir>,
    /// Servers started here; each has a log of its own.
    starts: Cell<u32>,
}

/// A running `haldir serve`. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    url: String,
    /// The admin key; `None` with `--no-key`.
    key: Option<String>,
    stderr: PathBuf,
    /// The directory is there for as long as somebody uses it.
    _dir: Rc<TempDir>,
}

/// A command that ran to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Talks to a server, over connections of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self { dir: Rc::new(dir), starts: Cell::new(0) }
    }

    /// A home whose data directory is a copy of another's, which nobody may be using.
    pub(crate) fn copy_of(other: &Self) -> Self {
        let home = Self::new();
        copy_dir(&other.data_dir(), &home.data_dir());
        home
    }

    /// What the data directory is in.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[], &[])
    }

    /// The same with more arguments and environment variables.
    pub(crate) fn serve_with(&self, args: &[&str], env: &[(&str, &str)]) -> Server {
        self.try_serve(args, env).unwrap_or_else(|finished| panic!("serve did not start: {finished:#?}"))
    }

    /// The same for a server that may refuse to start.
    pub(crate) fn try_serve(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Server, Finished> {
        self.wait_for(self.spawn(args, env))
    }

    /// Starts a server with nothing but these arguments and environment variables.
    pub(crate) fn try_launch(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Server, Finished> {
        self.wait_for(self.launch(args, env))
    }

    fn wait_for(&self, mut child: Child) -> Result<Server, Finished> {
        let stderr = self.stderr_path();
        let lines = lines_of(&mut child);
        let deadline = Instant::now() + PATIENCE;
        let url = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(url) = url_in(&line) {
                        break url;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.finish(child)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    panic!("serve said nothing for {PATIENCE:?}: {:#?}", self.finish(child));
                }
            }
        };
        // The greeting comes last, so the key is where the CLI looks for it.
        let config = fs::read_to_string(self.data_dir().join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_str(&config).unwrap_or_default();
        let key = config["api_key"].as_str().map(str::to_owned);
        Ok(Server { child, url, key, stderr, _dir: Rc::clone(&self.dir) })
    }

    /// Starts a server and does not wait for it.
    pub(crate) fn spawn(&self, args: &[&str], env: &[(&str, &str)]) -> Child {
        let dir = self.data_dir().to_string_lossy().into_owned();
        let serve = ["serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", &dir];
        self.launch(&[&serve, args].concat(), env)
    }

    fn launch(&self, args: &[&str], env: &[(&str, &str)]) -> Child {
        self.starts.set(self.starts.get() + 1);
        let log = File::create(self.stderr_path());
        let mut command = self.command();
        command.args(args).envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(log.expect("the log can be written"));
        command.spawn().expect("the binary can be started")
    }

    /// Runs a command of the CLI to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        let output = self.command().args(args).stdin(Stdio::null()).output();
        let output = output.expect("the binary can be started");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The binary, without the settings of whoever runs the tests.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haldir"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HALDIR_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.dir.path()).current_dir(self.dir.path());
        command
    }

    fn finish(&self, mut child: Child) -> Finished {
        let status = wait(&mut child);
        let mut stdout = String::new();
        if let Some(pipe) = &mut child.stdout {
            let _ = pipe.read_to_string(&mut stdout);
        }
        Finished { code: status.code(), stdout, stderr: tail(&self.stderr_path()) }
    }

    /// The log of the server that was started last.
    fn stderr_path(&self) -> PathBuf {
        self.dir.path().join(format!("stderr-{}.log", self.starts.get()))
    }
}

impl Server {
    /// A client with the admin key.
    pub(crate) fn client(&self) -> Client {
        let http = build(|| {
            let redirect = reqwest::redirect::Policy::none();
            reqwest::Client::builder().no_proxy().timeout(PATIENCE).redirect(redirect)
        });
        Client { http: http.expect("a client needs nothing"), url: self.url.clone(), key: self.key.clone() }
    }

    /// The admin key.
    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().expect("the server has an admin key")
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Ends the process as a power button would: `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        wait(&mut self.child);
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.is_ok_and(|status| status.success()), "SIGTERM could not be sent");
    }

    /// Waits until the process ends by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Stops the server as an operator would, and insists that it ends well.
    pub(crate) fn stop(self) {
        self.ask_to_stop();
        let stderr = self.stderr.clone();
        let status = self.wait();
        assert!(status.success(), "after SIGTERM: {status}\n{}", tail(&stderr));
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "shown by the test runner when a test fails, and only then")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of the server ---\n{}", tail(&self.stderr));
        }
    }
}

impl Client {
    /// The same connections with another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    pub(crate) fn without_key(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// A request to be sent with [`send`].
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }
}

/// Sends a request and reads the whole answer. An error means that nobody knows whether it was carried out.
pub(crate) async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    Ok(Answer { status, headers, body: response.text().await? })
}

/// Sends a request to a server that must answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

impl Answer {
    /// The body, if the status is the expected one.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON: {error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Reads standard output for as long as the process writes: one that cannot write would stand still.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (line, lines) = mpsc::channel();
    let stdout = child.stdout.take().expect("standard output is a pipe");
    std::thread::spawn(move || {
        for read in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody may be listening any more.
            let _ = line.send(read);
        }
    });
    lines
}

fn url_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("http://127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("http://127.0.0.1:{port}"))
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process did not end for {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(STDERR_TAIL_LEN)..]).into_owned()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).expect("the directory is new");
    for item in fs::read_dir(from).expect("the directory is there") {
        let item = item.expect("the directory can be read");
        let (source, target) = (item.path(), to.join(item.file_name()));
        if source.is_dir() {
            copy_dir(&source, &target);
        } else if source.is_file() {
            // A socket that a killed server left behind is no data.
            fs::copy(&source, &target).expect("the file can be copied");
        }
    }
}
