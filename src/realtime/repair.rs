//! What keeps feeds whole when hints are lost: holes are read from the log once per node, heads of fresh feeds are looked
//! up, and the snapshot poll finds whatever nobody announced.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::LogReader;
use super::hub::Hub;
use crate::courier::{Courier, Health};
use crate::saboteur::{self, Bug};
use crate::telemetry::metrics;
use crate::updates::StreamId;

/// How long a hole may fill by itself.
const PATIENCE: Duration = Duration::from_millis(50);
/// Updates in one read of a hole; a wider one is jumped over.
const HOLE_UPDATES: u32 = 500;
/// Streams in one read.
const STREAMS: usize = 256;
/// Heads looked up in one read.
const HEADS: usize = 2000;
/// How long fresh feeds gather for one look-up of their heads while some were just looked up.
const GATHER: Duration = Duration::from_millis(5);
/// Pause after a failed read.
const RETRY: Duration = Duration::from_millis(200);
/// Between polls while the courier is healthy, and while it is not.
const POLL: Duration = Duration::from_secs(5);
const FAST_POLL: Duration = Duration::from_millis(250);

/// Work for the repairer, noted by whoever meets it.
#[derive(Default)]
pub struct Repairs {
    holes: Mutex<HashMap<StreamId, Instant>>,
    fresh: Mutex<HashSet<StreamId>>,
    wake: Notify,
    poll_now: Notify,
    /// Milliseconds since `started` of the last successful poll; 0: none yet.
    polled_at_ms: AtomicU64,
}

impl Repairs {
    /// A feed has a hole: it is read when it is still there after a moment.
    pub fn hole(&self, stream: StreamId) {
        let mut holes = lock(&self.holes);
        if holes.is_empty() {
            self.wake.notify_one();
        }
        holes.entry(stream).or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// A feed was just made: its head is looked up once more.
    pub fn fresh(&self, stream: StreamId) {
        let mut fresh = lock(&self.fresh);
        if fresh.is_empty() {
            self.wake.notify_one();
        }
        fresh.insert(stream);
    }

    /// Hints may have been lost: poll at once.
    pub fn poll_now(&self) {
        self.poll_now.notify_one();
    }

    /// When the last successful poll was, on the clock of `started`.
    pub fn last_poll(&self, started: Instant) -> Option<Instant> {
        match self.polled_at_ms.load(Ordering::Relaxed) {
            0 => None,
            at_ms => Some(started + Duration::from_millis(at_ms)),
        }
    }

    fn due(&self) -> (Vec<StreamId>, Option<Duration>) {
        let now = Instant::now();
        let mut holes = lock(&self.holes);
        let due: Vec<StreamId> =
            holes.iter().filter(|(_, at)| **at <= now).map(|(stream, _)| *stream).take(STREAMS).collect();
        for stream in &due {
            holes.remove(stream);
        }
        let next = holes.values().min().map(|at| at.saturating_duration_since(now));
        (due, next)
    }

    fn take_fresh(&self) -> Vec<StreamId> {
        let mut fresh = lock(&self.fresh);
        let taken: Vec<StreamId> = fresh.iter().copied().take(HEADS).collect();
        for stream in &taken {
            fresh.remove(stream);
        }
        taken
    }
}

/// Runs the repairer and the poll until the runtime ends.
pub fn spawn(
    hub: Arc<Hub>,
    repairs: Arc<Repairs>,
    log: Arc<dyn LogReader>,
    courier: Arc<dyn Courier>,
    started: Instant,
) {
    tokio::spawn(fill(hub.clone(), repairs.clone(), log.clone()));
    // Planted: what a lost connection kept from this node is never looked for.
    if !saboteur::plants(Bug::IgnoreDisconnect) {
        tokio::spawn(poll(hub, repairs, log, courier, started));
    }
}

async fn fill(hub: Arc<Hub>, repairs: Arc<Repairs>, log: Arc<dyn LogReader>) {
    loop {
        let fresh = repairs.take_fresh();
        if !fresh.is_empty() {
            match log.heads(&fresh).await {
                Ok(heads) => {
                    heads.into_iter().for_each(|(stream, head)| hub.know(stream, head));
                    tokio::time::sleep(GATHER).await;
                }
                Err(_) => {
                    fresh.into_iter().for_each(|stream| repairs.fresh(stream));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let (due, next) = repairs.due();
        if !due.is_empty() {
            if !read_holes(&hub, log.as_ref(), &due).await {
                due.into_iter().for_each(|stream| repairs.hole(stream));
                tokio::time::sleep(RETRY).await;
            }
            continue;
        }
        let wait = next.unwrap_or(Duration::from_secs(3600));
        let _ = tokio::time::timeout(wait.max(Duration::from_millis(1)), repairs.wake.notified()).await;
    }
}

/// Reads what is missing in each stream; false when the log could not be read.
async fn read_holes(hub: &Hub, log: &dyn LogReader, due: &[StreamId]) -> bool {
    let mut asks = Vec::new();
    for stream in due {
        match hub.hole(*stream) {
            Some((head, known)) if known - head > u64::from(HOLE_UPDATES) => {
                // The head known from the database is committed, and so is everything up to it.
                hub.jump(*stream, known);
            }
            Some((head, _)) => asks.push((*stream, head)),
            None => {}
        }
    }
    if asks.is_empty() {
        return true;
    }
    metrics().feed_repairs.inc_by(asks.len() as u64);
    match log.pages(&asks, HOLE_UPDATES).await {
        Ok(pages) => {
            pages.iter().for_each(|page| hub.ingest(page));
            // Whatever is still missing (a hint may run ahead of a replica, never of the primary) is noted again.
            asks.iter().filter(|(stream, _)| hub.hole(*stream).is_some()).for_each(|(stream, _)| {
                hub.know(*stream, 0);
            });
            true
        }
        Err(_) => false,
    }
}

async fn poll(
    hub: Arc<Hub>,
    repairs: Arc<Repairs>,
    log: Arc<dyn LogReader>,
    courier: Arc<dyn Courier>,
    started: Instant,
) {
    let mut snapshot: Option<String> = None;
    loop {
        let read = log.poll(snapshot.clone()).await;
        metrics().polls.inc();
        let pause = match read {
            Ok(polled) => {
                polled.moved.into_iter().for_each(|(stream, seq)| hub.know(stream, seq));
                snapshot = Some(polled.snapshot);
                let at_ms = started.elapsed().as_millis().max(1) as u64;
                repairs.polled_at_ms.store(at_ms, Ordering::Relaxed);
                if courier.health() == Health::Healthy { POLL } else { FAST_POLL }
            }
            Err(_) => FAST_POLL,
        };
        let _ = tokio::time::timeout(pause, repairs.poll_now.notified()).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
