//! Upstreams that are child processes.
//!
//! A child is started only if its command is on the operator's list. It sees none of our environment but the path, the home
//! directory and the language, stands in a process group of its own, and is ended with everything that it started.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use rmcp::RoleClient;
use rmcp::transport::async_rw::AsyncRwTransport;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use super::address::Pair;
use super::ears::Ears;
use super::failure::CallError;
use super::settings::{CHILD_GRACE, CHILD_TERM_GRACE, STDERR_LINE_LEN_MAX, UpstreamSettings};

/// What of our own environment a child sees.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Values that are shorter are no secrets, and hiding them would hide everything.
const SECRET_LEN_MIN: usize = 4;

/// What carries the messages of a child.
pub(super) type ChildTransport = AsyncRwTransport<RoleClient, Bounded<ChildStdout>, ChildStdin>;

/// A process that runs.
pub(super) struct Process {
    child: Child,
    _place: OwnedSemaphorePermit,
}

/// Starts a child. Must be called on the thread of its connection.
///
/// # Errors
///
/// [`CallError::NotSent`], with what stands in the way.
pub(super) fn start(
    settings: &UpstreamSettings,
    (command, args, env): (&str, &[String], &[Pair]),
    upstream: &str,
    ears: &Arc<Ears>,
    place: OwnedSemaphorePermit,
) -> Result<(ChildTransport, Process), CallError> {
    check(settings, command)?;
    let mut child = Command::new(command);
    child.args(args).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            child.env(name, value);
        }
    }
    child.envs(env.iter().map(|(name, value)| (name, value.as_str())));
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child.process_group(0).kill_on_drop(true);
    let failed = |error: io::Error| CallError::NotSent(format!("{command} cannot be started: {error}"));
    let mut child = child.spawn().map_err(failed)?;
    let (Some(input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(CallError::NotSent(format!("{command} has no input or output")));
    };
    let secrets = env.iter().map(|(_, value)| value.clone()).filter(|value| value.len() >= SECRET_LEN_MIN);
    tokio::spawn(log(errors, upstream.to_owned(), secrets.collect()));
    let output =
        Bounded { inner: output, line_len: 0, line_len_max: settings.answer_len_max, ears: Arc::clone(ears) };
    let transport = AsyncRwTransport::new_client(output, input).with_max_line_length(usize::MAX);
    Ok((transport, Process { child, _place: place }))
}

/// Whether a command may be started.
///
/// # Errors
///
/// [`CallError::NotSent`].
pub(super) fn check(settings: &UpstreamSettings, command: &str) -> Result<(), CallError> {
    if settings.commands.is_empty() {
        return Err(CallError::NotSent(
            "this server starts no commands: its operator names those that it may start with --upstream-command"
                .to_owned(),
        ));
    }
    if !settings.commands.iter().any(|allowed| allowed == command) {
        return Err(CallError::NotSent(format!(
            "{command} is not among the commands that this server may start (--upstream-command)"
        )));
    }
    Ok(())
}

impl Process {
    /// Waits until the process has ended, with everything that it started; tells it to, and kills it, if it does not end by
    /// itself. Its input must have been closed.
    pub(super) async fn end(mut self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let signal = |signal: Signal| {
            if let Some(group) = group {
                // Nobody is left to hear it, or somebody is.
                let _ = kill_process_group(group, signal);
            }
        };
        if tokio::time::timeout(CHILD_GRACE, self.child.wait()).await.is_err() {
            signal(Signal::TERM);
            let _ = tokio::time::timeout(CHILD_TERM_GRACE, self.child.wait()).await;
        }
        // Those that it started and left behind.
        signal(Signal::KILL);
        let _ = self.child.wait().await;
    }
}

/// Logs what a child says on its standard error, without the secrets that it was given.
async fn log(errors: ChildStderr, upstream: String, secrets: Vec<Zeroizing<String>>) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut errors).take(STDERR_LINE_LEN_MAX).read_until(b'\n', &mut line).await {
            Ok(len) if len > 0 => {}
            _ => return,
        }
        let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
        for secret in &secrets {
            text = text.replace(secret.as_str(), "(concealed)");
        }
        tracing::debug!(upstream, line = text, "an upstream wrote to its standard error");
    }
}

/// Reads lines that are bounded: one that is longer ends the connection.
pub(super) struct Bounded<R> {
    inner: R,
    line_len: usize,
    line_len_max: usize,
    ears: Arc<Ears>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        for &byte in &buffer.filled()[before..] {
            self.line_len = if byte == b'\n' { 0 } else { self.line_len + 1 };
            if self.line_len > self.line_len_max {
                self.ears.fail_all(CallError::TooLarge);
                return Poll::Ready(Err(io::Error::other("a message is larger than allowed")));
            }
        }
        Poll::Ready(Ok(()))
    }
}
