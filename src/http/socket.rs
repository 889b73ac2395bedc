//! `GET /v1/ws`: the checks before the upgrade, the upgrade, and the hand-over of the bare socket to the engine.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::problem::Problem;
use super::state::AppState;
use crate::limits::Addresses;
use crate::protocol::{CloseCode, ErrorCode, frame};
use crate::realtime::Credential;
use crate::realtime::inbox::NewSocket;
use crate::realtime::node::Node;
use crate::telemetry::metrics;

/// The subprotocol served.
const PROTOCOL: &str = "haus.v1";

/// Bytes that the kernel holds for a socket until the peer has them (it keeps as much again for its own accounts). Left
/// to itself it takes some megabytes for one that does not read, and a reader of 20 KB a second seems to take nothing for
/// a minute, as the kernel says that there is room only when a third of that is gone.
const SEND_BUFFER: usize = 64 << 10;

/// What upgrades need besides the state of all routes.
#[derive(Clone)]
pub struct Sockets {
    pub node: Arc<Node>,
    pub addresses: Arc<Addresses>,
    /// Sockets one address may hold.
    pub per_address: u32,
}

/// What the client offered in `Sec-WebSocket-Protocol`.
struct Offer {
    any: bool,
    ours: bool,
    credential: Option<Credential>,
}

/// Upgrades a request to a socket. 400 for what is no websocket request, 403 for a foreign origin, 426 for another
/// websocket version, 503 while the address holds too many sockets.
pub async fn upgrade(
    State(state): State<AppState>,
    axum::Extension(sockets): axum::Extension<Sockets>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request<Body>,
) -> Response<Body> {
    let headers = request.headers();
    let has = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Problem::new(ErrorCode::Invalid, "this path speaks websocket only")
            .with_status(StatusCode::BAD_REQUEST)
            .into_response();
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let mut response = Problem::new(ErrorCode::Invalid, "websocket version 13 is needed")
            .with_status(StatusCode::UPGRADE_REQUIRED)
            .into_response();
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let Some(accept) = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes())) else {
        return Problem::new(ErrorCode::Invalid, "Sec-WebSocket-Key: missing")
            .with_status(StatusCode::BAD_REQUEST)
            .into_response();
    };
    if !origin_allowed(headers, &state) {
        metrics().connections_refused.with_label_values(&["origin"]).inc();
        return Problem::new(ErrorCode::Forbidden, "this origin is not allowed").into_response();
    }
    let address = state.trusted_proxies.client_address(peer.ip(), headers);
    let Some(guard) = sockets.addresses.enter(address, sockets.per_address) else {
        metrics().connections_refused.with_label_values(&["address"]).inc();
        let problem = Problem::new(ErrorCode::Unavailable, "too many sockets from this address");
        return with_retry_after(problem.into_response());
    };
    let offer = offer(headers);
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Problem::new(ErrorCode::Invalid, "this connection cannot be upgraded").into_response();
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if offer.ours {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    tokio::spawn(async move {
        match take_over(on_upgrade).await {
            Ok((stream, _)) if offer.any && !offer.ours => refuse_version(stream),
            Ok((stream, early)) => {
                sockets.node.accept(NewSocket { stream, early, credential: offer.credential, guard });
            }
            Err(error) => tracing::debug!(error, "upgrade failed"),
        }
    });
    response
}

/// The bare socket and what had been read behind the request.
async fn take_over(on_upgrade: OnUpgrade) -> Result<(std::net::TcpStream, Vec<u8>), String> {
    let upgraded = on_upgrade.await.map_err(|error| error.to_string())?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| "not a TCP stream".to_owned())?;
    let stream = parts.io.into_inner().into_std().map_err(|error| error.to_string())?;
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER) {
        tracing::debug!(%error, "send buffer");
    }
    Ok((stream, parts.read_buf.to_vec()))
}

/// A client that offers only other protocols is told so with a close code it can read.
fn refuse_version(stream: std::net::TcpStream) {
    use std::io::Write;
    let mut stream = stream;
    let _ = stream.write_all(&frame::close(CloseCode::Version, None));
}

fn offer(headers: &HeaderMap) -> Offer {
    let mut offer = Offer { any: false, ours: false, credential: None };
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    for name in values.flat_map(|value| value.split(',')).map(str::trim) {
        if let Some(token) = name.strip_prefix("bearer.") {
            offer.credential = Some(Credential::Token(token.to_owned()));
        } else if let Some(ticket) = name.strip_prefix("ticket.") {
            offer.credential = Some(Credential::Ticket(ticket.to_owned()));
        } else {
            offer.any = true;
            offer.ours |= name == PROTOCOL;
        }
    }
    offer
}

/// No `Origin`: a native client. The own host and the allow-list pass; everything else, `null` included, does not.
fn origin_allowed(headers: &HeaderMap, state: &AppState) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = ["http://", "https://"]
        .iter()
        .any(|scheme| origin.strip_prefix(scheme).is_some_and(|rest| !host.is_empty() && rest == host));
    let public = state.config.public_url.as_deref().map(|url| url.trim_end_matches('/'));
    own || public == Some(origin) || state.config.origins.iter().any(|allowed| allowed.trim() == origin)
}

fn with_retry_after(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

#[cfg(test)]
mod tests {
    use super::offer;
    use crate::realtime::Credential;
    use axum::http::{HeaderMap, HeaderValue, header};

    #[test]
    fn credentials_come_in_the_protocol_header() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("haus.v1, bearer.a.b.c"));
        let parsed = offer(&headers);
        assert!(parsed.any && parsed.ours);
        assert!(matches!(parsed.credential, Some(Credential::Token(token)) if token == "a.b.c"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("haus.v2"));
        let parsed = offer(&headers);
        assert!(parsed.any && !parsed.ours && parsed.credential.is_none());
    }
}
