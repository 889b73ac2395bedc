//! The driver over Redis pub/sub: one subscriber connection and one publishing connection a node. Nobody waits for
//! Redis: updates go into a bounded queue, one task drains it in pipelines, and everything has a time-out.
//!
//! A canary travels the whole path four times a second; when it does not come back the connections are made anew. What
//! was missed meanwhile is found by the poll, which a `Gap` sets off. Channels are plain pub/sub channels, which a Redis
//! Cluster broadcasts to all its nodes: sharded pub/sub (`SSUBSCRIBE`) would be a third driver. Their names carry the
//! deployment and its epoch, and every message a seal: nobody else who may publish there can speak for a node.

mod inbound;
mod publisher;
mod pulse;
mod seal;
mod subscriber;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Client, IntoConnectionInfo, ProtocolVersion, TlsCertificates};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{Courier, CourierEvent, EventSink, Health, SHARDS, SealKey};
use crate::deployment::Deployment;
use crate::updates::Update;
use inbound::Inbound;
use publisher::Outbound;
use pulse::{Pulse, Turn};
use seal::Signer;

/// Connecting, the handshake included.
const CONNECT: Duration = Duration::from_secs(1);
/// Answer to a pipeline of publishes or to a subscription.
const RESPONSE: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1000));

/// What the driver's tasks share.
struct Shared {
    client: Client,
    sink: EventSink,
    /// Marks what this driver published; fresh with every start.
    origin: Uuid,
    deployment: Arc<Deployment>,
    signer: Signer,
    outbound: Outbound,
    inbound: Arc<Inbound>,
    /// At most [`SHARDS`].
    wanted: Mutex<BTreeSet<u16>>,
    wants: Notify,
    pulse: Pulse,
}

/// Pub/sub through Redis.
pub struct RedisCourier {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

impl RedisCourier {
    /// Starts the driver on the current runtime; an unreachable Redis is tried again for ever. The first of `keys` seals
    /// what is published, all of them are believed. `ca`: see [`client`].
    ///
    /// # Errors
    /// When `url` is no Redis URL.
    pub fn start(
        url: &str,
        ca: Option<&[u8]>,
        deployment: Arc<Deployment>,
        keys: &[SealKey],
        sink: EventSink,
    ) -> Result<Self, redis::RedisError> {
        let shared = Arc::new(Shared {
            client: client(url, ca)?,
            sink,
            origin: Uuid::new_v4(),
            outbound: Outbound::new(deployment.epoch()),
            deployment,
            signer: Signer::new(keys),
            inbound: Arc::default(),
            wanted: Mutex::default(),
            wants: Notify::new(),
            pulse: Pulse::new(),
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(until(stopped.clone(), subscriber::run(shared.clone())));
        tokio::spawn(until(stopped.clone(), inbound::run(shared.clone())));
        tokio::spawn(until(stopped, publisher::run(shared.clone())));
        Ok(Self { shared, stop })
    }
}

/// A client for `url`; `rediss://` is spoken over TLS, with the roots of the machine or, where given, with those in `ca`
/// (PEM) alone.
///
/// # Errors
/// When `url` is no Redis URL, or `ca` holds no certificate.
pub fn client(url: &str, ca: Option<&[u8]>) -> Result<Client, redis::RedisError> {
    let info = url.into_connection_info()?;
    // Only RESP3 hands messages over as they come; RESP2 would put an unbounded queue in between.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.set_redis_settings(settings);
    match ca {
        Some(ca) => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(ca.to_owned()) }),
        None => Client::open(info),
    }
}

async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        // Also when the driver was dropped.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

impl Courier for RedisCourier {
    fn publish(&self, updates: &[Update]) {
        self.shared.outbound.push(self.shared.deployment.epoch(), updates);
    }

    fn subscribe(&self, shards: &[u16]) {
        let mut wanted = lock(&self.shared.wanted);
        let before = wanted.len();
        wanted.extend(shards.iter().filter(|shard| **shard < SHARDS));
        if wanted.len() > before {
            self.shared.wants.notify_one();
        }
    }

    fn health(&self) -> Health {
        match self.shared.pulse.unhealthy_since() {
            None => Health::Healthy,
            Some(since) => Health::Unhealthy { since },
        }
    }

    fn canary_age_ms(&self) -> u64 {
        self.shared.pulse.canary_age_ms()
    }

    fn shutdown(&self) {
        self.stop.send_replace(true);
    }
}

impl Shared {
    /// Says what a change of health means. Both ways something may have passed by unheard.
    fn turned(&self, turn: Turn) {
        match turn {
            Turn::None => return,
            Turn::Unhealthy => tracing::warn!("Redis does not answer; updates of other nodes come from the log"),
            Turn::Healthy => tracing::info!("Redis carries updates"),
        }
        (self.sink)(CourierEvent::Gap);
    }
}

/// The pause before the next attempt: doubled, unless the last connection had lived.
fn next_pause(pause: Duration, lived: Duration) -> Duration {
    if lived > BACKOFF.1 { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
