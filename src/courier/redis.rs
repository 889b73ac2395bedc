//! The driver over Redis pub/sub: one subscriber connection and one publishing connection a node. Nobody waits for
//! Redis: updates go into a bounded queue, one task drains it in pipelines, and everything has a time-out.
//!
//! A canary travels the whole path a few times a second; when it does not come back the connections are made anew. What
//! was missed meanwhile is found by the poll, which a `Gap` sets off.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client, Msg};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Courier, CourierEvent, EventSink, Health, SHARDS};
use crate::telemetry::metrics;
use crate::updates::Update;

/// Bytes of frames waiting for Redis; more are dropped, counted, and found by the others' poll.
pub const QUEUE_BYTES: usize = 32 << 20;
/// Bytes of envelopes in one message.
const PAYLOAD_BYTES: usize = 256 << 10;
/// Connecting, and confirmation of a subscription.
const CONNECT: Duration = Duration::from_secs(1);
/// Answer to a pipeline of publishes.
const RESPONSE: Duration = Duration::from_millis(500);
/// Between canaries.
const CANARY: Duration = Duration::from_millis(250);
/// A canary this old means that the path is dead.
const CANARY_DEAD_MS: u64 = 2_000;
/// First and longest pause between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1000));

#[derive(Default)]
struct Queue {
    updates: Vec<Update>,
    bytes: usize,
}

struct Inner {
    client: Client,
    sink: EventSink,
    /// Marks what this process published.
    origin: Uuid,
    queue: Mutex<Queue>,
    queued: Notify,
    wanted: Mutex<BTreeSet<u16>>,
    wants: Notify,
    started: Instant,
    /// Milliseconds since `started` when the last canary came back.
    canary_ms: AtomicU64,
    /// When the last one was sent.
    canary_sent_ms: AtomicU64,
    subscribed: AtomicBool,
    publishing: AtomicBool,
    unhealthy_since: Mutex<Option<Instant>>,
}

/// Pub/sub through Redis.
pub struct RedisCourier {
    inner: Arc<Inner>,
    stop: watch::Sender<bool>,
}

impl RedisCourier {
    /// Starts the driver on the current runtime; an unreachable Redis is tried again for ever.
    ///
    /// # Errors
    /// When `url` is no Redis URL.
    pub fn start(url: &str, sink: EventSink) -> Result<Self, redis::RedisError> {
        let inner = Arc::new(Inner {
            client: Client::open(url)?,
            sink,
            origin: Uuid::new_v4(),
            queue: Mutex::default(),
            queued: Notify::new(),
            wanted: Mutex::default(),
            wants: Notify::new(),
            started: Instant::now(),
            canary_ms: AtomicU64::new(0),
            canary_sent_ms: AtomicU64::new(0),
            subscribed: AtomicBool::new(false),
            publishing: AtomicBool::new(false),
            unhealthy_since: Mutex::new(Some(Instant::now())),
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(until(stopped.clone(), subscribe_for_ever(inner.clone())));
        tokio::spawn(until(stopped, publish_for_ever(inner.clone())));
        Ok(Self { inner, stop })
    }
}

async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

impl Courier for RedisCourier {
    fn publish(&self, updates: &[Update]) {
        if updates.is_empty() {
            return;
        }
        if !self.inner.publishing.load(Ordering::Relaxed) {
            metrics().dropped.with_label_values(&["courier_down"]).inc_by(updates.len() as u64);
            return;
        }
        let bytes: usize = updates.iter().map(|update| update.frame.len() + 64).sum();
        {
            let mut queue = lock(&self.inner.queue);
            if queue.bytes + bytes > QUEUE_BYTES {
                metrics().dropped.with_label_values(&["courier_queue"]).inc_by(updates.len() as u64);
                return;
            }
            queue.bytes += bytes;
            queue.updates.extend_from_slice(updates);
        }
        self.inner.queued.notify_one();
    }

    fn subscribe(&self, shards: &[u16]) {
        let mut wanted = lock(&self.inner.wanted);
        let before = wanted.len();
        wanted.extend(shards);
        if wanted.len() > before {
            self.inner.wants.notify_one();
        }
    }

    fn health(&self) -> Health {
        match *lock(&self.inner.unhealthy_since) {
            None => Health::Healthy,
            Some(since) => Health::Unhealthy { since },
        }
    }

    fn canary_age_ms(&self) -> u64 {
        self.inner.canary_age_ms()
    }

    fn shutdown(&self) {
        let _ = self.stop.send(true);
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn canary_age_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.canary_ms.load(Ordering::Relaxed))
    }

    fn set_unhealthy(&self) {
        let mut since = lock(&self.unhealthy_since);
        if since.is_none() {
            *since = Some(Instant::now());
            drop(since);
            tracing::warn!("Redis does not answer; updates of other nodes come from the log");
            (self.sink)(CourierEvent::Gap);
        }
    }

    fn set_healthy(&self) {
        let mut since = lock(&self.unhealthy_since);
        if since.take().is_some() {
            drop(since);
            tracing::info!("Redis carries updates");
            // Whatever was published before the subscription stood has passed by.
            (self.sink)(CourierEvent::Gap);
        }
    }

    fn canary_channel(&self) -> String {
        format!("haus:canary:{}", self.origin.simple())
    }

    fn received(&self, message: &Msg) {
        if message.get_channel_name().starts_with("haus:canary:") {
            self.canary_ms.store(self.now_ms(), Ordering::Relaxed);
            metrics().canary_age_seconds.set(0.0);
            if self.subscribed.load(Ordering::Relaxed) {
                self.set_healthy();
            }
            return;
        }
        let mut payload = Bytes::copy_from_slice(message.get_payload_bytes());
        if payload.len() < 24 {
            metrics().dropped.with_label_values(&["courier_malformed"]).inc();
            return;
        }
        if payload[..16] == *self.origin.as_bytes() {
            return;
        }
        payload.advance(16);
        let sent_us = payload.get_u64();
        metrics().courier_lag_seconds.observe(unix_us().saturating_sub(sent_us) as f64 / 1e6);
        let mut updates = Vec::new();
        while !payload.is_empty() {
            match Update::decode_from(&mut payload) {
                Ok(update) => updates.push(update),
                Err(error) => {
                    tracing::warn!(%error, "a message of another node cannot be read");
                    metrics().dropped.with_label_values(&["courier_malformed"]).inc();
                    break;
                }
            }
        }
        if !updates.is_empty() {
            (self.sink)(CourierEvent::Updates(updates));
        }
    }
}

async fn subscribe_for_ever(inner: Arc<Inner>) {
    let mut pause = BACKOFF.0;
    loop {
        if let Ok(Ok(pubsub)) = timeout(CONNECT, inner.client.get_async_pubsub()).await {
            let (mut sink, mut stream) = pubsub.split();
            let began = Instant::now();
            listen(&inner, &mut sink, &mut stream).await;
            if began.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0;
            }
        }
        inner.subscribed.store(false, Ordering::Relaxed);
        inner.set_unhealthy();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// One life of the subscriber connection; returns when it is dead.
async fn listen(inner: &Inner, sink: &mut PubSubSink, stream: &mut PubSubStream) {
    let mut confirmed: BTreeSet<u16> = BTreeSet::new();
    if !matches!(timeout(CONNECT, sink.subscribe(inner.canary_channel())).await, Ok(Ok(()))) {
        return;
    }
    let began_ms = inner.now_ms();
    let mut tick = tokio::time::interval(CANARY);
    inner.wants.notify_one();
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => inner.received(&message),
                None => return,
            },
            () = inner.wants.notified() => {
                let wanted = lock(&inner.wanted).clone();
                let fresh: Vec<u16> = wanted.difference(&confirmed).copied().collect();
                if !fresh.is_empty() {
                    let names: Vec<String> = fresh.iter().map(|shard| channel(*shard)).collect();
                    if !matches!(timeout(CONNECT, sink.subscribe(&names)).await, Ok(Ok(()))) {
                        return;
                    }
                    confirmed.extend(&fresh);
                }
                inner.subscribed.store(true, Ordering::Relaxed);
                if !fresh.is_empty() {
                    (inner.sink)(CourierEvent::Subscribed(fresh));
                }
            }
            _ = tick.tick() => {
                let age_ms = inner.canary_age_ms().min(inner.now_ms() - began_ms);
                metrics().canary_age_seconds.set(inner.canary_age_ms() as f64 / 1e3);
                if age_ms > CANARY_DEAD_MS {
                    return;
                }
                // The publisher sends the canary itself, so that it travels the path of updates.
                inner.queued.notify_one();
            }
        }
    }
}

