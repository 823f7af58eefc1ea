//! The connections to all upstreams: made when they are needed, shared, and closed when nobody uses them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::address::{Address, Digest, Line};
use super::children;
use super::connection::Connection;
use super::establish::{Generation, Maker};
use super::failure::CallError;
use super::hub::Hub;
use super::relay::Relay;
use super::settings::{
    IDLE_TICK, IDLE_TICKS_MAX, IDLE_TICKS_MAX_EXCLUSIVE, LINE_COUNT_MAX, UpstreamSettings,
};
use super::threads::Threads;
use crate::domain::id::TenantId;
use crate::outbound::client::Client;

/// Connections kept for one host: as many as calls that answer in the same moment.
pub const IDLE_CONNECTION_COUNT_MAX: usize = 64;

/// The connections to all upstreams.
pub struct Upstreams {
    inner: Arc<Inner>,
    threads: Threads,
}

struct Inner {
    maker: Maker,
    digest_key: Digest,
    lines: Mutex<HashMap<Line, Arc<Slot>>>,
    /// What upstreams were found to speak, so that they are not asked each time.
    known: Mutex<HashMap<(TenantId, String), Generation>>,
}

/// The place of one connection.
#[derive(Default)]
struct Slot {
    current: Mutex<Option<Arc<Connection>>>,
    /// Held by whoever makes the connection; how often that was tried, and what came of it when it failed.
    making: tokio::sync::Mutex<Attempts>,
    /// The same number, for those who are about to wait.
    attempt_count: std::sync::atomic::AtomicU64,
}

#[derive(Default)]
struct Attempts {
    last_failure: Option<CallError>,
}

impl Upstreams {
    /// Connections that are made through `client`; `digest_key` is chance, and tells addresses apart.
    ///
    /// # Errors
    ///
    /// A sentence, when threads cannot be started.
    pub fn new(client: Client, settings: UpstreamSettings, digest_key: [u8; 32]) -> Result<Self, String> {
        let threads = Threads::start()?;
        let places = Arc::new(Semaphore::new(settings.child_count_max));
        let inner = Arc::new(Inner {
            maker: Maker { client, settings, places },
            digest_key,
            lines: Mutex::default(),
            known: Mutex::default(),
        });
        threads.any().spawn(close_idle(Arc::downgrade(&inner)));
        Ok(Self { inner, threads })
    }

    /// Whether an address may be connected to, as far as can be told now: a command must be on the list, a host public.
    ///
    /// # Errors
    ///
    /// [`CallError::NotSent`], with what stands in the way.
    pub async fn check(&self, address: &Address) -> Result<(), CallError> {
        match address {
            Address::Http { url, headers } => {
                super::http::headers(headers)?;
                let checked = self.inner.maker.client.check(url).await;
                checked.map_err(|why| CallError::NotSent(why.to_string()))
            }
            Address::Stdio { command, .. } => children::check(&self.inner.maker.settings, command),
        }
    }

