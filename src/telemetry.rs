//! Logs and metrics. Metric names are those of `docs/metrics.md`; no label carries an id.

use std::sync::OnceLock;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};

/// Every metric of the process.
pub struct Metrics {
    pub updates_encoded: IntCounter,
    pub send_commit_seconds: Histogram,
    pub send_batch_size: Histogram,
    pub dropped: IntCounterVec,
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
                dropped: vec("haus_dropped_total", "Dropped, by reason", "reason")?,
                statements: vec("haus_statements_total", "Statements, by path", "path")?,
            })
        };
        build().unwrap_or_else(|error| panic!("metrics are named twice or wrongly: {error}"))
    })
}
