//! The node's send batcher: group commit without a delay. A batch is what arrived while the last one was being
//! committed; no thread is in two batches at once, so the order of a session holds.
//!
//! The queue is bounded in sends and bytes: beyond it a send is `unavailable` at once. A send that finds no commit
//! within `SEND_DEADLINE` is answered `unavailable`; it may still be committed, which its nonce makes harmless.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use super::send::{Outcome, SendRequest, append};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::saboteur::{self, Bug, LATE_COMMIT_MS};
use crate::store::is_unavailable;
use crate::telemetry::metrics;
use crate::updates::Update;

/// Sends waiting in one node; more are refused `unavailable`.
pub const QUEUE_SENDS: usize = 20_000;
/// Bytes of content waiting in one node; more are refused `unavailable`.
pub const QUEUE_BYTES: usize = 64 << 20;
/// Most sends in one database call.
pub const BATCH_SENDS: usize = 128;
/// Most bytes of content in one database call.
pub const BATCH_BYTES: usize = 1 << 20;
/// Calls in flight at once, each on a connection of its own.
pub const LANES: usize = 2;
/// From arrival to answer; protocol: `unavailable` within 2 s.
pub const SEND_DEADLINE: Duration = Duration::from_millis(1800);

/// Where committed updates and answers go. `R` says whom an answer is for and is never looked into.
pub trait CommitSink<R>: Send + Sync + 'static {
    /// Called once a batch, after its commit, updates in commit order. Must not block.
    fn committed(&self, updates: Vec<Update>, answers: Vec<(R, Outcome)>);
}

struct Item<R> {
    request: SendRequest,
    reply: R,
    arrived: Instant,
}

/// Sends of one thread, in order of arrival.
struct Lineup<R> {
    waiting: VecDeque<Item<R>>,
    in_flight: bool,
}

struct Queue<R> {
    threads: HashMap<Uuid, Lineup<R>>,
    /// Threads with waiting sends and none in flight.
    ready: VecDeque<Uuid>,
    sends: usize,
    bytes: usize,
}

/// Gathers sends and commits them in batches.
pub struct Batcher<R> {
    queue: Mutex<Queue<R>>,
    arrived: Notify,
    pool: PgPool,
    sink: Arc<dyn CommitSink<R>>,
}

