//! The accept loop: deadlines for the first byte and the header (axum's own server has none), a guard over descriptors,
//! hand-over of each connection to hyper. Routes live in `router`, sockets after their upgrade in `realtime`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;

use super::address::TrustedProxies;
use super::progress::Connection;
use super::refusal::Refusals;
use crate::config::Config;
use crate::limits::{AddressGuard, Addresses};
use crate::telemetry::metrics;

/// A connection that has sent nothing by then is closed.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// A header must be whole by then.
const HEADER: Duration = Duration::from_secs(5);
/// Largest header, bytes.
const HEADER_BYTES: usize = 16 << 10;
/// Descriptors kept for the database, Redis, files and the poller.
const DESCRIPTORS_KEPT: u64 = 200;
/// Pause after `accept` failed, so that exhaustion never spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that the kernel holds for a connection or socket until the peer has them (it keeps as much again for its own
/// accounts). Left to itself it takes some megabytes for one that does not read, and a reader of 20 KB a second seems to
/// take nothing for a minute, as the kernel says that there is room only when a third of that is gone.
const SEND_BUFFER: usize = 64 << 10;
/// Connections of the operators' listener, out of those kept.
const OPERATORS: usize = 32;
/// One network holds at most this part of all connections.
const PART_OF_ONE: usize = 4;

/// Connections of a listener that are not sockets yet, and how many there may be.
pub struct Connections {
    open: AtomicUsize,
    /// With the sockets.
    most: usize,
    counts_sockets: bool,
    addresses: Arc<Addresses>,
    /// Connections a network may hold, unless it is that of a proxy.
    per_address: u32,
    proxies: Arc<TrustedProxies>,
    refusals: Arc<Refusals>,
}

impl Connections {
    /// Raises the soft limit of descriptors to the hard one and plans for it.
    ///
    /// # Errors
    /// The first entry of `HAUS_TRUSTED_PROXIES` that is no network.
    pub fn within_descriptor_limit(config: &Config) -> Result<Arc<Self>, String> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
            tracing::warn!(%error, "the limit of descriptors could not be raised");
        }
        let most = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20).saturating_sub(DESCRIPTORS_KEPT).max(16);
        let part = u32::try_from(most as usize / PART_OF_ONE).unwrap_or(u32::MAX);
        let per_address = if config.limits_on() { config.sockets_per_address.min(part) } else { u32::MAX };
        Ok(Arc::new(Self::new(config, most as usize, true, per_address)?))
    }

    /// The operators' own, which no number of clients takes from them.
    ///
    /// # Errors
    /// As [`Self::within_descriptor_limit`].
    pub fn of_operators(config: &Config) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self::new(config, OPERATORS, false, u32::MAX)?))
    }

    fn new(config: &Config, most: usize, counts_sockets: bool, per_address: u32) -> Result<Self, String> {
        Ok(Self {
            open: AtomicUsize::new(0),
            most,
            counts_sockets,
            addresses: Arc::default(),
            per_address,
            proxies: Arc::new(TrustedProxies::parse(&config.trusted_proxies)?),
            refusals: Arc::new(Refusals::new(config)),
        })
    }

    /// A place for a connection of `peer`, where there is one.
    fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let sockets = if self.counts_sockets { metrics().sockets.get().max(0) as usize } else { 0 };
        if self.open.load(Ordering::Relaxed) + sockets >= self.most {
            metrics().connections_refused.with_label_values(&["descriptors"]).inc();
            return None;
        }
        let per_address = if self.proxies.is_proxy(peer.ip()) { u32::MAX } else { self.per_address };
        let Some(guard) = self.addresses.enter(peer.ip(), per_address) else {
            metrics().connections_refused.with_label_values(&["address"]).inc();
            return None;
        };
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Place { connections: self.clone(), _guard: guard })
    }
}

struct Place {
    connections: Arc<Connections>,
    _guard: AddressGuard,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until `stop` turns true; connections under way end by themselves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => match connections.enter(peer) {
                Some(place) => {
                    tokio::spawn(connection(stream, peer, router.clone(), place, stop.clone()));
                }
                None => refuse(stream, connections.refusals.full()),
            },
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                metrics().connections_refused.with_label_values(&["accept"]).inc();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says why and closes, at once: what is refused for want of descriptors must not keep one. The answer fits into the empty
/// buffer of a new connection.
fn refuse(stream: TcpStream, answer: Bytes) {
    let _ = stream.try_write(&answer);
    // The request is taken off the line first, as closing with bytes unread resets the connection and takes the answer
    // with it.
    let mut sink = [0; 4096];
    while stream.try_read(&mut sink).is_ok_and(|count| count > 0) {}
    if let Ok(stream) = stream.into_std() {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    place: Place,
    mut stop: watch::Receiver<bool>,
) {
    if tokio::time::timeout(FIRST_BYTE, stream.readable()).await.is_err() {
        return;
    }
    // Not on the listener: who connected before it was set there would have a buffer without a bound.
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER) {
        tracing::debug!(%error, "send buffer");
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
    let stream = Connection::new(stream, place.connections.refusals.clone());
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), peer, request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let stopping = async move { stop.wait_for(|stop| *stop).await.is_ok() };
    let finished = tokio::select! {
        done = connection.as_mut() => Some(done),
        _ = stopping => None,
    };
    let done = match finished {
        Some(done) => done,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, %peer, "connection ended");
    }
    drop(place);
}

async fn answer(router: Router, peer: SocketAddr, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}
