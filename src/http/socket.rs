//! `GET /v1/ws`: the checks before the upgrade, the upgrade, and the hand-over of the bare socket to the engine.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::problem::Problem;
use super::progress::Connection;
use super::state::AppState;
use crate::limits::Addresses;
use crate::protocol::{CloseCode, ErrorCode, frame};
use crate::realtime::Credential;
use crate::realtime::inbox::NewSocket;
use crate::realtime::node::Node;
use crate::telemetry::metrics;

/// The subprotocol served.
const PROTOCOL: &str = "haus.v1";

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
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return bad("a websocket is opened by GET in HTTP/1.1").into_response();
    }
    if !names(headers, header::CONNECTION, "upgrade") || !names(headers, header::UPGRADE, "websocket") {
        return bad("this path speaks websocket only").into_response();
    }
    if !names(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        let mut response =
            bad("websocket version 13 is needed").with_status(StatusCode::UPGRADE_REQUIRED).into_response();
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let Some(accept) = accept_key(headers) else {
        return bad("Sec-WebSocket-Key: must be 16 bytes in base64").into_response();
    };
    if !state.origins.may_open(headers) {
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
                sockets.node.accept(NewSocket { socket: stream.into(), early, credential: offer.credential, guard });
            }
            Err(error) => tracing::debug!(error, "upgrade failed"),
        }
    });
    response
}

/// The bare socket and what had been read behind the request.
async fn take_over(on_upgrade: OnUpgrade) -> Result<(std::net::TcpStream, Vec<u8>), String> {
    let upgraded = on_upgrade.await.map_err(|error| error.to_string())?;
    let parts = upgraded.downcast::<TokioIo<Connection>>().map_err(|_| "not a TCP stream".to_owned())?;
    let stream = parts.io.into_inner().into_inner().into_std().map_err(|error| error.to_string())?;
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

fn bad(detail: &str) -> Problem {
    Problem::malformed(detail)
}

/// Whether a list header names `wanted`, over however many lines it goes.
fn names(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(wanted))
}

/// The answer to `Sec-WebSocket-Key` (RFC 6455, 4.2.1), which is 16 bytes in base64.
fn accept_key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16).then(|| derive_accept_key(key))
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
