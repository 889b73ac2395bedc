//! One node's engine put together: hub, workers, page reader, registry; and its doors for the rest of the process.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::catch_up::PageReader;
use super::hub::Hub;
use super::inbox::{NewSocket, SessionAddr, ToWorker};
use super::registry::Registry;
use super::repair::{self, Repairs};
use super::worker::Worker;
use super::{Backend, EngineOptions, LogReader};
use crate::courier::{Courier, CourierEvent};
use crate::limits::SessionBook;

use crate::protocol::time::Timestamp;
use crate::protocol::{CloseCode, reply};
use crate::telemetry::metrics;
use crate::updates::StreamId;

/// What every worker and task of the engine shares.
pub struct Shared {
    pub hub: Arc<Hub>,
    pub backend: Arc<dyn Backend>,
    pub registry: Arc<Registry>,
    pub pages: Arc<PageReader>,
    pub options: EngineOptions,
    pub runtime: tokio::runtime::Handle,
    epoch: Mutex<String>,
}

impl Shared {
    /// The present epoch.
    pub fn epoch(&self) -> String {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn to_worker(&self, to: SessionAddr, message: ToWorker) {
        if let Some(inbox) = self.hub.inbox(to.worker) {
            inbox.push(message);
        }
    }

    /// Asks the backend for a snapshot; it comes to the session's worker.
    pub(super) fn ask_snapshot(self: &Arc<Self>, profile_id: Uuid, stream: StreamId, to: SessionAddr) {
        let shared = self.clone();
        self.runtime.spawn(async move {
            let result = shared.backend.snapshot(profile_id, stream).await;
            shared.to_worker(to, ToWorker::Snapshot { to, stream, result });
        });
    }

    pub(super) fn hello(&self) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Hello<'a> {
            protocol: u8,
            node: &'a str,
            heartbeat_ms: u64,
            auth_timeout_ms: u64,
            caps: [&'static str; 0],
            limits: Limits,
            server_time: Timestamp,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Limits {
            frame_bytes: usize,
            content_chars: usize,
            #[serde(rename = "sendsPer10s")]
            sends_per_10s: u32,
            sessions: usize,
            spread_ms: u32,
        }
        let options = &self.options;
        let limits = Limits {
            frame_bytes: options.frame_bytes,
            content_chars: crate::protocol::types::CONTENT_CHARS,
            sends_per_10s: options.sends_per_10s,
            sessions: options.sessions_per_profile,
            spread_ms: SPREAD_MS,
        };
        reply::notice(
            "hello",
            &Hello {
                protocol: 1,
                node: &options.node,
                heartbeat_ms: options.heartbeat_ms,
                auth_timeout_ms: options.auth_timeout_ms,
                caps: [],
                limits,
                server_time: Timestamp::now(),
            },
        )
    }
}

impl SessionBook for Node {
    fn take_changed(&self, most: usize) -> Vec<(Uuid, Vec<u64>)> {
        self.shared.registry.take_changed(most)
    }

    fn put_back(&self, profiles: &[Uuid]) {
        self.shared.registry.put_back(profiles);
    }

    fn change_all(&self) {
        self.shared.registry.change_all();
    }

    fn replace(&self, profile_id: Uuid, place: u64) {
        if let Some(to) = self.shared.registry.at(profile_id, place) {
            self.shared.to_worker(to, ToWorker::Close { to, code: CloseCode::Replaced, retry_after_ms: None });
        }
    }
}

/// Clients spread their first reconnect over so long.
pub const SPREAD_MS: u32 = 3_000;

/// The running engine.
pub struct Node {
    pub shared: Arc<Shared>,
    repairs: Arc<Repairs>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    next_worker: std::sync::atomic::AtomicUsize,
    started: Instant,
}

impl Node {
    /// The hub, to be made before the backend that feeds it.
    pub fn hub(courier: &Arc<dyn Courier>) -> (Arc<Hub>, Arc<Repairs>) {
        let repairs = Arc::new(Repairs::default());
        (Hub::new(courier.clone(), repairs.clone()), repairs)
    }

