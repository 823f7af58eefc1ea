//! Makes a connection, in whichever way the upstream understands.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::RoleClient;
use rmcp::model::{ProtocolVersion, ServerPeerInfo};
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, RunningService};
use rmcp::transport::IntoTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::address::Address;
use super::children::{self, Process};
use super::ears::Ears;
use super::failure::CallError;
use super::http::{HttpUpstream, headers};
use super::inbound::Inbound;
use super::plain::Plain;
use super::relay::Relay;
use super::settings::{CHILD_HANDSHAKE_TIMEOUT, HANDSHAKE_TIMEOUT, UpstreamSettings, WAITING_COUNT_MAX};
use super::subscriptions::Subscriptions;
use super::tap::Tap;
use super::voice::Voice;
use crate::outbound::client::Client;

/// What an upstream was found to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    /// MCP without sessions, from 2026-07-28 on.
    Stateless,
    /// MCP that begins with `initialize`.
    Initialized,
    /// Two methods of JSON-RPC.
    Plain,
}

/// A way to speak with an upstream.
pub(super) enum Speech {
    Mcp(Box<Voice>),
    Plain(Plain),
}

impl Speech {
    pub(super) fn generation(&self) -> Generation {
        match self {
            Self::Plain(_) => Generation::Plain,
            Self::Mcp(voice) if voice.is_stateless() => Generation::Stateless,
            Self::Mcp(_) => Generation::Initialized,
        }
    }
}

/// What making a connection needs.
pub(super) struct Maker {
    pub(super) client: Client,
    pub(super) settings: UpstreamSettings,
    pub(super) places: Arc<Semaphore>,
}

impl Maker {
    /// Makes a connection, on the thread that it shall live on. What the upstream spoke before is tried first.
    ///
    /// # Errors
    ///
    /// [`CallError`], which is never `Refused` for a reason of ours.
    pub(super) async fn make(
        &self,
        upstream: &str,
        address: &Address,
        relay: Arc<dyn Relay>,
        known: Option<Generation>,
    ) -> Result<Speech, CallError> {
        let limit = match address {
            Address::Http { .. } => HANDSHAKE_TIMEOUT,
            Address::Stdio { .. } => CHILD_HANDSHAKE_TIMEOUT,
        };
        if let Some(known) = known {
            match self.make_known(upstream, address, relay.clone(), known, limit).await {
                Err(error) if error.is_answer() => {} // It may have learnt something else.
                outcome => return outcome,
            }
        }
        let spoken = match self.make_mcp(upstream, address, relay.clone(), any_generation(), limit).await {
            // It knows the question for the newer generation, and speaks the older one.
            Err(error) if error == no_common_version() => {
                self.make_mcp(upstream, address, relay, ClientLifecycleMode::Initialize, limit).await
            }
            spoken => spoken,
        };
        match (spoken, address) {
            (Err(error), Address::Http { .. }) if error.is_answer() => {
                self.make_plain(address, limit).await.map_err(|_| error)
            }
            (spoken, _) => spoken,
        }
    }

    async fn make_known(
        &self,
        upstream: &str,
        address: &Address,
        relay: Arc<dyn Relay>,
        known: Generation,
        limit: Duration,
    ) -> Result<Speech, CallError> {
        match known {
            Generation::Plain => self.make_plain(address, limit).await,
            Generation::Initialized => {
                self.make_mcp(upstream, address, relay, ClientLifecycleMode::Initialize, limit).await
            }
            Generation::Stateless => {
                let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
                let mode = ClientLifecycleMode::Discover { preferred_versions };
                self.make_mcp(upstream, address, relay, mode, limit).await
            }
        }
    }

    async fn make_plain(&self, address: &Address, limit: Duration) -> Result<Speech, CallError> {
        let Address::Http { url, headers: pairs } = address else {
            return Err(CallError::NotSent("a process speaks MCP".to_owned()));
        };
        let plain =
            Plain::new(self.client.clone(), url.clone(), headers(pairs)?, self.settings.answer_len_max);
        // Whoever lists tools can be called.
        timeout(limit, plain.tools()).await.unwrap_or(Err(CallError::TimedOut))?;
        Ok(Speech::Plain(plain))
    }

