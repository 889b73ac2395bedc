//! All feeds of a node, in shards of a lock each. Whatever brings updates (own commits, the courier, the poll, repairs)
//! comes through `ingest`; what is in order goes once to each worker with interest.
//!
//! The lock of a stream's shard is held while its runs are put into the inboxes, so that every worker sees a stream in
//! order. Nothing blocks under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use uuid::Uuid;

use super::feed::{Attach, Feed};
use super::inbox::{Inbox, Kept, Run, ToWorker};
use super::repair::Repairs;
use crate::courier::{Courier, SHARDS};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Update};

/// Locks over the feeds of a node.
const LOCKS: usize = 64;
/// Bytes that all feeds of a node may hold; above it they are forgotten as they are touched.
pub const RINGS_BYTES: usize = 256 << 20;

struct Entry {
    feed: Feed,
    /// Tells this feed from an earlier one of the same stream, whose runs may still lie in an inbox.
    incarnation: u64,
    /// One bit a worker.
    interest: u64,
    /// The workers where so many sockets are live in it that delivery takes longer than a commit.
    wide: u64,
}

/// The feeds of a node.
pub struct Hub {
    shards: Vec<Mutex<HashMap<StreamId, Entry>>>,
    inboxes: OnceLock<Vec<Arc<Inbox>>>,
    courier: Arc<dyn Courier>,
    repairs: Arc<Repairs>,
    ring_bytes: AtomicUsize,
    incarnations: AtomicU64,
}

impl Hub {
    pub fn new(courier: Arc<dyn Courier>, repairs: Arc<Repairs>) -> Arc<Self> {
        let shards = (0..LOCKS).map(|_| Mutex::new(HashMap::new())).collect();
        Arc::new(Self {
            shards,
            inboxes: OnceLock::new(),
            courier,
            repairs,
            ring_bytes: AtomicUsize::new(0),
            incarnations: AtomicU64::new(0),
        })
    }

    /// Told once, when the workers exist.
    pub fn set_inboxes(&self, inboxes: Vec<Arc<Inbox>>) {
        let _ = self.inboxes.set(inboxes);
    }

    /// The inbox of a worker.
    pub fn inbox(&self, worker: u16) -> Option<&Arc<Inbox>> {
        self.inboxes.get()?.get(usize::from(worker))
    }

    pub fn inboxes(&self) -> &[Arc<Inbox>] {
        self.inboxes.get().map_or(&[], Vec::as_slice)
    }

    /// Takes updates of any streams, in any order.
    pub fn ingest(&self, updates: &[Update]) {
        self.ingest_keeping(updates, &|_| None);
    }

    /// The same for what was committed here. Where a stream has a wide audience, `keep` is asked what to keep until most
    /// of it has the updates.
    pub fn ingest_keeping(&self, updates: &[Update], keep: &dyn Fn(StreamId) -> Option<Kept>) {
        let mut rest = updates;
        let mut ready = Vec::new();
        while let Some(first) = rest.first() {
            let stream = first.stream;
            let run = rest.iter().take_while(|update| update.stream == stream).count();
            let (same, later) = rest.split_at(run);
            rest = later;
            let mut shard = self.shard(stream);
            let Some(entry) = shard.get_mut(&stream) else { continue };
            let before = entry.feed.held_bytes();
            for update in same {
                entry.feed.take(update.clone(), &mut ready);
            }
            self.hand_over(stream, entry, &mut ready, keep);
            self.account(before, entry);
            if entry.feed.hole().is_some() {
                self.repairs.hole(stream);
            }
        }
    }

    /// The log holds `seq` of a stream; when it does not come by itself it is read.
    pub fn know(&self, stream: StreamId, seq: u64) {
        let mut shard = self.shard(stream);
        let Some(entry) = shard.get_mut(&stream) else { return };
        entry.feed.know(seq);
        if entry.feed.hole().is_some() {
            self.repairs.hole(stream);
        }
    }

    /// Makes a worker's session live in a stream, from `since` on. `known`: a head the caller has read from the database.
    /// The worker has interest from here on, also when the answer is `Behind`. The number is the feed's incarnation, which
    /// its runs carry.
    pub fn attach(&self, worker: u16, stream: StreamId, since: u64, known: u64) -> (Attach, u64) {
        let mut shard = self.shard(stream);
        let entry = shard.entry(stream).or_insert_with(|| {
            // Hints between the caller's read and now may have passed by: the head is looked up once more.
            self.repairs.fresh(stream);
            self.courier.subscribe(&[stream.shard(SHARDS)]);
            let incarnation = self.incarnations.fetch_add(1, Ordering::Relaxed) + 1;
            Entry { feed: Feed::new(known.max(since)), incarnation, interest: 0, wide: 0 }
        });
        entry.interest |= 1 << worker;
        entry.feed.know(known);
        let attach = entry.feed.attach(since);
        if entry.feed.hole().is_some() {
            self.repairs.hole(stream);
        }
        (attach, entry.incarnation)
    }

    /// A worker has no session left in a stream.
    pub fn release(&self, worker: u16, stream: StreamId) {
        let mut shard = self.shard(stream);
        let Some(entry) = shard.get_mut(&stream) else { return };
        entry.interest &= !(1 << worker);
        if entry.interest == 0 {
            self.ring_bytes.fetch_sub(entry.feed.held_bytes(), Ordering::Relaxed);
            shard.remove(&stream);
        }
    }

    /// A worker's audience of a stream became wide, or is no longer.
    pub fn set_wide(&self, worker: u16, stream: StreamId, wide: bool) {
        let mut shard = self.shard(stream);
        let Some(entry) = shard.get_mut(&stream) else { return };
        entry.wide = entry.wide & !(1 << worker) | u64::from(wide) << worker;
    }

