//! The composition root: configuration and a bound listener in, a running node out. Tests use it too.

pub mod backend;
pub mod log;
mod watcher;
pub mod welcome;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::config::{Config, cannot_listen};
use crate::courier::{self, Courier, CourierEvent, EventSink, SealKey};
use crate::deployment::Deployment;
use crate::http::ops::Vitals;
use crate::http::server::{self, Connections};
use crate::http::socket::Sockets;
use crate::http::state::Ports;
use crate::http::{AppState, site};
use crate::identity::binding::{self, BindError};
use crate::identity::keys::ID_BYTES;
use crate::identity::reseal;
use crate::identity::{Identity, IdentitySettings, Keys, PasswordCost, keys};
use crate::limits::{Addresses, RateLimiter, SessionBook, WorkRates, share_sessions};
use crate::messaging::batcher::{Batcher, CommitSink};
use crate::messaging::lookups::Lookups;
use crate::messaging::send::SendChecker;
use crate::protocol::CloseCode;
use crate::realtime::node::Node;
use crate::realtime::{Backend, EngineOptions, LogReader};
use crate::store::admission::{self, Refused, START_PATIENCE};
use crate::store::safety::SafetyState;
use crate::store::{epoch, pools};
use crate::telemetry;
use backend::{Announcer, Product};
use log::Log;
use welcome::Welcomes;

/// Connections of the send batcher, one a lane, and one more for a renewed one.
const SEND_CONNECTIONS: u32 = 3;
/// Connections of look-ups for sends above the rate.
const LOOKUP_CONNECTIONS: u32 = 1;
/// Connections of websocket tickets.
const TICKET_CONNECTIONS: u32 = 2;
/// Connections of everything else.
const CONNECTIONS: u32 = 12;
/// Connections that may wait to be accepted (the kernel's `somaxconn` caps it).
const BACKLOG: i32 = 4096;

/// Why a node did not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    #[error("{0}")]
    Setting(String),
    #[error("{0}")]
    Database(#[from] Refused),
    #[error(transparent)]
    Key(#[from] BindError),
    #[error("{0}")]
    Failed(String),
}

impl StartupError {
    /// Exit codes of the protocol, section 7.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Setting(_) => 2,
            Self::Database(refused) => refused.exit_code(),
            Self::Key(error) => error.exit_code(),
        }
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Where the database is; `None` in `DATABASE_URL` was resolved by the caller.
#[derive(Debug, Clone)]
pub struct Services {
    pub database_url: String,
    pub redis_url: Option<String>,
    /// 32 bytes, base64.
    pub secret_key: String,
}

/// A node that serves, and what its end needs.
struct Started {
    name: String,
    address: SocketAddr,
    node: Arc<Node>,
    courier: Arc<dyn Courier>,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    key_id: [u8; ID_BYTES],
    key_pool: PgPool,
    _sampling: telemetry::Sampling,
}

/// Runs a node until `drain` turns true, then closes every socket (4000) and returns. Turned before the node is ready, it
/// ends the start, whatever that waits for (a database that cannot be reached or does not answer).
///
/// # Errors
/// Each with its exit code; nothing was served when one comes before `ready`.
pub async fn run(
    config: Config,
    listener: TcpListener,
    services: Services,
    mut drain: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr, &str),
) -> Result<(), StartupError> {
    let started = tokio::select! {
        started = start(config, listener, services) => started?,
        _ = drain.wait_for(|drain| *drain) => return Ok(()),
    };
    ready(started.address, &started.name);
    let retired = tokio::select! {
        _ = drain.wait_for(|drain| *drain) => false,
        () = key_retired(&started.key_pool, started.key_id) => true,
    };
    started.end().await;
    if retired {
        return Err(StartupError::Setting(
            "HAUS_SECRET_KEY: this root key was changed for another and is retired".to_owned(),
        ));
    }
    Ok(())
}

impl Started {
    async fn end(self) {
        tracing::info!("draining");
        self.draining.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
        self.node.stop(CloseCode::Drain).await;
        self.courier.shutdown();
        let _ = tokio::time::timeout(Duration::from_secs(2), self.serving).await;
    }
}

