//! Pages of the log for sessions that are behind: asks for the same range are one read, several asks are one statement,
//! and only a few statements run at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::LogReader;
use super::hub::Hub;
use super::inbox::{SessionAddr, ToWorker};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Update};

/// Statements at once in a node.
pub const READERS: usize = 4;
/// Updates in one page.
pub const PAGE_UPDATES: u32 = 250;
/// Asks in one statement.
const ASKS: usize = 32;

#[derive(Default)]
struct Queue {
    waiters: HashMap<(StreamId, u64), Vec<SessionAddr>>,
    order: VecDeque<(StreamId, u64)>,
}

/// The node's reader of pages. Asks are bounded by one a session.
#[derive(Default)]
pub struct PageReader {
    queue: Mutex<Queue>,
    asked: Notify,
}

impl PageReader {
    /// Starts the readers on the current runtime.
    pub fn start(self: &Arc<Self>, hub: &Arc<Hub>, log: &Arc<dyn LogReader>) {
        for _ in 0..READERS {
            tokio::spawn(read(self.clone(), hub.clone(), log.clone()));
        }
    }

    /// Asks for the page after `since`; it comes to the session's worker.
    pub fn ask(&self, stream: StreamId, since: u64, to: SessionAddr) {
        let mut guard = self.lock();
        let queue = &mut *guard;
        let waiters = queue.waiters.entry((stream, since)).or_default();
        if waiters.is_empty() {
            queue.order.push_back((stream, since));
        }
        waiters.push(to);
        drop(guard);
        self.asked.notify_one();
    }

    fn take(&self) -> Vec<((StreamId, u64), Vec<SessionAddr>)> {
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
        let keys: Vec<(StreamId, u64)> = asks.iter().map(|(key, _)| *key).collect();
        let result = log.pages(&keys, PAGE_UPDATES).await;
        let mut pages: Vec<Result<Arc<[Update]>, _>> = match result {
            Ok(pages) => pages.into_iter().map(|page| Ok(page.into())).collect(),
            Err(refusal) => keys.iter().map(|_| Err(refusal.clone())).collect(),
        };
        metrics().catch_up_pages.inc_by(keys.len() as u64);
        for (((stream, since), waiters), result) in asks.into_iter().zip(pages.drain(..)) {
            if let Ok(updates) = &result {
                metrics().catch_up_updates.inc_by(updates.len() as u64);
            }
            for to in waiters {
                if let Some(inbox) = hub.inbox(to.worker) {
                    inbox.push(ToWorker::Page { to, stream, since, result: result.clone() });
                }
            }
        }
    }
}
