//! The node's send batcher: group commit without a delay. A batch is what arrived while the last one was being
//! committed; no thread is in two batches at once, so the order of a session holds. Who goes next: `lineup`.
//!
//! The queue is bounded in sends and bytes: beyond it a send is `unavailable` at once. A send that finds no commit
//! within `SEND_DEADLINE` is answered `unavailable`; it may still be committed, which its nonce makes harmless.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use super::lineup::{Item, Lineups};
use super::send::{Outcome, SendRequest, append, append_within};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::saboteur::{self, Bug, LATE_COMMIT_MS};
use crate::store::is_unavailable;
use crate::telemetry::metrics;
use crate::updates::Update;

/// Calls in flight at once, each on a connection of its own.
pub const LANES: usize = 2;
/// From arrival to answer; protocol: `unavailable` within 2 s.
pub const SEND_DEADLINE: Duration = Duration::from_millis(1800);

/// What a batch gets though its oldest send has waited for nearly all of that; protocol: still within 2 s.
const LEAST_TIME: Duration = Duration::from_millis(200);

/// Keeps a thread's next batch waiting while it, or a clone of it, lives.
pub type Hold = Arc<dyn Any + Send + Sync>;

/// Where committed updates and answers go. `R` says whom an answer is for and is never looked into.
pub trait CommitSink<R>: Send + Sync + 'static {
    /// Called once a batch, after its commit, updates in commit order. Must not block. Whoever delivers to many sockets
    /// takes a hold of the thread, at most one a call, and keeps it until most of them have got the updates.
    fn committed(&self, updates: Vec<Update>, answers: Vec<(R, Outcome)>, hold: &dyn Fn(Uuid) -> Option<Hold>);
}

/// A thread's next batch may go when this goes.
struct Held<R: Send + 'static> {
    batcher: Arc<Batcher<R>>,
    thread: Uuid,
    committed: Instant,
}

impl<R: Send + 'static> Drop for Held<R> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.batcher.lock().release(self.thread, now - self.committed, now);
        self.batcher.arrived.notify_one();
    }
}

/// Gathers sends and commits them in batches.
pub struct Batcher<R> {
    queue: Mutex<Lineups<R>>,
    arrived: Notify,
    pool: PgPool,
    sink: Arc<dyn CommitSink<R>>,
}

