//! Repeats above the rate: a send that is refused may be one that was committed before, and then its answer is `ok` for
//! ever. So its nonce is looked up, beside the queue of sends and on a connection of its own: without a lock, many in one
//! statement, and no more waiting than there are places for. Whether a person may ask is the caller's limit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tokio::sync::Notify;
use uuid::Uuid;

use super::db;
use super::fair::Shares;
use super::send::{Outcome, SendRequest, conflict, no_thread, rate_limited};
use crate::protocol::codes::Refusal;
use crate::protocol::types::SendOk;

/// Look-ups waiting in one node, shared like the queue of sends; more are answered `rate_limited`.
pub const WAITING: usize = 2_048;
/// Look-ups in one statement.
pub const BATCH: usize = 256;

/// A look-up: what names a send, not its content.
struct Ask<R> {
    thread: Uuid,
    actor: Uuid,
    nonce: Uuid,
    mac: [u8; 16],
    wait_ms: u32,
    reply: R,
}

struct Queue<R> {
    waiting: VecDeque<Ask<R>>,
    shares: Shares,
}

/// Looks nonces up, one statement at a time.
pub struct Lookups<R> {
    queue: Mutex<Queue<R>>,
    arrived: Notify,
}

impl<R: Send + 'static> Lookups<R> {
    /// Starts the lane on the current runtime; `pool` is its own. Answers go to `sink`.
    pub fn start(pool: PgPool, sink: impl Fn(Vec<(R, Outcome)>) + Send + 'static) -> Arc<Self> {
        let queue = Queue { waiting: VecDeque::new(), shares: Shares::new(WAITING, usize::MAX) };
        let lookups = Arc::new(Self { queue: Mutex::new(queue), arrived: Notify::new() });
        tokio::spawn(lookups.clone().lane(pool, sink));
        lookups
    }

    /// Queues a look-up for a send that has to wait `wait_ms`; gives the reply back where there is no place.
    pub fn submit(&self, request: &SendRequest, wait_ms: u32, reply: R) -> Result<(), R> {
        let mut queue = self.lock();
        if !queue.shares.enter(request.actor_id, 0) {
            return Err(reply);
        }
        let SendRequest { thread_id: thread, actor_id: actor, nonce, mac, .. } = *request;
        queue.waiting.push_back(Ask { thread, actor, nonce, mac, wait_ms, reply });
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    async fn lane(self: Arc<Self>, pool: PgPool, sink: impl Fn(Vec<(R, Outcome)>) + Send + 'static) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            let found = look(&pool, statement_of(&batch), batch.len()).await;
            let answers = batch.into_iter().enumerate().map(|(at, ask)| {
                let outcome = match &found {
                    Ok(found) => found.get(at).cloned().flatten().unwrap_or_else(|| Err(rate_limited(ask.wait_ms))),
                    Err(refusal) => Err(refusal.clone()),
                };
                (ask.reply, outcome)
            });
            sink(answers.collect());
        }
    }

    fn take(&self) -> Vec<Ask<R>> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(BATCH);
        let batch: Vec<Ask<R>> = queue.waiting.drain(..count).collect();
        batch.iter().for_each(|ask| queue.shares.leave(ask.actor, 0));
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn statement_of<R>(batch: &[Ask<R>]) -> db::Statement {
    let column = |pick: fn(&Ask<R>) -> Uuid| batch.iter().map(pick).collect::<Vec<_>>();
    sqlx::query("SELECT ord, code, seq, no, message_id, sent_at FROM engine.find_sends($1, $2, $3, $4)")
        .bind(column(|ask| ask.thread))
        .bind(column(|ask| ask.actor))
        .bind(column(|ask| ask.nonce))
        .bind(batch.iter().map(|ask| ask.mac.to_vec()).collect::<Vec<_>>())
}

/// What was committed before, by place in the batch of `count`; `None`: nothing, so the rate holds.
async fn look(pool: &PgPool, statement: db::Statement, count: usize) -> Result<Vec<Option<Outcome>>, Refusal> {
    let rows = db::fetch(pool, "send_lookup", statement).await?;
    let mut found = vec![None; count];
    for row in &rows {
        let (at, outcome) = parse(row).map_err(|error| db::refusal("send_lookup", &error))?;
        if let Some(slot) = found.get_mut(at) {
            *slot = Some(outcome);
        }
    }
    Ok(found)
}

fn parse(row: &PgRow) -> Result<(usize, Outcome), sqlx::Error> {
    let at = (row.try_get::<i32, _>(0)? - 1) as usize;
    let outcome = match row.try_get(1)? {
        "dup" => Ok(SendOk {
            seq: row.try_get(2)?,
            no: row.try_get(3)?,
            message_id: row.try_get(4)?,
            sent_at: row.try_get::<chrono::DateTime<chrono::Utc>, _>(5)?.into(),
            dup: true,
        }),
        "nonce_conflict" => Err(conflict()),
        _ => Err(no_thread()),
    };
    Ok((at, outcome))
}
