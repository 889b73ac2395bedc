//! One run from its seed to its verdict: people come, write, join and leave while things break; then all is healed, and
//! everybody must get to where the log is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use super::backend::Job;
use super::client::{self, Habits, Handle};
use super::database::{Body, Database, Entry};
use super::node::{Life, Node};
use super::rng::Rng;
use super::world::World;
use crate::checker::record::{Positions, Record, StreamId};
use crate::updates;

/// Client numbers of those who listen at the end, and of nobody's: who floods.
const AUDITORS: u32 = 1_000;
const FLOODERS: u32 = 500;
/// Times are virtual.
const QUIET: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs a seed; all that was seen, with the final log.
pub fn run(seed: u64) -> Vec<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(seed))
}

struct Director {
    world: Arc<World>,
    rng: Rng,
    seed: u64,
    /// Whether there are floods; they take most of the time of a run.
    is_wild: bool,
    /// When the last of what is broken will have mended itself.
    mended_ms: u64,
    people: Vec<Uuid>,
    threads: Vec<Uuid>,
    handles: Vec<Arc<Handle>>,
}

async fn play(seed: u64) -> Vec<Record> {
    let world = World::new(seed);
    let mut rng = Rng::new(seed, 0);
    let nodes = rng.between(2, 3) as usize;
    world.record(Record::Begin { seed, nodes: nodes as u32 });
    let people: Vec<Uuid> = (0..rng.between(2, 4)).map(|_| world.id()).collect();
    let is_wild = rng.chance(15);
    let mut director = Director {
        world: world.clone(),
        rng,
        seed,
        is_wild,
        mended_ms: 0,
        people,
        threads: Vec::new(),
        handles: Vec::new(),
    };
    for _ in 0..director.rng.between(1, 3) {
        let (thread, members) = director.choose_thread();
        world.database().make_thread(thread, &members);
    }
    (0..nodes).for_each(|number| world.put_node(Node::start(&world, number)));
    director.start_clients();
    director.strike().await;
    director.heal().await;
    director.settle().await;
    director.move_on().await;
    director.record_log();
    let records = world.take_records();
    for node in world.nodes() {
        node.set_life(Life::Dead);
    }
    records
}

impl Director {
    fn choose_thread(&mut self) -> (Uuid, Vec<Uuid>) {
        let thread = self.world.id();
        // The first one never leaves.
        let first = self.rng.below(self.people.len() as u64) as usize;
        let mut members = vec![self.people[first]];
        for (number, person) in self.people.iter().enumerate() {
            if number != first && self.rng.chance(70) {
                members.push(*person);
            }
        }
        self.world.record(Record::Thread { thread, members: members.clone() });
        self.threads.push(thread);
        (thread, members)
    }

    fn start_clients(&mut self) {
        let mut client = 0;
        for person in self.people.clone() {
            // Some have two devices.
            for _ in 0..=u64::from(self.rng.chance(25)) {
                let room = if self.rng.chance(30) { self.rng.between(200, 4_000) } else { 64 << 10 } as usize;
                let sends_every_ms = self.rng.between(60, 400);
                let habits = Habits { sends_every_ms, room, targets: self.threads.clone() };
                let handle = client::start(&self.world, (client, person), self.seed, habits, &Positions::new(), "");
                handle.tell(|desk| desk.may_send = true);
                self.handles.push(handle);
                client += 1;
            }
        }
    }

    /// Lets things happen for some seconds.
    async fn strike(&mut self) {
        let end_ms = self.world.now_ms() + self.rng.between(500, 3_000);
        while self.world.now_ms() < end_ms {
            let pause_ms = if self.rng.chance(40) { self.rng.below(5) } else { self.rng.between(20, 500) };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match self.rng.below(100) {
                0..30 => self.churn(),
                30..36 if self.is_wild => self.flood(),
                36..42 if self.is_wild => self.flood_of_states(),
                42..45 => {
                    let (thread, members) = self.choose_thread();
                    self.change(move |database| database.make_thread(thread, &members));
                }
                30..42 | 45..60 => {
                    let deaf_ms = self.rng.between(50, 2_500);
                    let until_ms = self.mends_in(deaf_ms);
                    self.somebody().tell(|desk| desk.deaf_until_ms = until_ms);
                }
                60..72 => self.somebody().tell(|desk| desk.cut = true),
                72..75 => {
                    let profile = self.somebody().profile;
                    self.somewhere().engine.revoke(profile, None);
                }
                75..82 => self.kill(),
                82..89 => self.freeze(),
                89..93 => self.break_courier(),
                93..97 => self.break_database(),
                _ => self.change_epoch(),
            }
        }
    }