impl<R: Send + 'static> Batcher<R> {
    /// Starts the lanes on the current runtime.
    pub fn start(pool: PgPool, sink: Arc<dyn CommitSink<R>>) -> Arc<Self> {
        let queue = Queue { threads: HashMap::new(), ready: VecDeque::new(), sends: 0, bytes: 0 };
        let batcher = Arc::new(Self { queue: Mutex::new(queue), arrived: Notify::new(), pool, sink });
        for _ in 0..LANES {
            tokio::spawn(Self::lane(batcher.clone()));
        }
        tokio::spawn(Self::expire(batcher.clone()));
        batcher
    }

    /// Queues a send; its answer comes through the sink. Never blocks.
    pub fn submit(&self, request: SendRequest, reply: R) {
        let bytes = request_bytes(&request);
        let mut queue = self.lock();
        if queue.sends >= QUEUE_SENDS || queue.bytes + bytes > QUEUE_BYTES {
            drop(queue);
            metrics().dropped.with_label_values(&["send_queue"]).inc();
            self.sink.committed(Vec::new(), vec![(reply, Err(Refusal::unavailable()))]);
            return;
        }
        queue.sends += 1;
        queue.bytes += bytes;
        let thread_id = request.thread_id;
        let item = Item { request, reply, arrived: Instant::now() };
        let lineup =
            queue.threads.entry(thread_id).or_insert_with(|| Lineup { waiting: VecDeque::new(), in_flight: false });
        let was_idle = lineup.waiting.is_empty() && !lineup.in_flight;
        lineup.waiting.push_back(item);
        if was_idle {
            queue.ready.push_back(thread_id);
        }
        drop(queue);
        self.arrived.notify_one();
    }

    /// Answers a send that never came to the queue.
    pub fn answer(&self, reply: R, outcome: Outcome) {
        self.sink.committed(Vec::new(), vec![(reply, outcome)]);
    }

    /// Sends waiting for a batch.
    pub fn waiting(&self) -> usize {
        self.lock().sends
    }

    async fn lane(self: Arc<Self>) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            let threads: HashSet<Uuid> = batch.iter().map(|item| item.request.thread_id).collect();
            self.commit(batch).await;
            self.release(threads);
        }
    }

    /// The next batch: whole line-ups in the order they became ready, until a cap is reached.
    fn take(&self) -> Vec<Item<R>> {
        let mut guard = self.lock();
        let queue = &mut *guard;
        let mut batch: Vec<Item<R>> = Vec::new();
        let mut bytes = 0;
        let mut nonces = HashSet::new();
        while batch.len() < BATCH_SENDS && bytes < BATCH_BYTES {
            let Some(thread_id) = queue.ready.pop_front() else { break };
            let Some(lineup) = queue.threads.get_mut(&thread_id) else { continue };
            if lineup.waiting.is_empty() {
                // All of it expired while it was ready.
                queue.threads.remove(&thread_id);
                continue;
            }
            lineup.in_flight = true;
            while batch.len() < BATCH_SENDS && bytes < BATCH_BYTES {
                let Some(next) = lineup.waiting.front() else { break };
                // The same nonce twice in one call would meet the unique index; the second waits for the next batch.
                if !nonces.insert((thread_id, next.request.actor_id, next.request.nonce)) {
                    break;
                }
                let Some(item) = lineup.waiting.pop_front() else { break };
                let size = request_bytes(&item.request);
                queue.sends -= 1;
                queue.bytes -= size;
                bytes += size;
                batch.push(item);
            }
        }
        let more = !queue.ready.is_empty();
        drop(guard);
        if more {
            self.arrived.notify_one();
        }
        batch
    }

    fn release(&self, threads: HashSet<Uuid>) {
        let mut guard = self.lock();
        let queue = &mut *guard;
        for thread_id in threads {
            let Some(lineup) = queue.threads.get_mut(&thread_id) else { continue };
            lineup.in_flight = false;
            if lineup.waiting.is_empty() {
                queue.threads.remove(&thread_id);
            } else {
                queue.ready.push_back(thread_id);
            }
        }
    }

    /// Commits a batch and answers it. A call the database refuses as a whole is repeated in halves, so that one bad row
    /// fails alone.
    async fn commit(&self, batch: Vec<Item<R>>) {
        let mut work = VecDeque::from([batch]);
        while let Some(part) = work.pop_front() {
            let (requests, replies): (Vec<SendRequest>, Vec<(R, Instant)>) =
                part.into_iter().map(|item| (item.request, (item.reply, item.arrived))).unzip();
            let oldest = replies.iter().map(|(_, arrived)| *arrived).min().unwrap_or_else(Instant::now);
            let left = SEND_DEADLINE.saturating_sub(oldest.elapsed()).max(Duration::from_millis(200));
            metrics().send_batch_size.observe(requests.len() as f64);
            match self.call(&requests, left).await {
                Ok((outcomes, updates)) => {
                    let done = Instant::now();
                    let answers = replies
                        .into_iter()
                        .zip(outcomes)
                        .map(|((reply, arrived), outcome)| {
                            metrics().send_commit_seconds.observe((done - arrived).as_secs_f64());
                            (reply, outcome)
                        })
                        .collect();
                    self.sink.committed(updates, answers);
                }
                Err(CallError::Refused(error)) if requests.len() > 1 => {
                    tracing::warn!(%error, sends = requests.len(), "a batch was refused; trying its halves");
                    let mut items: Vec<Item<R>> = requests
                        .into_iter()
                        .zip(replies)
                        .map(|(request, (reply, arrived))| Item { request, reply, arrived })
                        .collect();
                    let second = items.split_off(items.len() / 2);
                    work.push_front(second);
                    work.push_front(items);
                }
                Err(error) => {
                    let refusal = match error {
                        CallError::Refused(error) => {
                            tracing::error!(%error, "a send failed in the database");
                            Refusal::new(ErrorCode::Internal, "the message could not be stored")
                        }
                        CallError::Unavailable(reason) => {
                            tracing::warn!(reason, sends = requests.len(), "no commit for a batch");
                            Refusal::unavailable()
                        }
                    };
                    let answers = replies.into_iter().map(|(reply, _)| (reply, Err(refusal.clone()))).collect();
                    self.sink.committed(Vec::new(), answers);
                }
            }
        }
    }

    async fn call(&self, requests: &[SendRequest], left: Duration) -> Result<(Vec<Outcome>, Vec<Update>), CallError> {
        // Planted: sockets or senders hear of it before the commit.
        if saboteur::plants(Bug::PublishBeforeCommit) || saboteur::plants(Bug::AckBeforeCommit) {
            let ran = self.run_ahead(requests).await;
            return ran.map_err(|error| CallError::Unavailable(error.to_string()));
        }
        let mut connection = match tokio::time::timeout(left, self.pool.acquire()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(CallError::Unavailable(error.to_string())),
            Err(_) => return Err(CallError::Unavailable("no connection in time".into())),
        };
        metrics().statements.with_label_values(&["send"]).inc();
        match tokio::time::timeout(left, append(&mut connection, requests)).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error @ sqlx::Error::Database(_))) if !is_unavailable(&error) => {
                Err(CallError::Refused(error.to_string()))
            }
            Ok(Err(error)) => {
                drop(connection.detach());
                Err(CallError::Unavailable(error.to_string()))
            }
            Err(_) => {
                // The answer may still come on this connection: it must not be used again.
                drop(connection.detach());
                Err(CallError::Unavailable("no answer in time".into()))
            }
        }
    }

    /// Planted: the call in a transaction whose commit comes late. Its updates are published before it, or its answers
    /// are given and nobody waits for it.
    async fn run_ahead(&self, requests: &[SendRequest]) -> Result<(Vec<Outcome>, Vec<Update>), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let (outcomes, updates) = append(&mut transaction, requests).await?;
        let commit = async move {
            tokio::time::sleep(Duration::from_millis(LATE_COMMIT_MS)).await;
            transaction.commit().await
        };
        if saboteur::plants(Bug::AckBeforeCommit) {
            tokio::spawn(commit);
            return Ok((outcomes, updates));
        }
        self.sink.committed(updates, Vec::new());
        commit.await?;
        Ok((outcomes, Vec::new()))
    }

    /// Answers sends that waited past the deadline, so that a stalled database is told within 2 s.
    async fn expire(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let mut late = Vec::new();
            {
                let mut guard = self.lock();
                let queue = &mut *guard;
                if queue.sends == 0 {
                    continue;
                }
                for lineup in queue.threads.values_mut() {
                    while lineup.waiting.front().is_some_and(|item| item.arrived.elapsed() > SEND_DEADLINE) {
                        let Some(item) = lineup.waiting.pop_front() else { break };
                        queue.sends -= 1;
                        queue.bytes -= request_bytes(&item.request);
                        late.push((item.reply, Err(Refusal::unavailable())));
                    }
                }
            }
            if !late.is_empty() {
                self.sink.committed(Vec::new(), late);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum CallError {
    /// The database looked at the call and refused it.
    Refused(String),
    /// No answer, or none that says what happened.
    Unavailable(String),
}

fn request_bytes(request: &SendRequest) -> usize {
    256 + request.body.content.as_ref().map_or(0, String::len) + request.body.mentions.len() * 16
}
