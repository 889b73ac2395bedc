//! Metrics of the process: each is registered once, here, with the help text that `docs/metrics.md` is made of. No label
//! carries an id. Logs are set up by the command line; what is counted where is decided by the callers.

mod process;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Label values of `haus_dropped_total`.
pub const DROP_REASONS: &[(&str, &str)] = &[
    ("courier_down", "updates that other nodes must find in the log, because Redis could not be reached for too long"),
    ("courier_queue", "the same, because the queue to Redis was full"),
    (
        "courier_inbound",
        "messages of other nodes, because this one did not keep up reading them; the poll runs at once",
    ),
    ("courier_forged", "messages on our channels that no node of this deployment sealed; nothing of them is used"),
    ("courier_malformed", "messages of other nodes that could not be read"),
    ("ring", "rings of recent updates forgotten to keep within memory; resumes read the log instead"),
    ("send_queue", "sends refused with `overloaded`, because too many waited for their commit"),
    ("worker_inbox", "runs of updates not handed to a worker that was too far behind; its sessions read the log"),
];
/// Label values of `haus_connections_refused_total`.
pub const REFUSAL_REASONS: &[(&str, &str)] = &[
    ("accept", "the kernel could not give a connection"),
    ("address", "the client's network holds as many connections or sockets as it may"),
    ("descriptors", "the process has too few file descriptors left"),
    ("origin", "a browser of a foreign origin"),
    ("unread", "the client did not take its answer at the least pace"),
];

/// Seconds of database and network work.
const WORK_SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Sends in a batch.
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Every metric of the process. Counters are plain atomic additions.
pub struct Metrics {
    pub sockets: IntGauge,
    pub lagging_sessions: IntGauge,
    pub outbox_pending: IntGauge,
    pub worker_panics: IntCounter,
    pub frames_received: IntCounter,
    pub updates_encoded: IntCounter,
    pub socket_writes: IntCounter,
    pub deliveries: IntCounter,
    pub auth_seconds: Histogram,
    pub send_commit_seconds: Histogram,
    pub send_batch_size: Histogram,
    pub statements: IntCounterVec,
    pub db_pool_in_use: IntGauge,
    pub feed_repairs: IntCounter,
    pub feed_holes: IntGauge,
    pub feed_jumps: IntCounter,
    pub polls: IntCounter,
    pub catch_up_pages: IntCounter,
    pub catch_up_updates: IntCounter,
    pub courier_published: IntCounter,
    pub courier_received: IntCounter,
    pub courier_lag_seconds: Histogram,
    pub courier_reconnects: IntCounter,
    pub canary_age_seconds: Gauge,
    pub sign_ins: IntCounterVec,
    pub refusals: IntCounterVec,
    pub rate_limited: IntCounter,
    pub rate_limited_work: IntCounter,
    pub rate_buckets: IntGauge,
    pub dropped: IntCounterVec,
    pub connections_refused: IntCounterVec,
    process_open_fds: IntGauge,
    process_resident_bytes: IntGauge,
    process_cpu_seconds: Counter,
    registry: Registry,
    samplers: Mutex<Samplers>,
}

/// Sets gauges that are read from elsewhere rather than counted.
type Sampler = Box<dyn Fn(&Metrics) + Send + Sync>;

#[derive(Default)]
struct Samplers {
    next: u64,
    by_id: BTreeMap<u64, Sampler>,
}

/// As long as it lives, its sampler is called; see [`sample`].
#[must_use = "dropped, it samples no more"]
pub struct Sampling(u64);

impl Drop for Sampling {
    fn drop(&mut self) {
        lock(&metrics().samplers).by_id.remove(&self.0);
    }
}

/// The process's metrics, made at the first use.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        Metrics::register(Registry::new()).unwrap_or_else(|error| panic!("a metric is named twice or wrongly: {error}"))
    })
}

/// Has `sampler` called before every scrape, for gauges such as `db_pool_in_use`. It must not block.
pub fn sample(sampler: impl Fn(&Metrics) + Send + Sync + 'static) -> Sampling {
    let mut samplers = lock(&metrics().samplers);
    let id = samplers.next;
    samplers.next += 1;
    samplers.by_id.insert(id, Box::new(sampler));
    Sampling(id)
}

/// Prometheus text, format 0.0.4.
pub fn render() -> String {
    let metrics = metrics();
    lock(&metrics.samplers).by_id.values().for_each(|sampler| sampler(metrics));
    metrics.process_open_fds.set(process::open_descriptors());
    metrics.process_resident_bytes.set(process::resident_bytes());
    metrics.process_cpu_seconds.inc_by((process::cpu_seconds() - metrics.process_cpu_seconds.get()).max(0.0));
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&metrics.registry.gather(), &mut out) {
        tracing::error!(%error, "metrics could not be rendered");
    }
    String::from_utf8(out).unwrap_or_default()
}

