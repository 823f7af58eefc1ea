//! Listens, serves, drains.

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::rt::net::TcpStream;
use actix_web::{App as Service, HttpServer, middleware, web};

use super::{edge, routes};
use crate::operations::App;

/// How the server behaves towards connections.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Threads that serve them.
    pub workers: usize,
    /// How long requests may take to finish when the server is told to stop.
    pub shutdown_timeout: Duration,
}

/// How long a client may take to send a request's head.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Starts to serve the REST edge on a listener, with the routes of other edges before its own. The future ends when the server was told to stop and running requests are answered; it
/// leaves signals to the caller.
///
/// # Errors
///
/// When the listener cannot be used.
pub fn serve(
    app: Arc<App>,
    listener: TcpListener,
    connections: Connections,
    others: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> std::io::Result<(Server, SocketAddr)> {
    let address = listener.local_addr()?;
    let app = web::Data::new(app);
    let server = HttpServer::new(move || {
        Service::new()
            .app_data(app.clone())
            .configure(others.clone())
            .configure(routes::configure)
            .wrap(middleware::from_fn(edge::edge))
    })
    .on_connect(|connection, _| send_at_once(connection))
    .workers(connections.workers)
    .client_request_timeout(REQUEST_HEAD_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(whole_seconds(connections.shutdown_timeout))
    // Who goes away does not want the answer any more: calls to upstreams are cancelled.
    .h1_allow_half_closed(false)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok((server, address))
}

/// Sends every part of an answer at once. Otherwise the last part of a streamed one waits for the client's delayed
/// acknowledgement, 40 ms on Linux.
fn send_at_once(connection: &dyn Any) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Err(error) = stream.set_nodelay(true)
    {
        tracing::debug!(%error, "a connection keeps its delay");
    }
}

/// Rounded up: half a second is not no time at all.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
