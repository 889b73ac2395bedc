//! Nodes that only record what their courier tells them, and the Redis between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haus::courier::in_process::InProcess;
use haus::courier::redis::RedisCourier;
use haus::courier::{Courier, CourierEvent, EventSink, Health, SHARDS, SealKey};
use haus::deployment::Deployment;
use haus::updates::{StreamId, Touch, Update, UpdateKind};
use uuid::Uuid;

use crate::rig::Folder;
use crate::rig::redis::Redis;

/// What the couriers of a test go through.
pub enum Network {
    InProcess,
    Redis(String, Member),
}

/// As whom a node takes part.
#[derive(Clone)]
pub struct Member {
    pub deployment: Arc<Deployment>,
    pub keys: Vec<SealKey>,
}

impl Member {
    pub fn of(deployment: u128, epoch: u128, root: u8) -> Self {
        let deployment = Deployment::new(Uuid::from_u128(deployment), Uuid::from_u128(epoch));
        Self { deployment, keys: vec![SealKey { id: [root; 4], key: [root; 32] }] }
    }
}

impl Network {
    /// All of one deployment.
    pub fn redis(url: String) -> Self {
        Self::Redis(url, Member::of(1, 1, 1))
    }
}

/// A private Redis with its folder.
pub struct Server {
    pub redis: Redis,
    _logs: Folder,
}

impl Server {
    pub fn start() -> Self {
        let logs = Folder::new("courier").unwrap();
        Self { redis: Redis::start(logs.path()).unwrap(), _logs: logs }
    }

    pub fn url(&self) -> String {
        self.redis.url()
    }
}

/// Everything a node heard.
#[derive(Default)]
pub struct Heard {
    /// In the order of arrival.
    pub updates: Vec<Update>,
    /// How often each shard was confirmed.
    pub confirmed: BTreeMap<u16, u32>,
    pub gaps: u32,
    /// Updates of shards that were not confirmed before.
    pub early: u32,
}

/// A courier and what came from it.
pub struct Node {
    pub courier: Box<dyn Courier>,
    heard: Arc<Mutex<Heard>>,
}

impl Node {
    pub fn start(network: &Network) -> Self {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let ear = heard.clone();
        let sink: EventSink = Arc::new(move |event| {
            let mut heard = ear.lock().unwrap();
            match event {
                CourierEvent::Gap => heard.gaps += 1,
                CourierEvent::Subscribed(shards) => {
                    shards.into_iter().for_each(|shard| *heard.confirmed.entry(shard).or_default() += 1);
                }
                CourierEvent::Updates(updates) => {
                    let early = updates.iter().filter(|update| !heard.confirmed.contains_key(&shard_of(update)));
                    heard.early += early.count() as u32;
                    heard.updates.extend(updates);
                }
            }
        });
        let courier: Box<dyn Courier> = match network {
            Network::InProcess => Box::new(InProcess::new(sink)),
            Network::Redis(url, member) => {
                let deployment = member.deployment.clone();
                Box::new(RedisCourier::start(url, None, deployment, &member.keys, sink).unwrap())
            }
        };
        Self { courier, heard }
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    pub fn is_healthy(&self) -> bool {
        self.courier.health() == Health::Healthy
    }

    /// Subscribes to all shards and waits until every one is confirmed.
    pub async fn hear_all(&self) {
        self.courier.subscribe(&(0..SHARDS).collect::<Vec<u16>>());
        wait("all shards confirmed", || self.heard().confirmed.len() == usize::from(SHARDS)).await;
    }
}

/// Some nodes on one network.
pub struct Nodes(pub Vec<Node>);

impl Nodes {
    /// Starts `count` of them and waits until they are healthy.
    pub async fn start(network: &Network, count: usize) -> Self {
        let nodes: Vec<Node> = (0..count).map(|_| Node::start(network)).collect();
        wait("healthy at start", || nodes.iter().all(Node::is_healthy)).await;
        Self(nodes)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.iter().for_each(|node| node.courier.shutdown());
    }
}

/// A stream of updates, numbered from 1.
pub struct Stream {
    pub id: StreamId,
    pub seq: u64,
}

impl Stream {
    pub fn new() -> Self {
        Self { id: StreamId::Thread(Uuid::new_v4()), seq: 0 }
    }

    /// The next update, with a frame of so many bytes.
    pub fn next(&mut self, bytes: usize) -> Update {
        self.seq += 1;
        let frame = Bytes::from(vec![b'm'; bytes]);
        Update { stream: self.id, seq: self.seq, kind: UpdateKind::MessageCreated, touch: Touch::None, frame }
    }
}

pub fn shard_of(update: &Update) -> u16 {
    update.stream.shard(SHARDS)
}

/// The seqs of each stream, in the order of arrival.
pub fn by_stream(updates: &[Update]) -> BTreeMap<StreamId, Vec<u64>> {
    let mut streams: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
    updates.iter().for_each(|update| streams.entry(update.stream).or_default().push(update.seq));
    streams
}

/// The seqs heard of a stream, each once.
pub fn seqs(node: &Node, id: StreamId) -> BTreeSet<u64> {
    node.heard().updates.iter().filter(|update| update.stream == id).map(|update| update.seq).collect()
}

/// Looks until `done`, for at most 10 s.
pub async fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