impl Metrics {
    fn register(registry: Registry) -> prometheus::Result<Self> {
        let to = Registrar(&registry);
        Ok(Self {
            sockets: to.gauge("haus_sockets", "Open websockets")?,
            lagging_sessions: to
                .gauge("haus_lagging_sessions", "Sessions that read a stream from the log, because they fell behind")?,
            outbox_pending: to.gauge("haus_outbox_pending", "Bytes waiting in the outboxes of sockets")?,
            worker_panics: to.counter(
                "haus_worker_panics_total",
                "Workers that met a defect, closed their sockets and began anew",
            )?,
            frames_received: to.counter("haus_frames_received_total", "Websocket frames taken from clients")?,
            updates_encoded: to.counter("haus_updates_encoded_total", "Updates encoded; not deliveries")?,
            socket_writes: to.counter("haus_socket_writes_total", "Writes to sockets, each of one or more frames")?,
            deliveries: to.counter("haus_deliveries_total", "Updates put into the outbox of a session")?,
            auth_seconds: to.seconds("haus_auth_seconds", "From an `auth` taken to `ready`")?,
            send_commit_seconds: to.seconds("haus_send_commit_seconds", "From a send taken to its commit")?,
            send_batch_size: to.histogram("haus_send_batch_size", "Sends in one database call", BATCH_SIZES)?,
            statements: to.labelled("haus_statements_total", "Database calls by the engine, by path", "path", &[])?,
            db_pool_in_use: to.gauge("haus_db_pool_in_use", "Database connections in use at the scrape")?,
            feed_repairs: to.counter("haus_feed_repairs_total", "Holes of feeds that were read from the log")?,
            feed_holes: to.gauge("haus_feed_holes", "Feeds with a hole that is still to be filled from the log")?,
            feed_jumps: to.counter(
                "haus_feed_jumps_total",
                "Holes jumped over, too wide or unreadable: each session pages for itself",
            )?,
            polls: to.counter("haus_polls_total", "Snapshot polls of the log")?,
            catch_up_pages: to.counter("haus_catch_up_pages_total", "Pages of the log read to catch up")?,
            catch_up_updates: to.counter("haus_catch_up_updates_total", "Updates in those pages")?,
            courier_published: to
                .counter("haus_courier_published_total", "Updates that Redis took to hand to the other nodes")?,
            courier_received: to.counter("haus_courier_received_total", "Updates of other nodes that came by Redis")?,
            courier_lag_seconds: to.seconds(
                "haus_courier_lag_seconds",
                "From publishing at another node to hearing of it here, by the clocks of both machines",
            )?,
            courier_reconnects: to
                .counter("haus_courier_reconnects_total", "Connections to Redis made, the first two included")?,
            canary_age_seconds: to.float(
                "haus_canary_age_seconds",
                "Age of the newest own canary that came back through Redis; 0 with the in-process courier",
            )?,
            sign_ins: to.pairs(
                "haus_sign_ins_total",
                "Registrations, log-ins, refreshes and log-outs (`door`), by how they ended (`outcome`: `ok`, or the code)",
                &["door", "outcome"],
            )?,
            refusals: to.pairs(
                "haus_refusals_total",
                "Requests (`door` `rest`) and frames (`socket`) that were refused, by `code`",
                &["door", "code"],
            )?,
            rate_limited: to.counter("haus_rate_limited_total", "Sends refused because the profile sent too many")?,
            rate_limited_work: to.counter(
                "haus_rate_limited_work_total",
                "Requests and commands other than sends refused because the profile or the address made too many",
            )?,
            rate_buckets: to.gauge("haus_rate_buckets", "Profiles whose rate of sends is being remembered")?,
            dropped: to.labelled(
                "haus_dropped_total",
                "Things let go to stay within a limit",
                "reason",
                DROP_REASONS,
            )?,
            connections_refused: to.labelled(
                "haus_connections_refused_total",
                "Connections and upgrades refused",
                "reason",
                REFUSAL_REASONS,
            )?,
            process_open_fds: to.gauge("haus_process_open_fds", "Open file descriptors")?,
            process_resident_bytes: to.gauge("haus_process_resident_bytes", "Resident memory, bytes")?,
            process_cpu_seconds: to.add(Counter::new("haus_process_cpu_seconds_total", "CPU time used, seconds"))?,
            samplers: Mutex::default(),
            registry: registry.clone(),
        })
    }
}

fn lock(samplers: &Mutex<Samplers>) -> MutexGuard<'_, Samplers> {
    samplers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes and registers.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }

    fn float(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.add(Gauge::new(name, help))
    }

    fn seconds(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        self.histogram(name, help, WORK_SECONDS)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn pairs(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// The known values show as 0 from the start.
    fn labelled(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, &str)],
    ) -> prometheus::Result<IntCounterVec> {
        let family = self.add(IntCounterVec::new(Opts::new(name, help), &[label]))?;
        for (value, _) in values {
            family.with_label_values(&[value]);
        }
        Ok(family)
    }
}

#[cfg(test)]
mod tests;
