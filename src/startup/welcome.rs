//! People as `auth` needs them, read for many at once: a reconnect storm is a few statements, not one a socket.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::messaging::rows::{Person, people};
use crate::protocol::codes::{ErrorCode, Refusal};

/// Statements at once.
const LANES: usize = 3;
/// Profiles in one statement.
const BATCH: usize = 32;
/// Profiles waiting; more are `unavailable`.
const WAITING: usize = 20_000;

type Answer = Result<Arc<Person>, Refusal>;

/// Gathers look-ups while the last ones are under way; no delay.
pub struct Welcomes {
    queue: Mutex<VecDeque<(Uuid, oneshot::Sender<Answer>)>>,
    asked: Notify,
    pool: PgPool,
}

impl Welcomes {
    /// Starts the lanes on the current runtime.
    pub fn start(pool: PgPool) -> Arc<Self> {
        let welcomes = Arc::new(Self { queue: Mutex::default(), asked: Notify::new(), pool });
        for _ in 0..LANES {
            tokio::spawn(Self::lane(welcomes.clone()));
        }
        welcomes
    }

    /// One person, with all threads, as of a moment after this call.
    pub async fn person(&self, profile_id: Uuid) -> Answer {
        let (answer, waiting) = oneshot::channel();
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= WAITING {
                return Err(Refusal::unavailable());
            }
            queue.push_back((profile_id, answer));
        }
        self.asked.notify_one();
        waiting.await.unwrap_or_else(|_| Err(Refusal::unavailable()))
    }

    async fn lane(self: Arc<Self>) {
        loop {
            let (batch, more): (Vec<_>, bool) = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let count = queue.len().min(BATCH);
                (queue.drain(..count).collect(), !queue.is_empty())
            };
            if more {
                self.asked.notify_one();
            }
            if batch.is_empty() {
                self.asked.notified().await;
                continue;
            }
            let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
            match people(&self.pool, &ids).await {
                Ok(found) => {
                    let found: HashMap<Uuid, Arc<Person>> =
                        found.into_iter().map(|person| (person.profile_id, Arc::new(person))).collect();
                    for (id, answer) in batch {
                        let person = found.get(&id).cloned();
                        let missing = || Refusal::new(ErrorCode::Unauthenticated, "this account is gone");
                        let _ = answer.send(person.ok_or_else(missing));
                    }
                }
                Err(refusal) => batch.into_iter().for_each(|(_, answer)| {
                    let _ = answer.send(Err(refusal.clone()));
                }),
            }
        }
    }
}