    /// The position to read a stream's hole from and the highest known, where there is one.
    pub fn hole(&self, stream: StreamId) -> Option<(u64, u64)> {
        self.shard(stream).get(&stream).and_then(|entry| entry.feed.hole())
    }

    /// Goes on at `head`; sessions read what is between from the log at their own speed.
    pub fn jump(&self, stream: StreamId, head: u64) {
        let mut shard = self.shard(stream);
        let Some(entry) = shard.get_mut(&stream) else { return };
        let before = entry.feed.held_bytes();
        entry.feed.jump(head);
        self.account(before, entry);
        for inbox in interested(self.inboxes(), entry.interest) {
            inbox.push(ToWorker::Jump { stream, incarnation: entry.incarnation, head });
        }
    }

    /// Forgets every feed; sessions that are still here get nothing more.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            // Others add for shards that were cleared a moment ago: what goes is taken off, nothing is set.
            let freed = shard.values().map(|entry| entry.feed.held_bytes()).sum();
            shard.clear();
            self.ring_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// The log ends at `head`; a hole up to `known` was announced by mistake.
    pub fn correct(&self, stream: StreamId, known: u64, head: u64) {
        let mut shard = self.shard(stream);
        let Some(entry) = shard.get_mut(&stream) else { return };
        let before = entry.feed.held_bytes();
        entry.feed.correct(known, head);
        self.account(before, entry);
    }

    /// Every stream that has a feed here.
    pub fn streams(&self) -> Vec<StreamId> {
        self.shards.iter().flat_map(|shard| lock(shard).keys().copied().collect::<Vec<_>>()).collect()
    }

    /// The head of a stream's feed.
    pub fn head(&self, stream: StreamId) -> Option<u64> {
        self.shard(stream).get(&stream).map(|entry| entry.feed.head())
    }

    fn hand_over(
        &self,
        stream: StreamId,
        entry: &Entry,
        ready: &mut Vec<Update>,
        keep: &dyn Fn(StreamId) -> Option<Kept>,
    ) {
        if ready.is_empty() {
            return;
        }
        let kept = if entry.wide == 0 { None } else { keep(stream) };
        let updates: Arc<[Update]> = std::mem::take(ready).into();
        for inbox in interested(self.inboxes(), entry.interest) {
            let (updates, kept) = (updates.clone(), kept.clone());
            inbox.push(ToWorker::Run(Run { stream, incarnation: entry.incarnation, updates, kept }));
        }
    }

    fn account(&self, before: usize, entry: &mut Entry) {
        let after = entry.feed.held_bytes();
        let total = if after >= before {
            self.ring_bytes.fetch_add(after - before, Ordering::Relaxed) + (after - before)
        } else {
            self.ring_bytes.fetch_sub(before - after, Ordering::Relaxed) - (before - after)
        };
        if total > RINGS_BYTES {
            let freed = entry.feed.forget();
            self.ring_bytes.fetch_sub(freed, Ordering::Relaxed);
            metrics().dropped.with_label_values(&["ring"]).inc();
        }
    }

    fn shard(&self, stream: StreamId) -> MutexGuard<'_, HashMap<StreamId, Entry>> {
        lock(&self.shards[lock_of(stream.uuid())])
    }
}

fn interested(inboxes: &[Arc<Inbox>], interest: u64) -> impl Iterator<Item = &Arc<Inbox>> {
    inboxes.iter().enumerate().filter(move |(worker, _)| interest & (1 << worker) != 0).map(|(_, inbox)| inbox)
}

fn lock_of(id: Uuid) -> usize {
    // The last byte of a UUIDv7 is random.
    usize::from(id.as_bytes()[15]) % LOCKS
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Hub, Inbox, Kept, ToWorker};
    use crate::courier::in_process::InProcess;
    use crate::realtime::repair::Repairs;
    use crate::updates::{StreamId, Touch, Update, UpdateKind};
    use bytes::Bytes;
    use std::cell::RefCell;
    use std::sync::{Arc, Weak};
    use uuid::Uuid;

    #[test]
    fn only_a_wide_audience_is_kept_for_until_its_run_is_gone() {
        let hub = Hub::new(Arc::new(InProcess::new(Arc::new(|_| {}))), Arc::new(Repairs::default()));
        let inbox = Arc::new(Inbox::new(Box::new(|| {})));
        hub.set_inboxes(vec![inbox.clone()]);
        let stream = StreamId::Thread(Uuid::now_v7());
        hub.attach(0, stream, 0, 0);
        let kept: RefCell<Weak<u64>> = RefCell::default();
        let send = |seq| {
            let frame = Bytes::from_static(b"x");
            let update = Update { stream, seq, kind: UpdateKind::MessageCreated, touch: Touch::None, frame };
            hub.ingest_keeping(&[update], &|asked| {
                assert_eq!(asked, stream);
                let value = Arc::new(seq);
                *kept.borrow_mut() = Arc::downgrade(&value);
                Some(value as Kept)
            });
        };
        let mut messages = Vec::new();
        send(1);
        assert!(kept.borrow().upgrade().is_none(), "narrow: nothing is asked for");
        hub.set_wide(0, stream, true);
        send(2);
        inbox.drain(&mut messages);
        assert!(
            matches!(&messages[..], [ToWorker::Run(narrow), ToWorker::Run(wide)] if narrow.kept.is_none() && wide.kept.is_some())
        );
        assert_eq!(kept.borrow().upgrade().as_deref(), Some(&2));
        messages.clear();
        assert!(kept.borrow().upgrade().is_none(), "the run is gone");
        hub.set_wide(0, stream, false);
        send(3);
        assert!(kept.borrow().upgrade().is_none());
    }
}
