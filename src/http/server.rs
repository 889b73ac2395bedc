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
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;

use super::problem::Problem;
use crate::protocol::ErrorCode;
use crate::telemetry::metrics;

/// A connection that has sent nothing by then is closed.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// A header must be whole by then.
const HEADER: Duration = Duration::from_secs(5);
/// A request must be answered by then, its body included.
const REQUEST: Duration = Duration::from_secs(30);
/// Largest header, bytes.
const HEADER_BYTES: usize = 16 << 10;
/// Descriptors kept for the database, Redis, files and the poller.
const DESCRIPTORS_KEPT: u64 = 200;
/// Pause after `accept` failed, so that exhaustion never spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Connections that are not sockets yet, and how many of both there may be.
pub struct Connections {
    open: AtomicUsize,
    most: usize,
}

impl Connections {
    /// Raises the soft limit of descriptors to the hard one and plans for it.
    pub fn within_descriptor_limit() -> Arc<Self> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
            tracing::warn!(%error, "the limit of descriptors could not be raised");
        }
        let most = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20).saturating_sub(DESCRIPTORS_KEPT).max(16);
        Arc::new(Self { open: AtomicUsize::new(0), most: most as usize })
    }

    fn enter(self: &Arc<Self>) -> Option<Place> {
        let sockets = metrics().sockets.get().max(0) as usize;
        if self.open.load(Ordering::Relaxed) + sockets >= self.most {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Place(self.clone()))
    }
}

struct Place(Arc<Connections>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
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
            Ok((stream, peer)) => match connections.enter() {
                Some(place) => {
                    tokio::spawn(connection(stream, peer, router.clone(), place, stop.clone()));
                }
                None => {
                    metrics().connections_refused.with_label_values(&["descriptors"]).inc();
                    tokio::spawn(refuse(stream));
                }
            },
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                metrics().connections_refused.with_label_values(&["accept"]).inc();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn refuse(mut stream: TcpStream) {
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.write_all(FULL)).await;
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
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
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
    match tokio::time::timeout(REQUEST, router.oneshot(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let problem = Problem::new(ErrorCode::Unavailable, "the request took too long");
            Ok(problem.with_status(StatusCode::REQUEST_TIMEOUT).into_response())
        }
    }
}
