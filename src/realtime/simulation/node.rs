//! A node of the simulation: the real hub, feeds, repairs, page readers and worker, without threads and sockets. It can be
//! stopped for a while, and killed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::backend::{self, Jobs, NodeBackend};
use super::pipe::{self, ClientEnd, Poller};
use super::world::World;
use crate::courier::{Courier, CourierEvent, Health, SHARDS};
use crate::limits::Addresses;
use crate::realtime::EngineOptions;
use crate::realtime::hub::Hub;
use crate::realtime::inbox::NewSocket;
use crate::realtime::node as engine;
use crate::realtime::repair::Repairs;
use crate::realtime::socket::Socket;
use crate::realtime::worker::Worker;
use crate::updates::Update;

/// Whether a node goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Running,
    /// Stopped (SIGSTOP).
    Frozen,
    Dead,
}

/// What everything in a node passes before it does something. No `watch`: it wakes those who wait in a random order.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<Life>, Notify)>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Life::Running), Notify::new())))
    }

    fn life(&self) -> Life {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, life: Life) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = life;
        self.0.1.notify_waiters();
    }

    /// Returns while the node runs; never where it is dead.
    pub async fn pass(&self) {
        while self.life() != Life::Running {
            self.0.1.notified().await;
        }
    }

    /// Waits while the node is stopped; `false` where it is dead.
    async fn goes_on(&self) -> bool {
        while self.life() == Life::Frozen {
            self.0.1.notified().await;
        }
        self.life() == Life::Running
    }
}

pub struct Node {
    pub number: usize,
    pub engine: Arc<engine::Node>,
    pub jobs: Jobs,
    hub: Arc<Hub>,
    repairs: Arc<Repairs>,
    poller: Arc<Poller>,
    gate: Gate,
    courier: Arc<SimulatedCourier>,
    addresses: Arc<Addresses>,
}

impl Node {
    pub fn start(world: &Arc<World>, number: usize) -> Arc<Self> {
        let gate = Gate::new();
        let (jobs, queue) = Jobs::line();
        let courier = Arc::new(SimulatedCourier {
            number,
            world: Arc::downgrade(world),
            subscribed: Mutex::default(),
            confirmed: Mutex::default(),
            is_well: world.courier_is_up.load(std::sync::atomic::Ordering::Relaxed).into(),
        });
        let (hub, repairs) = engine::Node::hub(&(courier.clone() as Arc<dyn Courier>));
        let backend = Arc::new(NodeBackend::new(world, gate.clone(), hub.clone(), jobs.clone()));
        let options = EngineOptions {
            node: format!("n{}", number + 1),
            workers: 1,
            heartbeat_ms: 25_000,
            auth_timeout_ms: 10_000,
            slow_close_ms: 30_000,
            frame_bytes: 64 << 10,
            sends_per_10s: 1_000,
            sessions_per_profile: 20,
            limits_on: false,
        };
        let epoch = world.database().epoch.to_string();
        let feeds = (hub.clone(), repairs.clone());
        let assembled =
            engine::Node::assemble(options, epoch, feeds, courier.clone(), backend.clone(), backend.clone());
        let (engine, workers) = assembled.expect("a node");
        let poller = Arc::new(Poller::default());
        for worker in workers {
            tokio::spawn(work(worker, poller.clone(), gate.clone(), world.clone()));
        }
        tokio::spawn(backend::commit(backend, courier.clone(), queue));
        let addresses = Arc::default();
        Arc::new(Self { number, engine, jobs, hub, repairs, poller, gate, courier, addresses })
    }

    pub fn life(&self) -> Life {
        self.gate.life()
    }

    pub fn set_life(&self, life: Life) {
        self.gate.set(life);
        self.poller.wake.notify_one();
    }

    /// A socket to this node; none where it is dead.
    pub fn connect(&self, room: usize, arrived: Arc<Notify>) -> Option<ClientEnd> {
        if self.life() == Life::Dead {
            return None;
        }
        let (server, client) = pipe::connect(&self.poller, room, arrived);
        let guard = self.addresses.enter([127, 0, 0, 1].into(), u32::MAX)?;
        let socket = Socket::Simulated(server);
        self.engine.accept(NewSocket { socket, early: Vec::new(), credential: None, guard });
        self.poller.wake.notify_one();
        Some(client)
    }