impl<R: Send + 'static> Batcher<R> {
    /// Starts the lanes on the current runtime.
    pub fn start(pool: PgPool, sink: Arc<dyn CommitSink<R>>) -> Arc<Self> {
        let batcher = Arc::new(Self { queue: Mutex::default(), arrived: Notify::new(), pool, sink });
        for _ in 0..LANES {
            tokio::spawn(Self::lane(batcher.clone()));
        }
        tokio::spawn(Self::expire(batcher.clone()));
        batcher
    }

    /// Queues a send; its answer comes through the sink. Never blocks.
    pub fn submit(&self, request: SendRequest, reply: R) {
        let pushed = self.lock().push(Item { request, reply, arrived: Instant::now() });
        match pushed {
            Ok(true) => self.arrived.notify_one(),
            Ok(false) => {}
            Err(reply) => {
                metrics().dropped.with_label_values(&["send_queue"]).inc();
                self.answer(reply, Err(Refusal::unavailable()));
            }
        }
    }

    /// Answers a send that never came to the queue.
    pub fn answer(&self, reply: R, outcome: Outcome) {
        self.sink.committed(Vec::new(), vec![(reply, outcome)], &|_| None);
    }

    /// Sends waiting for a batch.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    async fn lane(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            let (batch, more, next) = {
                let mut queue = self.lock();
                (queue.take(now), queue.may_start(now), queue.next_ready())
            };
            if batch.is_empty() {
                match next {
                    Some(at) => drop(tokio::time::timeout_at(at.into(), self.arrived.notified()).await),
                    None => self.arrived.notified().await,
                }
                continue;
            }
            if more {
                self.arrived.notify_one();
            }
            let mut threads: HashSet<Uuid> = batch.iter().map(|item| item.request.thread_id).collect();
            for held in self.commit(batch).await {
                threads.remove(&held);
            }
            let mut queue = self.lock();
            queue.ended(now);
            let done = Instant::now();
            threads.into_iter().for_each(|thread| queue.release(thread, Duration::ZERO, done));
        }
    }

    /// Commits a batch and answers it. A call the database refuses as a whole is repeated in halves, so that one bad row
    /// fails alone. Returns the threads that were held: they are released with their hold.
    async fn commit(self: &Arc<Self>, batch: Vec<Item<R>>) -> HashSet<Uuid> {
        let mut held = HashSet::new();
        // One for everything that happens to the batch: the wait for a connection, the call, its halves.
        let now = Instant::now();
        let oldest = batch.iter().map(|item| item.arrived).min().unwrap_or(now);
        let deadline = (oldest + SEND_DEADLINE).max(now + LEAST_TIME);
        let mut work = VecDeque::from([batch]);
        while let Some(part) = work.pop_front() {
            let (requests, replies): (Vec<SendRequest>, Vec<(R, Instant)>) =
                part.into_iter().map(|item| (item.request, (item.reply, item.arrived))).unzip();
            metrics().send_batch_size.observe(requests.len() as f64);
            match self.call(&requests, deadline).await {
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
                    // Not while a part is left, which may hold more sends of the same thread.
                    if work.is_empty() {
                        held.extend(self.hand_over(updates, answers, done));
                    } else {
                        self.sink.committed(updates, answers, &|_| None);
                    }
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
                    self.sink.committed(Vec::new(), answers, &|_| None);
                }
            }
        }
        held
    }

    /// Gives a committed batch to the sink; returns the threads it holds.
    fn hand_over(
        self: &Arc<Self>,
        updates: Vec<Update>,
        answers: Vec<(R, Outcome)>,
        committed: Instant,
    ) -> HashSet<Uuid> {
        let held = RefCell::new(HashSet::new());
        self.sink.committed(updates, answers, &|thread| {
            let is_first = held.borrow_mut().insert(thread);
            is_first.then(|| Arc::new(Held { batcher: self.clone(), thread, committed }) as Hold)
        });
        held.into_inner()
    }

    async fn call(
        &self,
        requests: &[SendRequest],
        deadline: Instant,
    ) -> Result<(Vec<Outcome>, Vec<Update>), CallError> {
        // Planted: sockets or senders hear of it before the commit.
        if saboteur::plants(Bug::PublishBeforeCommit) || saboteur::plants(Bug::AckBeforeCommit) {
            let ran = self.run_ahead(requests).await;
            return ran.map_err(|error| CallError::Unavailable(error.to_string()));
        }
        let mut connection = match tokio::time::timeout_at(deadline.into(), self.pool.acquire()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(CallError::Unavailable(error.to_string())),
            Err(_) => return Err(CallError::Unavailable("no connection in time".into())),
        };
        metrics().statements.with_label_values(&["send"]).inc();
        match tokio::time::timeout_at(deadline.into(), append(&mut connection, requests)).await {
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
        let (outcomes, updates) = append_within(&mut transaction, requests).await?;
        let commit = async move {
            tokio::time::sleep(Duration::from_millis(LATE_COMMIT_MS)).await;
            transaction.commit().await
        };
        if saboteur::plants(Bug::AckBeforeCommit) {
            tokio::spawn(commit);
            return Ok((outcomes, updates));
        }
        self.sink.committed(updates, Vec::new(), &|_| None);
        commit.await?;
        Ok((outcomes, Vec::new()))
    }

    /// Answers sends that waited past the deadline, so that a stalled database is told within 2 s. Also wakes a lane for
    /// those that wait beside a stuck call.
    async fn expire(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let now = Instant::now();
            let (late, may_start) = {
                let mut queue = self.lock();
                let late = now.checked_sub(SEND_DEADLINE).map_or_else(Vec::new, |limit| queue.expire(limit));
                (late, queue.may_start(now))
            };
            if may_start {
                self.arrived.notify_one();
            }
            let answers: Vec<_> = late.into_iter().map(|item| (item.reply, Err(Refusal::unavailable()))).collect();
            if !answers.is_empty() {
                self.sink.committed(Vec::new(), answers, &|_| None);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lineups<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum CallError {
    /// The database looked at the call and refused it.
    Refused(String),
    /// No answer, or none that says what happened.
    Unavailable(String),
}