async fn publish_for_ever(inner: Arc<Inner>) {
    let mut pause = BACKOFF.0;
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(RESPONSE));
    loop {
        let connected = timeout(CONNECT, inner.client.get_multiplexed_async_connection_with_config(&config)).await;
        if let Ok(Ok(mut connection)) = connected {
            inner.publishing.store(true, Ordering::Relaxed);
            let began = Instant::now();
            while publish_queued(&inner, &mut connection).await.is_ok() {
                let _ = timeout(CANARY, inner.queued.notified()).await;
            }
            if began.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0;
            }
        }
        inner.publishing.store(false, Ordering::Relaxed);
        let lost = std::mem::take(&mut *lock(&inner.queue));
        if !lost.updates.is_empty() {
            metrics().dropped.with_label_values(&["courier_down"]).inc_by(lost.updates.len() as u64);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Everything queued, one message a shard, and a canary: one pipelined write.
async fn publish_queued(inner: &Inner, connection: &mut MultiplexedConnection) -> Result<(), redis::RedisError> {
    let taken = std::mem::take(&mut *lock(&inner.queue));
    let mut pipe = redis::pipe();
    let mut payloads: HashMap<u16, BytesMut> = HashMap::new();
    for update in &taken.updates {
        let shard = update.stream.shard(SHARDS);
        let payload = payloads.entry(shard).or_insert_with(|| header(inner.origin));
        update.encode_into(payload);
        if payload.len() >= PAYLOAD_BYTES {
            let full = std::mem::replace(payload, header(inner.origin));
            pipe.cmd("PUBLISH").arg(channel(shard)).arg(&full[..]).ignore();
        }
    }
    for (shard, payload) in payloads.iter().filter(|(_, payload)| payload.len() > 24) {
        pipe.cmd("PUBLISH").arg(channel(*shard)).arg(&payload[..]).ignore();
    }
    let now_ms = inner.now_ms();
    if now_ms - inner.canary_sent_ms.load(Ordering::Relaxed) >= CANARY.as_millis() as u64 * 4 / 5 {
        inner.canary_sent_ms.store(now_ms, Ordering::Relaxed);
        pipe.cmd("PUBLISH").arg(inner.canary_channel()).arg("1").ignore();
    }
    if pipe.is_empty() {
        return Ok(());
    }
    let published: Result<(), redis::RedisError> = pipe.query_async(connection).await;
    if published.is_err() && !taken.updates.is_empty() {
        metrics().dropped.with_label_values(&["courier_down"]).inc_by(taken.updates.len() as u64);
    }
    published
}

fn header(origin: Uuid) -> BytesMut {
    let mut out = BytesMut::with_capacity(1024);
    out.put_slice(origin.as_bytes());
    out.put_u64(unix_us());
    out
}

fn channel(shard: u16) -> String {
    format!("haus:s:{shard}")
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