    /// Notes that something broken is well after so long; when that is.
    fn mends_in(&mut self, ms: u64) -> u64 {
        let at_ms = self.world.now_ms() + ms;
        self.mended_ms = self.mended_ms.max(at_ms);
        at_ms
    }

    fn somebody(&mut self) -> Arc<Handle> {
        self.handles[self.rng.below(self.handles.len() as u64) as usize].clone()
    }

    fn somewhere(&mut self) -> Arc<Node> {
        let nodes = self.world.nodes();
        nodes[self.rng.below(nodes.len() as u64) as usize].clone()
    }

    /// Commits a change at some node.
    fn change(&mut self, change: impl FnOnce(&mut Database) -> Vec<updates::Update> + Send + 'static) {
        self.somewhere().jobs.submit(Job::Change(Box::new(change)));
    }

    fn a_thread(&mut self) -> Uuid {
        self.threads[self.rng.below(self.threads.len() as u64) as usize]
    }

    /// Somebody leaves a thread, or joins it; sometimes both at once, and again.
    fn churn(&mut self) {
        for _ in 0..self.rng.between(1, 3) {
            let thread = self.a_thread();
            let at = self.rng.between(1, self.people.len() as u64 - 1) as usize;
            let person = self.people[at];
            self.change(move |database| match database.threads.get(&thread).and_then(|one| one.present(person)) {
                Some(_) => database.leave(thread, person),
                None => database.join(thread, person),
            });
        }
    }

    /// Very many messages in one commit: more than a ring, a page and a replay hold.
    fn flood(&mut self) {
        let thread = self.a_thread();
        let Some(sender) = self.world.database().threads.get(&thread).and_then(|one| one.members().next()) else {
            return;
        };
        let count = if self.rng.chance(50) { self.rng.between(510, 700) } else { self.rng.between(20, 300) };
        let padding = if self.rng.chance(30) { self.rng.between(100, 1_000) } else { 0 } as u16;
        let bodies: Vec<Body> = (0..count)
            .map(|_| Body { thread, nonce: self.world.id(), hash: self.rng.below(1 << 50), padding })
            .collect();
        for Body { thread, nonce, hash, .. } in bodies.iter().copied() {
            self.world.record(Record::Send { client: FLOODERS, thread, nonce, hash, node: String::new() });
        }
        self.change(move |database| bodies.into_iter().filter_map(|body| database.send(sender, body).1).collect());
    }

    /// The same in a user stream, with joins and leaves in between.
    fn flood_of_states(&mut self) {
        let person = self.somebody().profile;
        let thread = self.a_thread();
        for _ in 0..self.rng.between(2, 6) {
            let count = self.rng.between(50, 300);
            self.change(move |database| (0..count).map(|_| database.state(person, thread)).collect());
            if self.rng.chance(50) {
                self.churn();
            }
        }
    }

