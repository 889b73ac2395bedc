//! Everything that goes on beside the sockets while a history runs: kicks, joins and leaves, clients told to go away or to
//! stop reading, REST senders, readers of newest pages. Each task ends when `running` turns false.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::member::{Body, Identity, Status};
use crate::plan::Workload;
use crate::recorder::body_hash;
use crate::rest::Rest;
use crate::rig::rng::Rng;
use crate::session::Order;

/// Tries of a REST send, each with the same nonce.
const SEND_TRIES: usize = 4;
/// Pause of a task after something that failed or found nothing to do.
const BREATH: Duration = Duration::from_millis(50);
/// Pause of a reader between two pages.
const READ_EVERY: Duration = Duration::from_millis(20);

/// A GROUP thread, its owner (who never leaves) and who was made a member.
#[derive(Debug, Clone)]
pub struct Group {
    pub thread: Uuid,
    pub owner: usize,
    pub members: Vec<usize>,
}

/// One person as the crew sees it.
#[derive(Debug, Clone)]
pub struct Person {
    pub identity: Identity,
    pub status: Arc<Mutex<Status>>,
    pub orders: mpsc::Sender<Order>,
}

impl Person {
    fn threads(&self) -> Vec<Uuid> {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.mirror.threads().filter(|thread| self.identity.targets.contains(thread)).collect()
    }
}

/// Starts all tasks of the workload; they end with the set or with `running`.
pub fn start(
    people: &[Person],
    groups: &[Group],
    rest: &Rest,
    seed: u64,
    running: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut crew = JoinSet::new();
    let people: Arc<[Person]> = people.into();
    let Some(workload) = people.first().map(|person| person.identity.workload.clone()) else { return crew };
    let rng = |lane: u64| Rng::new(seed, lane);
    if workload.churn_every_ms > 0 && !groups.is_empty() {
        let groups = groups.to_vec();
        crew.spawn(churn(Arc::clone(&people), groups, rest.clone(), rng(10), workload.churn_every_ms, running.clone()));
    }
    crew.spawn(orders(Arc::clone(&people), workload.clone(), rng(11), running.clone()));
    for lane in 0..workload.rest_senders {
        crew.spawn(rest_sender(Arc::clone(&people), rest.clone(), rng(100 + lane as u64), running.clone()));
    }
    for lane in 0..workload.readers {
        crew.spawn(reader(Arc::clone(&people), rest.clone(), rng(200 + lane as u64), running.clone()));
    }
    crew
}

async fn churn(
    people: Arc<[Person]>,
    mut groups: Vec<Group>,
    rest: Rest,
    mut rng: Rng,
    every_ms: u64,
    running: watch::Receiver<bool>,
) {
    while *running.borrow() {
        tokio::time::sleep(Duration::from_millis(rng.between(every_ms / 2, every_ms * 3 / 2))).await;
        let group_index = index(&mut rng, groups.len());
        let person = index(&mut rng, people.len());
        let node = index(&mut rng, rest.doors.len());
        let group = &mut groups[group_index];
        if person == group.owner {
            continue;
        }
        let (owner, subject) = (&people[group.owner].identity, &people[person].identity);
        let place = group.members.iter().position(|member| *member == person);
        // Those inside leave twice as often as those outside come in: a third of all people is in.
        match place {
            Some(place) if rng.chance(50) => {
                let by = if rng.chance(50) { owner } else { subject };
                rest.change_member(node, &by.token, group.thread, subject.profile, false).await;
                group.members.swap_remove(place);
            }
            None if rng.chance(25) => {
                rest.change_member(node, &owner.token, group.thread, subject.profile, true).await;
                group.members.push(person);
            }
            _ => {}
        }
    }
}

async fn orders(people: Arc<[Person]>, workload: Workload, mut rng: Rng, running: watch::Receiver<bool>) {
    let look = Duration::from_millis(100);
    let look_ms = 100;
    while *running.borrow() {
        tokio::time::sleep(look).await;
        for (every_ms, (from, to), stalls) in
            [(workload.away_every_ms, workload.away_ms, false), (workload.slow_every_ms, workload.slow_ms, true)]
        {
            let time = Duration::from_millis(rng.between(from, to));
            let person = index(&mut rng, people.len());
            if every_ms > 0 && rng.below(every_ms) < look_ms {
                let order = if stalls { Order::Stall(time) } else { Order::Away(time) };
                // A client with a full box is away already.
                let _ = people[person].orders.try_send(order);
            }
        }
    }
}

async fn rest_sender(people: Arc<[Person]>, rest: Rest, mut rng: Rng, running: watch::Receiver<bool>) {
    let mut counter = 0_u64;
    while *running.borrow() {
        let person = &people[index(&mut rng, people.len())];
        let Some(thread) = rng.pick(&person.threads()).copied() else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        counter += 1;
        let content = format!("{counter} over REST");
        let hash = body_hash(&person.identity.profile, &content);
        let body = Body { thread, nonce: Uuid::new_v4(), content, hash };
        for attempt in 0..SEND_TRIES {
            if rest.send(index(&mut rng, rest.doors.len()) + attempt, &person.identity, &body).await {
                break;
            }
            tokio::time::sleep(BREATH).await;
        }
    }
}

async fn reader(people: Arc<[Person]>, rest: Rest, mut rng: Rng, running: watch::Receiver<bool>) {
    while *running.borrow() {
        tokio::time::sleep(READ_EVERY).await;
        let person = &people[index(&mut rng, people.len())];
        let node = index(&mut rng, rest.doors.len());
        if let Some(thread) = rng.pick(&person.threads()).copied() {
            // A page that failed leaves a `read` without a `page`, which obliges nobody.
            rest.read(node, person.identity.client, &person.identity.token, thread, None).await;
        }
    }
}

fn index(rng: &mut Rng, length: usize) -> usize {
    usize::try_from(rng.below(length as u64)).unwrap_or(0)
}
