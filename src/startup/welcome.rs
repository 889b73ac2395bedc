//! People as `auth` needs them, read for many at once: a reconnect storm is a few statements, not one a socket.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::identity::{Access, Action, Identity};
use crate::messaging::rows::{PEOPLE, Person, people};
use crate::protocol::codes::{ErrorCode, Refusal};

/// Batches at once; beside another only one of half the size at least, as a statement costs as much as a dozen of its
/// profiles.
const LANES: usize = 3;
/// Profiles in one statement.
const BATCH: usize = PEOPLE;
/// Profiles waiting; more are `unavailable`.
const WAITING: usize = 20_000;

type Answer = Result<Person, Refusal>;
type Ask = (Access, oneshot::Sender<Answer>);

#[derive(Default)]
struct Queue {
    asks: VecDeque<Ask>,
    /// Batches under way.
    running: usize,
}

impl Queue {
    fn may_start(&self) -> bool {
        !self.asks.is_empty() && (self.running == 0 || self.asks.len() >= BATCH / 2)
    }

    fn take(&mut self) -> Vec<Ask> {
        if !self.may_start() {
            return Vec::new();
        }
        self.running += 1;
        let count = self.asks.len().min(BATCH);
        self.asks.drain(..count).collect()
    }
}

/// Gathers look-ups while the last ones are under way; no delay.
pub struct Welcomes {
    queue: Mutex<Queue>,
    asked: Notify,
    pool: PgPool,
    identity: Arc<Identity>,
}

impl Welcomes {
    /// Starts the lanes on the current runtime.
    pub fn start(pool: PgPool, identity: Arc<Identity>) -> Arc<Self> {
        let welcomes = Arc::new(Self { queue: Mutex::default(), asked: Notify::new(), pool, identity });
        for _ in 0..LANES {
            tokio::spawn(Self::lane(welcomes.clone()));
        }
        welcomes
    }

    /// One person, with all threads, as of a moment after this call.
    ///
    /// # Errors
    /// `unauthenticated` when the session has ended, `forbidden` when the account may hold no socket, `unavailable`.
    pub async fn person(&self, access: Access) -> Answer {
        let (answer, waiting) = oneshot::channel();
        {
            let mut queue = self.lock();
            if queue.asks.len() >= WAITING {
                return Err(Refusal::unavailable());
            }
            queue.asks.push_back((access, answer));
            if queue.may_start() {
                self.asked.notify_one();
            }
        }
        waiting.await.unwrap_or_else(|_| Err(Refusal::unavailable()))
    }

    async fn lane(self: Arc<Self>) {
        loop {
            let (batch, more) = {
                let mut queue = self.lock();
                (queue.take(), queue.may_start())
            };
            if batch.is_empty() {
                self.asked.notified().await;
                continue;
            }
            if more {
                self.asked.notify_one();
            }
            self.answer(batch).await;
            self.lock().running -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, batch: Vec<Ask>) {
        let ids: Vec<Uuid> = batch.iter().map(|(access, _)| access.profile_id).collect();
        let accesses: Vec<Access> = batch.iter().map(|(access, _)| *access).collect();
        let read = tokio::try_join!(people(&self.pool, &ids), self.identity.people_now(&accesses));
        let (found, standings) = match read {
            Ok(read) => read,
            Err(refusal) => {
                return batch.into_iter().for_each(|(_, answer)| {
                    let _ = answer.send(Err(refusal.clone()));
                });
            }
        };
        let mut found: HashMap<Uuid, Person> = found.into_iter().map(|person| (person.profile_id, person)).collect();
        let mut askers: HashMap<Uuid, usize> = HashMap::new();
        ids.iter().for_each(|id| *askers.entry(*id).or_default() += 1);
        for ((access, answer), standing) in batch.into_iter().zip(standings) {
            let id = access.profile_id;
            let left = askers.get_mut(&id).map_or(0, |count| {
                *count -= 1;
                *count
            });
            // Moved to the last who asks for it; each has a list of a person's size.
            let person = if left == 0 { found.remove(&id) } else { found.get(&id).cloned() };
            let person = standing
                .and_then(|standing| standing.may(Action::OpenSocket))
                .and_then(|()| person.ok_or_else(|| Refusal::new(ErrorCode::Unauthenticated, "this account is gone")));
            let _ = answer.send(person);
        }
    }
}
