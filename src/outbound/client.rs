//! Asks others, within limits.

use std::sync::{Arc, Once};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Response};

use super::guard::{Target, TargetHost, Unsafe};
use super::names::{GuardedNames, Names};

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole exchange may take, the looking up of the name included. The contract's limit for webhooks.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next request to the same host.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections kept for one host.
const IDLE_COUNT_MAX: usize = 4;

/// Asks others.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    names: GuardedNames,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the body, as far as it was wanted and came in time.
    pub beginning: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL may not be asked.
    #[error("{0}")]
    Unsafe(Unsafe),
    /// There was no connection.
    #[error("the connection was refused or could not be made")]
    Connect,
    /// The other side could not show who it is.
    #[error("the TLS connection could not be made")]
    Tls,
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The connection was closed, or what came was not HTTP.
    #[error("the connection was closed before an answer")]
    Broken,
}

impl Client {
    /// A client that looks names up with `names`.
    ///
    /// # Errors
    ///
    /// A sentence, when TLS cannot be set up.
    pub fn new(names: Arc<dyn Names>, allows_private: bool) -> Result<Self, String> {
        Self::with_idle(names, allows_private, IDLE_COUNT_MAX)
    }

    /// The same, keeping as many connections for one host as are said.
    ///
    /// # Errors
    ///
    /// A sentence, when TLS cannot be set up.
    pub fn with_idle(
        names: Arc<dyn Names>,
        allows_private: bool,
        idle_count_max: usize,
    ) -> Result<Self, String> {
        let names = GuardedNames::new(names, allows_private);
        let http = build(|| {
            reqwest::Client::builder()
                .dns_resolver(Arc::new(names.clone()))
                .redirect(Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(idle_count_max)
        })?;
        Ok(Self { http, names })
    }

    /// Whether a URL may be asked, as far as can be told now. Private addresses are looked for only where they are refused.
    ///
    /// # Errors
    ///
    /// The first [`Unsafe`] that holds.
    pub async fn check(&self, url: &str) -> Result<(), Unsafe> {
        let target = Target::parse(url)?;
        if self.names.allows_private() {
            return Ok(());
        }
        match target.host {
            TargetHost::Address(address) => self.names.check(address),
            TargetHost::Name(name) => {
                let found = tokio::time::timeout(TIMEOUT, self.names.look_up(&name)).await;
                found.unwrap_or(Err(Unsafe::Unresolved)).map(|_| ())
            }
        }
    }

    /// What sends requests.
    pub(super) const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// What looks names up.
    pub(super) const fn names(&self) -> &GuardedNames {
        &self.names
    }

    /// Posts a body and takes the status and at most `beginning_len_max` bytes of the answer; the rest is not read. Once the
    /// status is there the answer counts, however slowly its body comes.
    ///
    /// # Errors
    ///
    /// [`OutboundError`].
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
        beginning_len_max: usize,
    ) -> Result<Answer, OutboundError> {
        let target = Target::parse(url).map_err(OutboundError::Unsafe)?;
        if let TargetHost::Address(address) = target.host {
            // The connector asks for no address that stands in the URL: it would never be looked at otherwise.
            self.names.check(address).map_err(OutboundError::Unsafe)?;
        }
        let deadline = tokio::time::sleep(TIMEOUT);
        tokio::pin!(deadline);
        let request = self.http.post(target.url).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let sent = request.send();
        let response = tokio::select! {
            response = sent => response.map_err(|error| OutboundError::of(&error))?,
            () = &mut deadline => return Err(OutboundError::TimedOut),
        };
        let status = response.status().as_u16();
        let mut beginning = Vec::new();
        tokio::select! {
            () = read_beginning(response, beginning_len_max, &mut beginning) => {}
            () = &mut deadline => {}
        }
        Ok(Answer { status, beginning })
    }
}

async fn read_beginning(mut response: Response, len_max: usize, beginning: &mut Vec<u8>) {
    while beginning.len() < len_max {
        let Ok(Some(chunk)) = response.chunk().await else {
            return;
        };
        beginning.extend_from_slice(&chunk[..chunk.len().min(len_max - beginning.len())]);
    }
}

impl OutboundError {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(it) = cause {
            if let Some(why) = it.downcast_ref::<Unsafe>() {
                return Self::Unsafe(*why);
            }
            if is_about_tls(it) {
                return Self::Tls;
            }
            cause = it.source();
        }
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connect() {
            Self::Connect
        } else {
            Self::Broken
        }
    }
}

/// What rustls finds wrong arrives within errors of input and output, which do not name it as their source.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| is_about_tls(inner))
}

/// Builds a client with the one TLS implementation. Where the system has no certificates, `https` is not spoken, and the
/// rest works.
///
/// # Errors
///
/// A sentence, when TLS cannot be set up at all.
pub fn build(make: impl Fn() -> ClientBuilder) -> Result<reqwest::Client, String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Somebody else's provider would do as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    make().build().or_else(|error| {
        tracing::warn!(%error, "no certificates to trust: nothing can be asked over https");
        make().tls_certs_only([]).build().map_err(|error| format!("HTTP client: {error}"))
    })
}
