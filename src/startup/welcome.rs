//! People as `auth` needs them, read for many at once: a reconnect storm is a few statements, not one a socket.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::identity::{self, Access, Action, Identity};
use crate::messaging::people::{PEOPLE, Person, people};
use crate::protocol::codes::{ErrorCode, Refusal};

/// Batches at once; beside another only one of half the size at least, as a statement costs as much as a dozen of its
/// profiles. As many people are read one by one beside them.
const LANES: usize = 3;
/// Profiles in one statement.
const BATCH: usize = PEOPLE;
/// Profiles waiting; more are `unavailable`.
const WAITING: usize = 20_000;
/// Threads from which on a person is read alone, and so many of these are remembered.
const MANY_THREADS: usize = 1_000;
const APART_MAX: usize = 10_000;

type Answer = Result<Person, Refusal>;
type Ask = (Access, oneshot::Sender<Answer>);
/// People found, and how each session stands, in the order asked.
type Read = (Vec<Person>, Vec<Result<Arc<identity::Person>, Refusal>>);

#[derive(Default)]
struct Queue {
    asks: VecDeque<Ask>,
    /// Batches under way.
    running: usize,
    /// Those that are read one by one.
    alone: VecDeque<Ask>,
    /// Who is read alone: in many threads.
    apart: HashSet<Uuid>,
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

    /// Remembers who is in many threads, and forgets who no longer is.
    fn note(&mut self, person: &Person) {
        if person.further.len() + person.threads.len() < MANY_THREADS {
            self.apart.remove(&person.profile_id);
            return;
        }
        if self.apart.len() >= APART_MAX {
            self.apart.clear();
        }
        self.apart.insert(person.profile_id);
    }
}

/// Gathers look-ups while the last ones are under way; no delay. One that is slow or large is nobody else's trouble: where
/// a batch fails though the database answers, its people are read one by one, and whoever is in many threads always is.
pub struct Welcomes {
    queue: Mutex<Queue>,
    asked: Notify,
    asked_alone: Notify,
    pool: PgPool,
    identity: Arc<Identity>,
}

impl Welcomes {
    /// Starts the lanes on the current runtime.
    pub fn start(pool: PgPool, identity: Arc<Identity>) -> Arc<Self> {
        let (asked, asked_alone) = (Notify::new(), Notify::new());
        let welcomes = Arc::new(Self { queue: Mutex::default(), asked, asked_alone, pool, identity });
        for _ in 0..LANES {
            tokio::spawn(Self::lane(welcomes.clone()));
            tokio::spawn(Self::lane_alone(welcomes.clone()));
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
            if queue.asks.len() + queue.alone.len() >= WAITING {
                return Err(Refusal::unavailable());
            }
            if queue.apart.contains(&access.profile_id) {
                queue.alone.push_back((access, answer));
                self.asked_alone.notify_one();
            } else {
                queue.asks.push_back((access, answer));
                if queue.may_start() {
                    self.asked.notify_one();
                }
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

    async fn lane_alone(self: Arc<Self>) {
        loop {
            let (ask, more) = {
                let mut queue = self.lock();
                (queue.alone.pop_front(), !queue.alone.is_empty())
            };
            let Some(ask) = ask else {
                self.asked_alone.notified().await;
                continue;
            };
            if more {
                self.asked_alone.notify_one();
            }
            if ask.1.is_closed() {
                // Whoever has gone meanwhile needs no answer.
                continue;
            }
            match self.read(&[ask.0]).await {
                Ok(read) => self.tell(vec![ask], read),
                Err(refusal) => drop(ask.1.send(Err(refusal))),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, accesses: &[Access]) -> Result<Read, Refusal> {
        let ids: Vec<Uuid> = accesses.iter().map(|access| access.profile_id).collect();
        tokio::try_join!(people(&self.pool, &ids), self.identity.people_now(accesses))
    }

    async fn answer(&self, batch: Vec<Ask>) {
        let accesses: Vec<Access> = batch.iter().map(|(access, _)| *access).collect();
        match self.read(&accesses).await {
            Ok(read) => self.tell(batch, read),
            Err(_) if batch.len() > 1 && self.identity.people_now(&accesses[..1]).await.is_ok() => {
                self.lock().alone.extend(batch);
                self.asked_alone.notify_one();
            }
            Err(refusal) => batch.into_iter().for_each(|(_, answer)| {
                let _ = answer.send(Err(refusal.clone()));
            }),
        }
    }

    fn tell(&self, batch: Vec<Ask>, (found, standings): Read) {
        {
            let mut queue = self.lock();
            found.iter().for_each(|person| queue.note(person));
        }
        let mut found: HashMap<Uuid, Person> = found.into_iter().map(|person| (person.profile_id, person)).collect();
        let mut askers: HashMap<Uuid, usize> = HashMap::new();
        batch.iter().for_each(|(access, _)| *askers.entry(access.profile_id).or_default() += 1);
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