async fn start(config: Config, listener: TcpListener, services: Services) -> Result<Started, StartupError> {
    let name = config.node.clone().unwrap_or_else(|| format!("n-{}", &Uuid::new_v4().simple().to_string()[..8]));
    let safety_state = SafetyState::default();
    let setting = |error: sqlx::Error| StartupError::Setting(format!("DATABASE_URL: {error}"));
    let pool = pools::connect(&services.database_url, &name, CONNECTIONS, &safety_state).map_err(setting)?;
    let send_pool = pools::connect(&services.database_url, &name, SEND_CONNECTIONS, &safety_state).map_err(setting)?;
    let lookup_pool =
        pools::connect(&services.database_url, &name, LOOKUP_CONNECTIONS, &safety_state).map_err(setting)?;
    let ticket_pool =
        pools::connect(&services.database_url, &name, TICKET_CONNECTIONS, &safety_state).map_err(setting)?;
    admission::admit(&services.database_url, START_PATIENCE).await?;
    let watch_pool = pools::watch(&services.database_url, &name).map_err(setting)?;
    let (epoch, place) = epoch::load_here(&watch_pool).await.map_err(StartupError::failed)?;
    safety_state.hold(place);
    watcher::renumber(&watch_pool, &pool).await;

    let keys = keys::of_settings(&services.secret_key, &config.secret_keys_also).map_err(StartupError::Setting)?;
    let binding::Bound { deployment, keys } = binding::bind(&pool, keys).await?;
    let deployment = Deployment::new(deployment, epoch);
    let (key_id, key_pool) = (keys.id, pool.clone());
    let _ = binding::touch(&key_pool, key_id).await;
    let redis_ca = config.redis_ca().map_err(StartupError::Setting)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = IdentitySettings {
        access_ttl_ms: config.access_ttl_ms,
        auto_activate: config.auto_activate,
        password_cost: PasswordCost::OWASP,
        password_cores: cores,
    };
    let identity = Identity::new(pool.clone(), &keys, settings).map_err(StartupError::failed)?;
    let identity = Arc::new(identity.with_ticket_pool(ticket_pool));
    identity.revoked().poll(&pool).await.map_err(StartupError::failed)?;

    // The courier speaks to the hub, and the hub to the courier: the way back is known a moment later.
    let listening: Arc<OnceLock<Listening>> = Arc::new(OnceLock::new());
    let courier = start_courier(&services, redis_ca.as_deref(), &deployment, &keys, listening.clone())?;
    let parts = Node::hub(&courier);
    let _ = listening.set(parts.clone());

    let announcer = Arc::new(Announcer { hub: parts.0.clone(), courier: courier.clone() });
    let watched = safety_state.clone();
    let unsafe_database: Arc<dyn Fn() -> Option<String> + Send + Sync> =
        Arc::new(move || watched.reason().map(|reason| reason.to_string()));
    let checker = Arc::new(SendChecker::new(&keys.message_mac));
    let rates = Arc::new(RateLimiter::new(config.sends_per_10s, config.limits_on()));
    if let Some(url) = &services.redis_url {
        let shared = rates.share(url, redis_ca.as_deref(), deployment.clone());
        shared.map_err(|error| StartupError::Setting(format!("REDIS_URL: {error}")))?;
    }
    let pools = (pool.clone(), send_pool.clone());
    let _sampling = telemetry::sample(move |metrics| {
        let used = |pool: &PgPool| i64::from(pool.size()) - pool.num_idle() as i64;
        metrics.db_pool_in_use.set(used(&pools.0) + used(&pools.1));
    });
    let work = Arc::new(WorkRates::new(config.limits_on()));
    let sink = announcer.clone();
    let lookups = Lookups::start(lookup_pool, move |answers| sink.committed(Vec::new(), answers, &|_| None));
    let product = Arc::new(Product {
        identity: identity.clone(),
        pool: pool.clone(),
        welcomes: Welcomes::start(pool.clone(), identity.clone()),
        batcher: Batcher::start(send_pool, announcer.clone()),
        checker: checker.clone(),
        rates,
        work: work.clone(),
        lookups,
        publisher: announcer.clone(),
        unsafe_database: unsafe_database.clone(),
    });
    let log: Arc<dyn LogReader> = Arc::new(Log { pool: pool.clone() });
    let options = engine_options(&config, &name, cores);
    let backend: Arc<dyn Backend> = product.clone();
    let node =
        Node::start(options, epoch.to_string(), parts, courier.clone(), backend, log).map_err(StartupError::failed)?;
    if let Some(url) = services.redis_url.as_ref().filter(|_| config.limits_on()) {
        node.shared.registry.share();
        let book: Arc<dyn SessionBook> = node.clone();
        let most = config.sessions_per_profile as usize;
        share_sessions(url, redis_ca.as_deref(), deployment.clone(), Arc::downgrade(&book), most)
            .map_err(|error| StartupError::Setting(format!("REDIS_URL: {error}")))?;
    }
    revoke_sockets(&identity, &node);
    let revoked = identity.revoked().clone();
    tokio::spawn(revoked.clone().keep_polling(pool.clone()));
    let partition_missing = Arc::new(AtomicBool::new(false));
    tokio::spawn(watcher::partitions(pool.clone(), partition_missing.clone()));
    tokio::spawn(watcher::database((watch_pool, pool.clone()), safety_state, node.clone(), deployment));

    let config = Arc::new(config);
    let shared = node.shared.clone();
    let held_epoch = move || shared.epoch();
    let ports = Ports { sender: product, checker, publisher: announcer, epoch: Arc::new(held_epoch), work };
    let state = AppState::new(identity, config.clone(), pool, ports).map_err(StartupError::Setting)?;
    let draining = Arc::new(AtomicBool::new(false));
    let vitals = Vitals {
        node: node.clone(),
        courier: courier.clone(),
        draining: draining.clone(),
        revoked,
        unsafe_database,
        partition_missing,
        limits_on: config.limits_on(),
    };
    let per_address = if config.limits_on() { config.sockets_per_address } else { u32::MAX };
    let sockets = Sockets { node: node.clone(), addresses: Arc::new(Addresses::default()), per_address };
    let operators = site::operators(&state, vitals.clone());
    let routes = site::site(state, sockets, vitals);
    listener.set_nonblocking(true).map_err(StartupError::failed)?;
    // The library's backlog of 128 makes a storm of connects wait for repeated SYNs.
    rustix::net::listen(&listener, BACKLOG).map_err(StartupError::failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(StartupError::failed)?;
    let address = listener.local_addr().map_err(StartupError::failed)?;
    let (stop, stopped) = watch::channel(false);
    let connections = Connections::within_descriptor_limit(&config).map_err(StartupError::Setting)?;
    if !config.limits_on() {
        tracing::warn!("HAUS_LIMITS=off: rates and caps per address and profile are lifted");
    }
    let serving = tokio::spawn(server::serve(listener, routes, connections, stopped.clone()));
    if let Some(ops) = config.ops_listen {
        let listener = tokio::net::TcpListener::bind(ops)
            .await
            .map_err(|error| StartupError::Setting(cannot_listen("HAUS_OPS_LISTEN", ops, &error)))?;
        let connections = Connections::of_operators(&config).map_err(StartupError::Setting)?;
        tokio::spawn(server::serve(listener, operators, connections, stopped));
    }
    // The first poll tells that the log can be read; readiness waits for it.
    wait_until(Duration::from_secs(5), || node.poll_age().is_some()).await;
    Ok(Started { name, address, node, courier, draining, stop, serving, key_id, key_pool, _sampling })
}

/// Says now and then that this node seals with its root key; returns when the database knows that key no more, as what is
/// sealed from then on would be lost.
async fn key_retired(pool: &PgPool, id: [u8; ID_BYTES]) {
    loop {
        if let Ok(false) = binding::touch(pool, id).await {
            tracing::error!("the root key of this node was retired: it ends");
            return;
        }
        tokio::time::sleep(reseal::USE_EVERY).await;
    }
}

type Listening = (Arc<crate::realtime::hub::Hub>, Arc<crate::realtime::repair::Repairs>);

fn engine_options(config: &Config, name: &str, cores: usize) -> EngineOptions {
    EngineOptions {
        node: name.to_owned(),
        // One core is left to the database calls of the runtime.
        workers: config.workers.unwrap_or((cores / 2).max(1)),
        heartbeat_ms: config.heartbeat_ms,
        auth_timeout_ms: config.auth_timeout_ms,
        slow_close_ms: config.slow_close_ms,
        frame_bytes: config.frame_bytes as usize,
        sends_per_10s: config.sends_per_10s,
        sessions_per_profile: config.sessions_per_profile as usize,
        limits_on: config.limits_on(),
    }
}

fn start_courier(
    services: &Services,
    redis_ca: Option<&[u8]>,
    deployment: &Arc<Deployment>,
    keys: &Keys,
    listening: Arc<OnceLock<Listening>>,
) -> Result<Arc<dyn Courier>, StartupError> {
    let sink: EventSink = Arc::new(move |event: CourierEvent| {
        if let Some((hub, repairs)) = listening.get() {
            Node::hear(hub, repairs, event);
        }
    });
    match &services.redis_url {
        None => Ok(Arc::new(courier::in_process::InProcess::new(sink))),
        Some(url) => {
            let seals: Vec<SealKey> = keys.ring().map(|one| SealKey { id: one.id, key: one.courier }).collect();
            let courier = courier::redis::RedisCourier::start(url, redis_ca, deployment.clone(), &seals, sink)
                .map_err(|error| StartupError::Setting(format!("REDIS_URL: {error}")))?;
            Ok(Arc::new(courier))
        }
    }
}

fn revoke_sockets(identity: &Identity, node: &Arc<Node>) {
    let node = node.clone();
    identity.revoked().on_revoked(move |profile_id, session_id| node.revoke(profile_id, session_id));
}

async fn wait_until(most: Duration, done: impl Fn() -> bool) {
    let deadline = Instant::now() + most;
    while !done() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
