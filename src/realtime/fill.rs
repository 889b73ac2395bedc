//! Fills holes of feeds from the log, and looks up the heads of fresh feeds.
//!
//! Holes are read many in a statement. Where that fails while the log answers otherwise, one of them is too much: then each
//! is read alone, on a lane of its own and less at a time after each failure, so that the others go on. One that cannot be
//! read at all is jumped over: sessions page for themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::LogReader;
use super::hub::Hub;
use super::repair::{HEADS, Repairs};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Update};

/// A hole wider than this is jumped over.
const HOLE_UPDATES: u32 = 500;
/// So are those of which so many pages were read: what waits for a socket is one page, and the ring holds one, so that
/// sessions would read the rest from the log all the same.
const HOLE_PAGES: u32 = 4;
/// Streams in one read, half after each failure.
const STREAMS: usize = 64;
/// Updates of one read, all streams together; a stream gets its share, and `SHARE_MIN` at least. In bytes the log bounds it.
const READ_UPDATES: usize = 4_000;
const SHARE_MIN: u32 = 16;
/// How long fresh feeds gather for one look-up of their heads while some were just looked up.
const GATHER: Duration = Duration::from_millis(5);
/// Pause after a failed read.
const RETRY: Duration = Duration::from_millis(200);
/// Reads of one stream alone that may fail, each of an eighth of the updates of the one before.
const TRIES: u32 = 4;

/// Starts the three lanes: heads, holes, holes that have trouble of their own.
pub(super) fn spawn(hub: Arc<Hub>, repairs: Arc<Repairs>, log: Arc<dyn LogReader>) {
    let lanes = Arc::new(Fill { hub, repairs, log });
    tokio::spawn(lanes.clone().look_up());
    tokio::spawn(lanes.clone().together());
    tokio::spawn(lanes.alone());
}

struct Fill {
    hub: Arc<Hub>,
    repairs: Arc<Repairs>,
    log: Arc<dyn LogReader>,
}

impl Fill {
    async fn look_up(self: Arc<Self>) {
        loop {
            let fresh = self.repairs.take_fresh();
            if fresh.is_empty() {
                self.repairs.wake_fresh.notified().await;
                continue;
            }
            debug_assert!(fresh.len() <= HEADS);
            match self.log.heads(&fresh).await {
                Ok(heads) => {
                    heads.into_iter().for_each(|(stream, head)| self.hub.know(stream, head));
                    tokio::time::sleep(GATHER).await;
                }
                Err(_) => {
                    fresh.into_iter().for_each(|stream| self.repairs.fresh(stream));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn together(self: Arc<Self>) {
        let mut streams = STREAMS;
        loop {
            let (due, next) = self.repairs.take(false, streams);
            if due.is_empty() {
                wait(next, &self.repairs.wake).await;
                continue;
            }
            let asks: Vec<(StreamId, u64)> =
                due.into_iter().filter_map(|(stream, _)| self.position_of(stream)).collect();
            if asks.is_empty() {
                continue;
            }
            metrics().feed_repairs.inc_by(asks.len() as u64);
            let share = ((READ_UPDATES / asks.len()) as u32).clamp(SHARE_MIN, HOLE_UPDATES);
            match self.log.pages(&asks, share).await {
                Ok(pages) => {
                    streams = (streams * 2).min(STREAMS);
                    for ((stream, since), page) in asks.into_iter().zip(pages) {
                        self.take_in(stream, since, &page).await;
                    }
                }
                Err(_) => {
                    streams = (streams / 2).max(1);
                    // Where the log answers at all, the trouble is with one of these.
                    let answers = self.log.heads(&[asks[0].0]).await.is_ok();
                    let (pause, alone) = if answers { (Duration::ZERO, Some(1)) } else { (RETRY, None) };
                    asks.iter().for_each(|(stream, _)| self.repairs.again(*stream, pause, alone));
                    if !answers {
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    async fn alone(self: Arc<Self>) {
        loop {
            let (due, next) = self.repairs.take(true, 1);
            let Some((stream, tries)) = due.into_iter().next() else {
                wait(next, &self.repairs.wake_alone).await;
                continue;
            };
            let Some((stream, since)) = self.position_of(stream) else { continue };
            metrics().feed_repairs.inc();
            let limit = (HOLE_UPDATES >> (3 * tries)).max(1);
            if let Ok(pages) = self.log.pages(&[(stream, since)], limit).await {
                self.take_in(stream, since, pages.first().map_or(&[], Vec::as_slice)).await;
                continue;
            }
            match self.log.heads(&[stream]).await {
                // Nothing can be read: no trouble of this stream.
                Err(_) => {
                    self.repairs.again(stream, RETRY, Some(tries));
                    tokio::time::sleep(RETRY).await;
                }
                Ok(_) if tries < TRIES => self.repairs.again(stream, RETRY, Some(tries + 1)),
                Ok(heads) => {
                    let head = heads.first().map_or(since, |(_, head)| *head);
                    tracing::error!(
                        since,
                        head,
                        "a stream cannot be read from the log; its sessions page for themselves"
                    );
                    self.jump(stream, head);
                }
            }
        }
    }

    /// Where a noted hole is to be read from; none where it is closed, or too wide to be filled.
    fn position_of(&self, stream: StreamId) -> Option<(StreamId, u64)> {
        match self.hub.hole(stream) {
            // The head known from the database is committed, and so is everything up to it.
            Some((head, known)) if known - head > u64::from(HOLE_UPDATES) => self.jump(stream, known),
            Some((head, _)) => return Some((stream, head)),
            None => self.repairs.closed(&self.hub, stream),
        }
        None
    }

    fn jump(&self, stream: StreamId, head: u64) {
        metrics().feed_jumps.inc();
        self.hub.jump(stream, head);
        self.repairs.closed(&self.hub, stream);
    }

    /// A page of a hole came; it may be a part.
    async fn take_in(&self, stream: StreamId, since: u64, page: &[Update]) {
        self.hub.ingest(page);
        match self.hub.hole(stream) {
            None => self.repairs.closed(&self.hub, stream),
            Some((_, known)) if !page.is_empty() && self.repairs.read_on(stream) >= HOLE_PAGES => {
                self.jump(stream, known)
            }
            Some(_) if !page.is_empty() => self.repairs.again(stream, Duration::ZERO, None),
            // Announced, and not in the log.
            Some((head, known)) => {
                if head == since
                    && let Ok(heads) = self.log.heads(&[stream]).await
                {
                    self.hub.correct(stream, known, heads.first().map_or(0, |(_, head)| *head));
                }
                match self.hub.hole(stream) {
                    None => self.repairs.closed(&self.hub, stream),
                    Some(_) => self.repairs.again(stream, RETRY, None),
                }
            }
        }
    }
}

async fn wait(next: Option<Duration>, wake: &Notify) {
    let most = next.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(1));
    let _ = tokio::time::timeout(most, wake.notified()).await;
}