    /// Something from the courier; a stopped node hears it later.
    pub async fn hear(&self, event: CourierEvent) {
        self.gate.pass().await;
        let event = match event {
            CourierEvent::Updates(mut updates) => {
                updates.retain(|update| self.courier.is_confirmed(update.stream.shard(SHARDS)));
                CourierEvent::Updates(updates)
            }
            CourierEvent::Subscribed(shards) => {
                self.courier.confirm(&shards);
                CourierEvent::Subscribed(shards)
            }
            CourierEvent::Gap => CourierEvent::Gap,
        };
        engine::Node::hear(&self.hub, &self.repairs, event);
        self.poller.wake.notify_one();
    }

    /// The epoch of the database, as a node that looks sees it.
    pub async fn keep_epoch(&self, epoch: &str) {
        self.gate.pass().await;
        self.engine.keep_epoch(epoch);
    }

    /// The courier broke, or is well again and everything is subscribed anew.
    pub fn note_courier(self: &Arc<Self>, is_up: bool) {
        self.courier.is_well.store(is_up, std::sync::atomic::Ordering::Relaxed);
        self.courier.lock_confirmed().clear();
        if is_up {
            let shards: Vec<u16> = self.courier.lock_subscribed().iter().copied().collect();
            self.courier.subscribe_later(shards);
        }
    }
}

/// The worker's loop, without a poller of the system.
async fn work(mut worker: Worker, poller: Arc<Poller>, gate: Gate, world: Arc<World>) {
    let mut messages = Vec::new();
    // When the node dies its sockets are closed with the worker.
    while gate.goes_on().await {
        worker.now_ms = world.now_ms();
        worker.turn(poller.take().into_values(), &mut messages);
        worker.inbox.going_to_sleep();
        if worker.has_work() || !poller.is_empty() {
            tokio::task::yield_now().await;
        } else {
            let rest = worker.rest().max(std::time::Duration::from_millis(1));
            let _ = tokio::time::timeout(rest, poller.wake.notified()).await;
        }
        worker.inbox.awake();
    }
}

/// Hints between the nodes of a world.
pub struct SimulatedCourier {
    number: usize,
    world: std::sync::Weak<World>,
    subscribed: Mutex<BTreeSet<u16>>,
    confirmed: Mutex<BTreeSet<u16>>,
    is_well: std::sync::atomic::AtomicBool,
}

impl SimulatedCourier {
    fn lock_subscribed(&self) -> std::sync::MutexGuard<'_, BTreeSet<u16>> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_confirmed(&self) -> std::sync::MutexGuard<'_, BTreeSet<u16>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_confirmed(&self, shard: u16) -> bool {
        self.lock_confirmed().contains(&shard)
    }

    fn confirm(&self, shards: &[u16]) {
        self.lock_confirmed().extend(shards);
    }

    fn subscribe_later(&self, shards: Vec<u16>) {
        let (number, world) = (self.number, self.world.clone());
        tokio::spawn(async move {
            let Some(world) = world.upgrade() else { return };
            tokio::time::sleep(std::time::Duration::from_millis(world.below(10))).await;
            if world.courier_is_up.load(std::sync::atomic::Ordering::Relaxed) {
                world.node(number).hear(CourierEvent::Subscribed(shards)).await;
            }
        });
    }
}

impl Courier for SimulatedCourier {
    fn publish(&self, updates: &[Update]) {
        if let Some(world) = self.world.upgrade() {
            world.carry(self.number, updates);
        }
    }

    fn subscribe(&self, shards: &[u16]) {
        let fresh: Vec<u16> = {
            let mut subscribed = self.lock_subscribed();
            shards.iter().copied().filter(|shard| subscribed.insert(*shard)).collect()
        };
        if !fresh.is_empty() {
            self.subscribe_later(fresh);
        }
    }

    fn health(&self) -> Health {
        match self.is_well.load(std::sync::atomic::Ordering::Relaxed) {
            true => Health::Healthy,
            false => Health::Unhealthy { since: std::time::Instant::now() },
        }
    }

    fn canary_age_ms(&self) -> u64 {
        0
    }

    fn shutdown(&self) {}
}