    /// Starts workers, readers, repairs and the poll on the current runtime.
    pub fn start(
        options: EngineOptions,
        epoch: String,
        feeds: (Arc<Hub>, Arc<Repairs>),
        courier: Arc<dyn Courier>,
        backend: Arc<dyn Backend>,
        log: Arc<dyn LogReader>,
    ) -> io::Result<Arc<Self>> {
        let (node, workers) = Self::assemble(options, epoch, feeds, courier, backend, log)?;
        for (index, worker) in workers.into_iter().enumerate() {
            let thread = std::thread::Builder::new().name(format!("haus-worker-{index}")).spawn(|| worker.run())?;
            node.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(node)
    }

    /// The same without threads for the workers.
    pub(super) fn assemble(
        options: EngineOptions,
        epoch: String,
        (hub, repairs): (Arc<Hub>, Arc<Repairs>),
        courier: Arc<dyn Courier>,
        backend: Arc<dyn Backend>,
        log: Arc<dyn LogReader>,
    ) -> io::Result<(Arc<Self>, Vec<Worker>)> {
        let started = Instant::now();
        let pages = Arc::new(PageReader::default());
        pages.start(&hub, &log);
        let shared = Arc::new(Shared {
            hub: hub.clone(),
            backend,
            registry: Arc::new(Registry::default()),
            pages,
            options,
            runtime: tokio::runtime::Handle::current(),
            epoch: Mutex::new(epoch),
        });
        let mut inboxes = Vec::new();
        let mut workers = Vec::new();
        for index in 0..shared.options.workers.clamp(1, 64) {
            let (worker, inbox) = Worker::new(index as u16, shared.clone())?;
            inboxes.push(inbox);
            workers.push(worker);
        }
        hub.set_inboxes(inboxes);
        repair::spawn(hub, repairs.clone(), log, courier.clone(), started);
        let node = Self { shared, repairs, threads: Mutex::default(), next_worker: 0.into(), started };
        Ok((Arc::new(node), workers))
    }

    /// Gives an upgraded socket to a worker, dealt round.
    pub fn accept(&self, socket: NewSocket) {
        let inboxes = self.shared.hub.inboxes();
        let next = self.next_worker.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some(inbox) = inboxes.get(next % inboxes.len().max(1)) {
            inbox.push(ToWorker::Socket(Box::new(socket)));
        }
    }

    /// Something from the courier.
    pub fn hear(hub: &Hub, repairs: &Repairs, event: CourierEvent) {
        match event {
            CourierEvent::Updates(updates) => hub.ingest(&updates),
            CourierEvent::Subscribed(_) | CourierEvent::Gap => repairs.poll_now(),
        }
    }

    /// Closes the sockets of a profile, or of one signed-in session of it (4403).
    pub fn revoke(&self, profile_id: Uuid, session_id: Option<Uuid>) {
        for to in self.shared.registry.of(profile_id, session_id) {
            self.shared.to_worker(to, ToWorker::Close { to, code: CloseCode::Revoked, retry_after_ms: None });
        }
    }

    /// The epoch as the database has it. Where it is another one, committed history was lost: every feed and socket starts
    /// anew (4010).
    pub fn keep_epoch(&self, epoch: &str) {
        {
            let mut held = self.shared.epoch.lock().unwrap_or_else(PoisonError::into_inner);
            if *held == epoch {
                return;
            }
            epoch.clone_into(&mut held);
        }
        tracing::warn!(epoch, "the epoch changed: all sockets start anew");
        self.shared.hub.clear();
        for inbox in self.shared.hub.inboxes() {
            inbox.push(ToWorker::CloseAll { code: CloseCode::EpochChanged, spread_ms: SPREAD_MS });
        }
    }

    /// Since when the log was last read through the poll.
    pub fn poll_age(&self) -> Option<Duration> {
        self.repairs.last_poll(self.started).map(|at| at.elapsed())
    }

    /// Whether holes of its feeds have been waiting for the log for too long.
    pub fn is_late(&self) -> bool {
        self.repairs.is_late()
    }

    /// Closes every socket with `code` and ends the workers after the close frames had a moment to leave.
    pub async fn stop(&self, code: CloseCode) {
        for inbox in self.shared.hub.inboxes() {
            inbox.push(ToWorker::CloseAll { code, spread_ms: SPREAD_MS });
        }
        let deadline = Instant::now() + Duration::from_millis(super::worker::LINGER_MS);
        while metrics().sockets.get() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for inbox in self.shared.hub.inboxes() {
            inbox.stop();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
    }
}

#[cfg(test)]
mod tests;
