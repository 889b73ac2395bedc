//! For operators: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::{ConnectInfo, Extension};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::address::is_direct_loopback;
use super::problem::Problem;
use crate::courier::{Courier, Health};
use crate::identity::RevokedSet;
use crate::protocol::ErrorCode;
use crate::realtime::node::Node;
use crate::telemetry;

/// A node whose log was not read for so long does not know what it misses.
const POLL_AGE_MS: u128 = 10_000;
/// The database has answered nothing for so long: it is asked for revocations every second.
const DATABASE_AGE_MS: u64 = 4_000;

/// What `/readyz` looks at.
#[derive(Clone)]
pub struct Vitals {
    pub node: Arc<Node>,
    pub courier: Arc<dyn Courier>,
    pub draining: Arc<AtomicBool>,
    pub revoked: Arc<RevokedSet>,
    /// Why the database is not to be trusted with commits, or takes none; the text names the setting.
    pub unsafe_database: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// The coming month has no partition for its messages.
    pub partition_missing: Arc<AtomicBool>,
    pub limits_on: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    node: String,
    draining: bool,
    limits: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checks {
    database: String,
    /// `ok`, `unread` (for too long), or `late`: what is committed waits to be read.
    log: &'static str,
    courier: &'static str,
    canary_age_ms: u64,
}

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok"
}

/// 200 when this node may be given traffic, else 503. What it looks at is for whoever asks from this very machine.
pub async fn readyz(
    Extension(vitals): Extension<Vitals>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let (status, body) = look(&vitals);
    match is_direct_loopback(peer.ip(), &headers) {
        true => (status, Json(body)).into_response(),
        false => (status, Json(serde_json::json!({"ready": body.ready}))).into_response(),
    }
}

/// The same on the address for operators, with what it looks at.
pub async fn operator_readyz(Extension(vitals): Extension<Vitals>) -> Response {
    let (status, body) = look(&vitals);
    (status, Json(body)).into_response()
}

/// A courier that is down costs latency only: it is named, and the node stays ready.
fn look(vitals: &Vitals) -> (StatusCode, Ready) {
    let draining = vitals.draining.load(Ordering::Relaxed);
    let database = match (vitals.unsafe_database)() {
        Some(reason) => reason,
        None if is_silent(vitals) => "unreachable".to_owned(),
        None if vitals.partition_missing.load(Ordering::Relaxed) => "next partition of messages missing".to_owned(),
        None => "ok".to_owned(),
    };
    let log = match vitals.node.poll_age() {
        Some(age) if age.as_millis() <= POLL_AGE_MS && !vitals.node.is_late() => "ok",
        Some(age) if age.as_millis() <= POLL_AGE_MS => "late",
        _ => "unread",
    };
    let courier = if vitals.courier.health() == Health::Healthy { "ok" } else { "unhealthy" };
    let ready = !draining && database == "ok" && log == "ok";
    let body = Ready {
        ready,
        node: vitals.node.shared.options.node.clone(),
        draining,
        limits: if vitals.limits_on { "on" } else { "off" },
        checks: Checks { database, log, courier, canary_age_ms: vitals.courier.canary_age_ms() },
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, body)
}

/// Whether the database has not answered for too long, or the log was not read for as long as that may take.
fn is_silent(vitals: &Vitals) -> bool {
    vitals.node.poll_age().is_none() || vitals.revoked.poll_age_ms() > DATABASE_AGE_MS
}

/// Prometheus text, for whoever asks from this very machine.
pub async fn metrics(ConnectInfo(peer): ConnectInfo<SocketAddr>, headers: HeaderMap) -> Response {
    if !is_direct_loopback(peer.ip(), &headers) {
        return Problem::new(ErrorCode::NotFound, "no such path").into_response();
    }
    operator_metrics().await
}

/// Prometheus text, on the address for operators.
pub async fn operator_metrics() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render()).into_response()
}