    /// The connection of a line: the one that is there, if it leads to the same address, else a new one. Those who want the
    /// same one at the same time wait for it together. `relay` stands behind a connection that is somebody's alone.
    ///
    /// # Errors
    ///
    /// [`CallError`], after which nobody has been called.
    pub async fn connect(
        &self,
        line: &Line,
        address: Address,
        relay: Option<Arc<dyn Relay>>,
    ) -> Result<Arc<Connection>, CallError> {
        let digest = address.digest(&self.inner.digest_key);
        let slot = self.inner.slot(line)?;
        if let Some(connection) = slot.live(&digest) {
            return Ok(connection);
        }
        let seen = slot.attempt_count();
        let mut attempts = slot.making.lock().await;
        if let Some(connection) = slot.live(&digest) {
            return Ok(connection);
        }
        if slot.attempt_count() != seen
            && let Some(failure) = &attempts.last_failure
        {
            return Err(failure.clone()); // The others tried, meanwhile.
        }
        let inner = Arc::clone(&self.inner);
        let of = line.clone();
        let made = self.threads.of(line).spawn(async move { inner.make(&of, &address, digest, relay).await });
        let made =
            made.await.unwrap_or_else(|_| Err(CallError::NotSent("the server is stopping".to_owned())));
        slot.count_attempt();
        match made {
            Ok(connection) => {
                attempts.last_failure = None;
                let before = slot.current.lock().replace(Arc::clone(&connection));
                if let Some(before) = before {
                    before.close();
                }
                Ok(connection)
            }
            Err(error) => {
                attempts.last_failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Runs something on a thread of the connections, for as long as these live: what must not end with the request that began
    /// it.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.threads.any().spawn(task)
    }

    /// The connection of a line, if it is there.
    #[must_use]
    pub fn connected(&self, line: &Line) -> Option<Arc<Connection>> {
        let slot = self.inner.lines.lock().get(line).cloned()?;
        let current = slot.current.lock().clone();
        current.filter(|connection| !connection.is_closed())
    }

    /// The connections that belong to somebody, in whichever session.
    #[must_use]
    pub fn connected_of(&self, of: &str) -> Vec<Arc<Connection>> {
        let lines = self.inner.lines.lock();
        let theirs = lines.iter().filter(|(line, _)| line.belongs_to(of));
        theirs.filter_map(|(_, slot)| slot.current.lock().clone()).collect()
    }

    /// Closes the connections to an upstream, and forgets what it speaks.
    pub fn close(&self, tenant: &TenantId, upstream: &str) {
        self.inner.known.lock().remove(&(tenant.clone(), upstream.to_owned()));
        self.inner.close_where(|line| line.tenant == *tenant && line.upstream == upstream);
    }

    /// Closes the connections that belong to somebody, in whichever session.
    pub fn close_of(&self, of: &str) {
        self.inner.close_where(|line| line.belongs_to(of));
    }

    /// Closes all connections, and waits for their ends within a time.
    pub async fn close_all(&self, within: Duration) {
        let closed = self.inner.close_where(|_| true);
        let ends = join_all(closed.iter().map(|connection| connection.ended()));
        let _ = tokio::time::timeout(within, ends).await;
    }

    /// How many connections there are.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.inner.lines.lock().values().filter(|slot| slot.current.lock().is_some()).count()
    }
}

impl Inner {
    fn slot(&self, line: &Line) -> Result<Arc<Slot>, CallError> {
        let mut lines = self.lines.lock();
        if let Some(slot) = lines.get(line) {
            return Ok(Arc::clone(slot));
        }
        if lines.len() >= LINE_COUNT_MAX {
            return Err(CallError::NotSent(
                "as many upstreams are connected as this server can hold".to_owned(),
            ));
        }
        Ok(Arc::clone(lines.entry(line.clone()).or_default()))
    }

    async fn make(
        &self,
        line: &Line,
        address: &Address,
        digest: Digest,
        relay: Option<Arc<dyn Relay>>,
    ) -> Result<Arc<Connection>, CallError> {
        let upstream = (line.tenant.clone(), line.upstream.clone());
        let known = self.known.lock().get(&upstream).copied();
        let relay = relay.unwrap_or_else(|| Hub::of_anybody());
        let hub = Arc::clone(&relay).as_hub();
        let made = self.maker.make(&line.upstream, address, relay, known).await;
        match &made {
            Ok(speech) => {
                self.known.lock().insert(upstream, speech.generation());
            }
            Err(error) => tracing::debug!(upstream = line.upstream, %error, "no connection to an upstream"),
        }
        Ok(Arc::new(Connection::new(made?, digest, hub, &self.maker.settings)))
    }

    fn close_where(&self, wanted: impl Fn(&Line) -> bool) -> Vec<Arc<Connection>> {
        let mut closed = Vec::new();
        self.lines.lock().retain(|line, slot| {
            let keep = !wanted(line);
            if !keep {
                closed.extend(slot.current.lock().take());
            }
            keep
        });
        for connection in &closed {
            connection.close();
        }
        closed
    }
}

impl Slot {
    fn live(&self, digest: &Digest) -> Option<Arc<Connection>> {
        let current = self.current.lock();
        let connection = current.as_ref().filter(|it| it.digest == *digest && !it.is_closed())?;
        connection.touch();
        Some(Arc::clone(connection))
    }

    fn attempt_count(&self) -> u64 {
        self.attempt_count.load(std::sync::atomic::Ordering::Acquire)
    }

    fn count_attempt(&self) {
        self.attempt_count.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    }
}

/// Closes what nobody used for a while, until the connections are gone.
async fn close_idle(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(IDLE_TICK).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        inner.lines.lock().retain(|line, slot| {
            let ticks_max = if line.of.is_some() { IDLE_TICKS_MAX_EXCLUSIVE } else { IDLE_TICKS_MAX };
            let is_idle =
                |connection: &Arc<Connection>| connection.is_closed() || connection.tick() > ticks_max;
            let mut current = slot.current.lock();
            if current.as_ref().is_some_and(is_idle)
                && let Some(connection) = current.take()
            {
                connection.close();
            }
            // Whoever makes the connection just now holds the slot as well.
            current.is_some() || Arc::strong_count(slot) > 1
        });
    }
}
