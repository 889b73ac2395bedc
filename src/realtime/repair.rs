//! What keeps feeds whole when hints are lost, as notes: which feeds have holes, which are fresh, when to poll. Who works
//! on them: `fill` and `poll`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::Hub;
use super::{LogReader, fill, poll};
use crate::courier::Courier;
use crate::saboteur::{self, Bug};
use crate::telemetry::metrics;
use crate::updates::StreamId;

/// How long a hole may fill by itself.
const PATIENCE: Duration = Duration::from_millis(50);
/// Heads looked up in one read.
pub(super) const HEADS: usize = 2000;
/// A hole of this age is late, and so many late ones of streams that have trouble of their own are no longer theirs alone.
const LATE: Duration = Duration::from_secs(5);
const LATE_ALONE: usize = 3;

/// A hole that was noted.
struct Hole {
    noted: Instant,
    due: Instant,
    /// Reads of it alone that failed; `None`: it is read with others.
    alone: Option<u32>,
    /// Pages of it that were read.
    pages: u32,
    is_being_read: bool,
}

/// Work for the repairer, noted by whoever meets it.
#[derive(Default)]
pub struct Repairs {
    holes: Mutex<BTreeMap<StreamId, Hole>>,
    fresh: Mutex<BTreeSet<StreamId>>,
    pub(super) wake: Notify,
    pub(super) wake_alone: Notify,
    pub(super) wake_fresh: Notify,
    poll_now: Notify,
    /// Milliseconds since `started` of the last successful poll; 0: none yet.
    polled_at_ms: AtomicU64,
}

impl Repairs {
    /// A feed has a hole: it is read when it is still there after a moment.
    pub fn hole(&self, stream: StreamId) {
        let mut holes = lock(&self.holes);
        let now = Instant::now();
        let mut is_new = false;
        holes.entry(stream).or_insert_with(|| {
            is_new = true;
            Hole { noted: now, due: now + PATIENCE, alone: None, pages: 0, is_being_read: false }
        });
        if is_new {
            metrics().feed_holes.inc();
            self.wake.notify_one();
        }
    }

    /// A feed was just made: its head is looked up once more.
    pub fn fresh(&self, stream: StreamId) {
        let mut fresh = lock(&self.fresh);
        if fresh.is_empty() {
            self.wake_fresh.notify_one();
        }
        fresh.insert(stream);
    }

    /// Hints may have been lost: poll at once.
    pub fn poll_now(&self) {
        self.poll_now.notify_one();
    }

    pub(super) async fn asked_to_poll(&self) {
        self.poll_now.notified().await;
    }

    pub(super) fn note_poll(&self, started: Instant) {
        self.polled_at_ms.store(started.elapsed().as_millis().max(1) as u64, Ordering::Relaxed);
    }

    /// When the last successful poll was, on the clock of `started`.
    pub fn last_poll(&self, started: Instant) -> Option<Instant> {
        match self.polled_at_ms.load(Ordering::Relaxed) {
            0 => None,
            at_ms => Some(started + Duration::from_millis(at_ms)),
        }
    }

    /// Whether this node is late with what is committed. The trouble of single streams is not the node's.
    pub fn is_late(&self) -> bool {
        let holes = lock(&self.holes);
        let mut alone = 0;
        let late = holes.values().filter(|hole| hole.noted.elapsed() > LATE);
        late.map(|hole| hole.alone).any(|tries| {
            alone += usize::from(tries.is_some());
            tries.is_none() || alone > LATE_ALONE
        })
    }

    /// Holes to read now, at most `most`, those that have waited longest first, and how long until the next is due. They stay
    /// noted until [`Self::again`] or [`Self::closed`].
    pub(super) fn take(&self, is_alone: bool, most: usize) -> (Vec<(StreamId, u32)>, Option<Duration>) {
        let now = Instant::now();
        let mut holes = lock(&self.holes);
        let waiting = holes.iter().filter(|(_, hole)| hole.alone.is_some() == is_alone && !hole.is_being_read);
        let (mut due, later): (Vec<_>, Vec<_>) =
            waiting.map(|(stream, hole)| (hole.due, *stream)).partition(|(due, _)| *due <= now);
        due.sort_unstable();
        let next = due.get(most).or(later.iter().min()).map(|(due, _)| due.saturating_duration_since(now));
        let mut taken = Vec::with_capacity(due.len().min(most));
        for (_, stream) in due.into_iter().take(most) {
            if let Some(hole) = holes.get_mut(&stream) {
                hole.is_being_read = true;
                taken.push((stream, hole.alone.unwrap_or_default()));
            }
        }
        (taken, next)
    }

    /// A read of a hole ended and it is to be read again after a while; `alone`: by itself, after so many failures.
    pub(super) fn again(&self, stream: StreamId, pause: Duration, alone: Option<u32>) {
        if let Some(hole) = lock(&self.holes).get_mut(&stream) {
            hole.due = Instant::now() + pause;
            hole.alone = alone;
            hole.is_being_read = false;
        }
        let wake = if alone.is_some() { &self.wake_alone } else { &self.wake };
        wake.notify_one();
    }

    /// A page of a hole came and did not close it; how many that were. Those of a stream that is read alone do not count:
    /// they are small on purpose.
    pub(super) fn read_on(&self, stream: StreamId) -> u32 {
        lock(&self.holes).get_mut(&stream).filter(|hole| hole.alone.is_none()).map_or(0, |hole| {
            hole.pages += 1;
            hole.pages
        })
    }

    /// A hole is closed.
    pub(super) fn closed(&self, hub: &Hub, stream: StreamId) {
        if lock(&self.holes).remove(&stream).is_some() {
            metrics().feed_holes.dec();
        }
        // One that was met while this was being read was not noted.
        if hub.hole(stream).is_some() {
            self.hole(stream);
        }
    }

    pub(super) fn take_fresh(&self) -> Vec<StreamId> {
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
    fill::spawn(hub.clone(), repairs.clone(), log.clone());
    // Planted: what a lost connection kept from this node is never looked for.
    if !saboteur::plants(Bug::IgnoreDisconnect) {
        tokio::spawn(poll::run(hub, repairs, log, courier, started));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