    async fn make_mcp(
        &self,
        upstream: &str,
        address: &Address,
        relay: Arc<dyn Relay>,
        mode: ClientLifecycleMode,
        limit: Duration,
    ) -> Result<Speech, CallError> {
        let ears = Ears::new(relay);
        match address {
            Address::Http { url, headers: pairs } => {
                let len_max = self.settings.answer_len_max;
                let http =
                    HttpUpstream::new(self.client.clone(), headers(pairs)?, Arc::clone(&ears), len_max);
                let transport = StreamableHttpClientTransport::with_client(http, config(url, len_max));
                let running = handshake(transport, &ears, mode, limit).await?;
                Ok(voice(running, ears, None))
            }
            Address::Stdio { command, args, env } => {
                let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
                    CallError::NotSent("as many commands run as this server may start".to_owned())
                })?;
                let what = (command.as_str(), args.as_slice(), env.as_slice());
                let (transport, process) = children::start(&self.settings, what, upstream, &ears, place)?;
                match handshake(transport, &ears, mode, limit).await {
                    Ok(running) => Ok(voice(running, ears, Some(process))),
                    Err(error) => {
                        process.end().await;
                        Err(error)
                    }
                }
            }
        }
    }
}

fn any_generation() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    }
}

fn config(url: &str, event_len_max: usize) -> StreamableHttpClientTransportConfig {
    let mut retries = ExponentialBackoff::default();
    retries.max_times = Some(8);
    retries.max_delay = Some(Duration::from_secs(30));
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        .max_concurrent_requests(WAITING_COUNT_MAX)
        .max_sse_event_size(event_len_max);
    config.retry_config = Arc::new(retries);
    config
}

async fn handshake<T, E, A>(
    transport: T,
    ears: &Arc<Ears>,
    mode: ClientLifecycleMode,
    limit: Duration,
) -> Result<RunningService<RoleClient, Inbound>, CallError>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let tap = Tap { transport: transport.into_transport(), ears: Arc::clone(ears) };
    let shaken = Inbound::new(Arc::clone(ears)).serve_with_lifecycle(tap, mode);
    let running = match timeout(limit, shaken).await {
        Err(_) => return Err(CallError::TimedOut),
        Ok(Err(error)) => return Err(ears.last_fault().unwrap_or_else(|| refusal(error))),
        Ok(Ok(running)) => running,
    };
    ears.forget_faults();
    Ok(running)
}

fn refusal(error: ClientInitializeError) -> CallError {
    match error {
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => refusal(*fallback),
        ClientInitializeError::JsonRpcError(error) => CallError::refused(error),
        ClientInitializeError::ConnectionClosed(_) | ClientInitializeError::TransportError { .. } => {
            CallError::Lost("the connection was closed before the upstream had said who it is".to_owned())
        }
        ClientInitializeError::NoCompatibleProtocolVersion { .. } => no_common_version(),
        ClientInitializeError::Cancelled => CallError::Cancelled,
        _ => CallError::Malformed("it does not say who it is".to_owned()),
    }
}

fn no_common_version() -> CallError {
    CallError::Malformed("it speaks no version of the protocol that is known here".to_owned())
}

/// A connection that is there. It ends when it is told to or when the upstream is gone, and its process with it.
fn voice(running: RunningService<RoleClient, Inbound>, ears: Arc<Ears>, process: Option<Process>) -> Speech {
    let peer = running.peer().clone();
    let version = ProtocolVersion::LATEST_WITH_INITIALIZE;
    let info = peer.peer_info().unwrap_or_else(|| {
        Arc::new(ServerPeerInfo::new(version, rmcp::model::ServerCapabilities::default()))
    });
    let end = Mutex::new(Some(running.cancellation_token()));
    let (ended, has_ended) = watch::channel(false);
    tokio::spawn(async move {
        let _ = running.waiting().await;
        if let Some(process) = process {
            process.end().await;
        }
        ended.send_replace(true);
    });
    let is_stateless = info.protocol_version >= ProtocolVersion::V_2026_07_28;
    let wanted = is_stateless
        .then(|| Subscriptions::start(peer.clone(), &info.capabilities, Arc::clone(ears.relay())));
    let thread = Handle::current();
    let places = Voice::places();
    Speech::Mcp(Box::new(Voice { peer, ears, thread, info, end, has_ended, places, wanted }))
}