    fn kill(&mut self) {
        let node = self.somewhere();
        if node.life() != Life::Running {
            return;
        }
        node.set_life(Life::Dead);
        let (world, number, down_ms) = (self.world.clone(), node.number, self.rng.between(20, 900));
        self.mends_in(down_ms);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(down_ms)).await;
            world.put_node(Node::start(&world, number));
        });
    }

    fn freeze(&mut self) {
        let node = self.somewhere();
        if node.life() != Life::Running {
            return;
        }
        node.set_life(Life::Frozen);
        let long = self.rng.chance(30);
        let (frozen_ms, dies) =
            (if long { self.rng.between(2_000, 8_000) } else { self.rng.between(50, 1_500) }, self.rng.chance(25));
        let world = self.world.clone();
        self.mends_in(frozen_ms);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(frozen_ms)).await;
            match dies {
                true => {
                    node.set_life(Life::Dead);
                    world.put_node(Node::start(&world, node.number));
                }
                false => node.set_life(Life::Running),
            }
        });
    }

    fn break_courier(&mut self) {
        if !self.world.courier_is_up.load(Ordering::Relaxed) {
            return;
        }
        self.world.set_courier(false);
        let (world, down_ms) = (self.world.clone(), self.rng.between(200, 2_500));
        self.mends_in(down_ms);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(down_ms)).await;
            world.set_courier(true);
        });
    }

    fn break_database(&mut self) {
        if std::mem::replace(&mut self.world.database().is_down, true) {
            return;
        }
        let (world, down_ms) = (self.world.clone(), self.rng.between(20, 800));
        self.mends_in(down_ms);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(down_ms)).await;
            world.database().is_down = false;
        });
    }

    /// As by `haus epoch new`; each node looks at it in its own time.
    fn change_epoch(&mut self) {
        let epoch = {
            let mut database = self.world.database();
            database.epoch += 1;
            database.epoch.to_string()
        };
        for node in self.world.nodes() {
            let (epoch, look_ms) = (epoch.clone(), self.rng.below(1_000));
            self.mends_in(look_ms);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(look_ms)).await;
                node.keep_epoch(&epoch).await;
            });
        }
    }

    /// Everything is well again, and what was sent is answered.
    async fn heal(&mut self) {
        self.handles.iter().for_each(|handle| handle.tell(|desk| desk.may_send = false));
        let broken_ms = self.mended_ms.saturating_sub(self.world.now_ms());
        tokio::time::sleep(Duration::from_millis(broken_ms + 1)).await;
        self.world.is_rough.store(false, Ordering::Relaxed);
        let (handles, world) = (self.handles.clone(), self.world.clone());
        let are_done = || world.nodes().iter().all(|node| node.jobs.are_done());
        wait(QUIET, || are_done() && handles.iter().all(|handle| handle.desk().unanswered == 0)).await;
    }

    /// Every session gets to the heads by itself.
    async fn settle(&mut self) {
        let (handles, world) = (self.handles.clone(), self.world.clone());
        let at_head = |handle: &Arc<Handle>| {
            let database = world.database();
            let desk = handle.desk();
            let mine = database.positions(handle.profile);
            let reached = |(id, at): &(Uuid, crate::realtime::plan::Position)| {
                desk.mirror.at(StreamId::Thread(*id)).is_some_and(|reached| reached >= at.head)
            };
            desk.is_live && desk.fills == 0 && mine.iter().all(reached)
        };
        wait(SETTLE, || handles.iter().all(at_head)).await;
        // A page of history may have shown what a socket has yet to get, and which only a poll finds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        handles.iter().for_each(|handle| self.world.record(Record::Settled { client: handle.client }));
    }

    /// Everybody resumes once more, and a second device of each from further back.
    async fn move_on(&mut self) {
        let mut all = self.handles.clone();
        for handle in self.handles.clone() {
            let (from, epoch) = {
                let desk = handle.desk();
                let back = self.rng.between(1, 700);
                let from = desk.mirror.positions().iter().filter_map(|(stream, at)| match stream {
                    StreamId::Thread(id) => Some((*stream, at.saturating_sub(back).max(desk.mirror.floor(id)))),
                    StreamId::User => None,
                });
                (from.collect::<Positions>(), desk.epoch.clone())
            };
            let habits = Habits { sends_every_ms: 0, room: 64 << 10, targets: Vec::new() };
            let who = (AUDITORS + handle.client, handle.profile);
            all.push(client::start(&self.world, who, self.seed, habits, &from, &epoch));
            handle.tell(|desk| desk.cut = true);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let done = |handle: &Arc<Handle>| handle.desk().is_live && handle.desk().fills == 0;
        wait(SETTLE, || all.iter().all(done)).await;
        all.iter().for_each(|handle| self.world.record(Record::End { client: handle.client }));
    }

    fn record_log(&self) {
        let database = self.world.database();
        let logs: BTreeMap<&Uuid, &Vec<Entry>> = database.threads.iter().map(|(id, one)| (id, &one.log)).collect();
        for (thread, log) in logs {
            for (entry, seq) in log.iter().zip(1..) {
                self.world.record(logged(*thread, seq, entry));
            }
        }
    }
}

fn logged(thread: Uuid, seq: u64, entry: &Entry) -> Record {
    let (kind, profiles) = match entry {
        Entry::Message { .. } => ("message.created", Vec::new()),
        Entry::Joined(profile) => ("member.joined", vec![*profile]),
        Entry::Left(profile) => ("member.left", vec![*profile]),
    };
    let (no, nonce, hash, sender) = match entry {
        Entry::Message { sender, body, no } => (*no, Some(body.nonce), body.hash, Some(*sender)),
        _ => (0, None, 0, None),
    };
    Record::Log { thread, seq, kind: kind.to_owned(), no, nonce, hash, sender, profiles }
}

async fn wait(most: Duration, done: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !done() && start.elapsed() < most {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
