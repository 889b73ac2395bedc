//! What all nodes and clients of one run share: the database, the courier's network, the record of what was seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::database::Database;
use super::node::Node;
use super::rng::Rng;
use crate::checker::record::Record;
use crate::courier::CourierEvent;
use crate::updates::Update;

/// Of a hundred, how many batches of hints are lost, and how many come twice, while the courier is well.
const LOST_PERCENT: u64 = 4;
const TWICE_PERCENT: u64 = 4;
const LATE_PERCENT: u64 = 10;

pub struct World {
    database: Mutex<Database>,
    records: Mutex<Vec<Record>>,
    nodes: Mutex<Vec<Arc<Node>>>,
    rng: Mutex<Rng>,
    pub courier_is_up: AtomicBool,
    /// Single reads and calls fail or are late.
    pub is_rough: AtomicBool,
    started: Instant,
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            database: Mutex::default(),
            records: Mutex::default(),
            nodes: Mutex::default(),
            rng: Mutex::new(Rng::new(seed, 1)),
            courier_is_up: AtomicBool::new(true),
            is_rough: AtomicBool::new(true),
            started: Instant::now(),
        })
    }

    pub fn database(&self) -> MutexGuard<'_, Database> {
        lock(&self.database)
    }

    pub fn below(&self, n: u64) -> u64 {
        lock(&self.rng).below(n)
    }

    pub fn between(&self, low: u64, high: u64) -> u64 {
        lock(&self.rng).between(low, high)
    }

    pub fn chance(&self, percent: u64) -> bool {
        lock(&self.rng).chance(percent)
    }

    pub fn id(&self) -> Uuid {
        let mut rng = lock(&self.rng);
        Uuid::from_u64_pair(rng.next_u64(), rng.next_u64())
    }

    pub fn record(&self, record: Record) {
        lock(&self.records).push(record);
    }

    pub fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut lock(&self.records))
    }

    /// Since the beginning.
    pub fn t_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub fn node(&self, number: usize) -> Arc<Node> {
        lock(&self.nodes)[number].clone()
    }

    pub fn nodes(&self) -> Vec<Arc<Node>> {
        lock(&self.nodes).clone()
    }

    /// A new node, or one in the place of another.
    pub fn put_node(&self, node: Arc<Node>) {
        let mut nodes = lock(&self.nodes);
        match nodes.get_mut(node.number) {
            Some(place) => *place = node,
            None => nodes.push(node),
        }
    }

    /// What one node publishes reaches the others, some of it late, twice, in another order, or not at all.
    pub fn carry(&self, from: usize, updates: &[Update]) {
        let others: Vec<Arc<Node>> = self.nodes().into_iter().filter(|node| node.number != from).collect();
        for node in others {
            let is_rough = self.is_rough.load(Ordering::Relaxed);
            if !self.courier_is_up.load(Ordering::Relaxed) || (is_rough && self.chance(LOST_PERCENT)) {
                continue;
            }
            let copies = if is_rough && self.chance(TWICE_PERCENT) { 2 } else { 1 };
            for _ in 0..copies {
                let late = is_rough && self.chance(LATE_PERCENT);
                let delay = Duration::from_millis(if late { self.between(20, 400) } else { self.below(4) });
                let (node, updates) = (node.clone(), updates.to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    node.hear(CourierEvent::Updates(updates)).await;
                });
            }
        }
    }

    /// Breaks or mends the courier; hints may be missing after both.
    pub fn set_courier(&self, is_up: bool) {
        self.courier_is_up.store(is_up, Ordering::Relaxed);
        for node in self.nodes() {
            node.note_courier(is_up);
            tokio::spawn(async move { node.hear(CourierEvent::Gap).await });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
