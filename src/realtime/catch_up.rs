//! Pages of the log for sessions that are behind: asks for the same range are one read, several asks are one statement,
//! and only a few statements run at once.
//!
//! Where a statement fails while the log answers otherwise, one of its streams is too much: each is then read alone, by a
//! reader of its own and less at a time, so that the others go on. Who asks for one that cannot be read at all is told
//! `internal`, and goes on from a snapshot.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::LogReader;
use super::hub::Hub;
use super::inbox::{SessionAddr, ToWorker};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Update};

/// Statements at once in a node; one more for streams that are read alone.
pub const READERS: usize = 4;
/// Updates in one page. In bytes the log bounds it.
pub const PAGE_UPDATES: u32 = 250;
/// Updates in a page of a stream that is read alone, one read after the other until one succeeds.
const ALONE_UPDATES: [u32; 3] = [64, 8, 1];
/// Asks in one statement.
const ASKS: usize = 32;
/// For so long a stream is read alone after it failed, and so many are remembered.
const TROUBLED: Duration = Duration::from_secs(30);
const TROUBLED_MAX: usize = 1_000;

type Key = (StreamId, u64);
type Asks = Vec<(Key, Vec<SessionAddr>)>;
type Page = Result<Arc<[Update]>, Refusal>;

#[derive(Default)]
struct Queue {
    waiters: HashMap<Key, Vec<SessionAddr>>,
    order: VecDeque<Key>,
    /// Keys of streams that are read alone.
    alone: VecDeque<Key>,
    /// Until when a stream is read alone.
    troubled: HashMap<StreamId, Instant>,
}

/// The node's reader of pages. Asks are bounded by one a session.
#[derive(Default)]
pub struct PageReader {
    queue: Mutex<Queue>,
    asked: Notify,
    asked_alone: Notify,
}

impl PageReader {
    /// Starts the readers on the current runtime.
    pub fn start(self: &Arc<Self>, hub: &Arc<Hub>, log: &Arc<dyn LogReader>) {
        for _ in 0..READERS {
            tokio::spawn(read(self.clone(), hub.clone(), log.clone()));
        }
        tokio::spawn(read_alone(self.clone(), hub.clone(), log.clone()));
    }

    /// Asks for the page after `since`; it comes to the session's worker.
    pub fn ask(&self, stream: StreamId, since: u64, to: SessionAddr) {
        let mut guard = self.lock();
        let queue = &mut *guard;
        let waiters = queue.waiters.entry((stream, since)).or_default();
        let is_new = waiters.is_empty();
        waiters.push(to);
        if !is_new {
            return;
        }
        let is_troubled = queue.troubled.get(&stream).is_some_and(|until| Instant::now() < *until);
        let (line, wake) = match is_troubled {
            true => (&mut queue.alone, &self.asked_alone),
            false => (&mut queue.order, &self.asked),
        };
        line.push_back((stream, since));
        wake.notify_one();
    }

    fn take(&self) -> Asks {
        let mut guard = self.lock();
        let queue = &mut *guard;
        let count = queue.order.len().min(ASKS);
        let taken = queue.order.drain(..count).collect::<Vec<_>>();
        let more = !queue.order.is_empty();
        let asks = taken.into_iter().map(|key| (key, queue.waiters.remove(&key).unwrap_or_default())).collect();
        drop(guard);
        if more {
            self.asked.notify_one();
        }
        asks
    }

    fn take_alone(&self) -> Option<(Key, Vec<SessionAddr>)> {
        let mut queue = self.lock();
        let key = queue.alone.pop_front()?;
        let waiters = queue.waiters.remove(&key).unwrap_or_default();
        Some((key, waiters))
    }

    /// These are read alone from now on.
    fn set_apart(&self, asks: Asks) {
        let until = Instant::now() + TROUBLED;
        let mut guard = self.lock();
        let queue = &mut *guard;
        if queue.troubled.len() >= TROUBLED_MAX {
            queue.troubled.clear();
        }
        for (key, waiters) in asks {
            queue.troubled.insert(key.0, until);
            let waiting = queue.waiters.entry(key).or_default();
            // One that was asked for again meanwhile stands in a line already.
            if waiting.is_empty() {
                queue.alone.push_back(key);
            }
            waiting.extend(waiters);
        }
        self.asked_alone.notify_one();
    }

    fn is_well(&self, stream: StreamId) {
        self.lock().troubled.remove(&stream);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(reader: Arc<PageReader>, hub: Arc<Hub>, log: Arc<dyn LogReader>) {
    loop {
        let asks = reader.take();
        if asks.is_empty() {
            reader.asked.notified().await;
            continue;
        }
        let keys: Vec<Key> = asks.iter().map(|(key, _)| *key).collect();
        match log.pages(&keys, PAGE_UPDATES).await {
            Ok(pages) => {
                for ((key, waiters), page) in asks.into_iter().zip(pages) {
                    answer(&hub, key, waiters, Ok(page.into()));
                }
            }
            Err(_) if log.heads(&[keys[0].0]).await.is_ok() => reader.set_apart(asks),
            Err(refusal) => {
                asks.into_iter().for_each(|(key, waiters)| answer(&hub, key, waiters, Err(refusal.clone())));
            }
        }
    }
}

async fn read_alone(reader: Arc<PageReader>, hub: Arc<Hub>, log: Arc<dyn LogReader>) {
    loop {
        let Some((key, waiters)) = reader.take_alone() else {
            reader.asked_alone.notified().await;
            continue;
        };
        let page = read_one(log.as_ref(), key).await;
        if page.is_ok() {
            reader.is_well(key.0);
        }
        answer(&hub, key, waiters, page);
    }
}

/// Less and less of one stream, until something can be read.
async fn read_one(log: &dyn LogReader, key: Key) -> Page {
    let mut refusal = Refusal::unavailable();
    for limit in ALONE_UPDATES {
        match log.pages(&[key], limit).await {
            Ok(pages) => return Ok(pages.into_iter().next().unwrap_or_default().into()),
            Err(error) => refusal = error,
        }
        if log.heads(&[key.0]).await.is_err() {
            // Nothing can be read: no trouble of this stream.
            return Err(Refusal::unavailable());
        }
    }
    tracing::error!(since = key.1, code = ?refusal.code, "a stream cannot be read from the log; its sessions get snapshots");
    Err(Refusal::new(ErrorCode::Internal, "the log of this stream cannot be read"))
}

fn answer(hub: &Hub, (stream, since): Key, waiters: Vec<SessionAddr>, result: Page) {
    metrics().catch_up_pages.inc();
    if let Ok(updates) = &result {
        metrics().catch_up_updates.inc_by(updates.len() as u64);
    }
    for to in waiters {
        if let Some(inbox) = hub.inbox(to.worker) {
            inbox.push(ToWorker::Page { to, stream, since, result: result.clone() });
        }
    }
}
