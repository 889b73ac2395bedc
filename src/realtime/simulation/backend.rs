//! The rest of the product as one simulated node sees it: reads that take their time and may fail, and commits that may
//! come late, be told to nobody, or end without an answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::database::{Body, Database, Entry, Sent};
use super::node::{Gate, SimulatedCourier};
use super::world::World;
use crate::courier::Courier;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::reply;
use crate::protocol::time::Timestamp;
use crate::protocol::types::{SendBody, SendOk, ThreadRole, ThreadRow, ThreadType};
use crate::realtime::hub::Hub;
use crate::realtime::inbox::{Snapshot, ToWorker};
use crate::realtime::{
    Access, Backend, CommandName, Credential, Later, LogReader, Polled, PolledTo, Positions, SocketReply, UserSnapshot,
    Welcome,
};
use crate::saboteur::{self, Bug};
use crate::updates::{StreamId, Update};

/// Bytes of frames in one page of one stream.
const PAGE_BYTES: usize = 48 << 10;
/// Of a hundred reads, how many fail where the world is rough.
const FAIL_PERCENT: u64 = 2;
/// Of a hundred commits, how many take long, and how many are followed by a pause before anybody is told.
const LATE_PERCENT: u64 = 3;
const PAUSE_PERCENT: u64 = 6;
/// Of a hundred batches that a planted bug harms.
const HARM_PERCENT: u64 = 5;

/// What changes the database, and the updates that come of it.
type Change = Box<dyn FnOnce(&mut Database) -> Vec<Update> + Send>;

/// Something to be committed.
pub enum Job {
    Send { actor: Uuid, body: Body, to: SocketReply },
    Change(Change),
}

/// The line before a node's writer.
#[derive(Clone)]
pub struct Jobs {
    line: mpsc::UnboundedSender<Job>,
    /// Those that are not done yet.
    open: Arc<AtomicUsize>,
}

impl Jobs {
    pub fn line() -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (line, queue) = mpsc::unbounded_channel();
        (Self { line, open: Arc::default() }, queue)
    }

    pub fn submit(&self, job: Job) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let _ = self.line.send(job);
    }

    pub fn are_done(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}

pub struct NodeBackend {
    world: Weak<World>,
    gate: Gate,
    hub: Arc<Hub>,
    jobs: Jobs,
}

impl NodeBackend {
    pub fn new(world: &Arc<World>, gate: Gate, hub: Arc<Hub>, jobs: Jobs) -> Self {
        Self { world: Arc::downgrade(world), gate, hub, jobs }
    }

    fn world(&self) -> Result<Arc<World>, Refusal> {
        self.world.upgrade().ok_or_else(Refusal::unavailable)
    }

    /// One read: what it sees is as of a moment between asking and answer.
    async fn read<T>(&self, look: impl FnOnce(&Database) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let world = self.world()?;
        self.pause(&world).await;
        let seen = {
            let fails = is_rough(&world) && world.chance(FAIL_PERCENT);
            let database = world.database();
            if database.is_down || fails { Err(Refusal::unavailable()) } else { look(&database) }
        };
        self.pause(&world).await;
        seen
    }

    async fn pause(&self, world: &World) {
        let late = is_rough(world) && world.chance(LATE_PERCENT);
        let ms = if late { world.between(20, 300) } else { world.below(3) };
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.gate.pass().await;
    }
}

fn is_rough(world: &World) -> bool {
    world.is_rough.load(Ordering::Relaxed)
}

/// The node's only writer: takes what waits, commits it, tells those here, answers, and publishes.
pub async fn commit(node: Arc<NodeBackend>, courier: Arc<SimulatedCourier>, mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some(first) = queue.recv().await {
        let mut jobs = vec![first];
        while jobs.len() < 32
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let Ok(world) = node.world() else { return };
        let count = jobs.len();
        node.pause(&world).await;
        let (mut updates, mut replies) = (Vec::new(), Vec::new());
        {
            let mut database = world.database();
            let is_down = database.is_down;
            // The answer of a statement under way when the database dies is lost, whether it was committed or not.
            if !is_down || world.chance(50) {
                for job in jobs {
                    do_one(&world, &mut database, job, &mut updates, &mut replies);
                }
            } else {
                for job in jobs {
                    if let Job::Send { to, .. } = job {
                        replies.push((to, Err(Refusal::unavailable())));
                    }
                }
            }
            if is_down {
                replies.iter_mut().for_each(|(_, answer)| *answer = Err(Refusal::unavailable()));
            }
        }
        if is_rough(&world) && world.chance(PAUSE_PERCENT) {
            tokio::time::sleep(Duration::from_millis(world.between(5, 150))).await;
        }
        node.gate.pass().await;
        if saboteur::plants(Bug::PublishBeforeCommit) && world.chance(HARM_PERCENT) {
            let last = updates.iter().rfind(|update| !update.stream.is_user()).map(|last| (last.stream, last.seq));
            updates.extend(last.map(|(stream, seq)| taken_back(&world, stream, seq + 1)));
        }
        node.hub.ingest(&updates);
        answer(&node.hub, replies);
        courier.publish(&updates);
        node.jobs.open.fetch_sub(count, Ordering::Relaxed);
    }
}

type Answer = Result<SendOk, Refusal>;

fn do_one(
    world: &World,
    database: &mut Database,
    job: Job,
    updates: &mut Vec<Update>,
    replies: &mut Vec<(SocketReply, Answer)>,
) {
    match job {
        Job::Change(change) => updates.extend(change(database)),
        Job::Send { actor, body, to } => {
            if saboteur::plants(Bug::AckBeforeCommit) && world.chance(HARM_PERCENT) {
                let seq = database.head(StreamId::Thread(body.thread)) as i64 + 1;
                return replies.push((to, Ok(ok(body, seq, 0, false))));
            }
            let (sent, update) = database.send(actor, body);
            updates.extend(update);
            let answer = match sent {
                Sent::Committed { seq, no } => Ok(ok(body, seq as i64, no as i64, false)),
                Sent::Repeated { seq, no } => Ok(ok(body, seq as i64, no as i64, true)),
                Sent::Forbidden => Err(Refusal::new(ErrorCode::Forbidden, "no member")),
                Sent::Conflict => Err(Refusal::new(ErrorCode::NonceConflict, "another body")),
            };
            replies.push((to, answer));
        }
    }
}

/// A message that sockets got before its commit failed.
fn taken_back(world: &World, stream: StreamId, seq: u64) -> Update {
    let body = Body { thread: stream.uuid(), nonce: world.id(), hash: 1, padding: 0 };
    Database::render(stream, seq, &Entry::Message { sender: Uuid::nil(), body, no: 1 })
}

fn ok(body: Body, seq: i64, no: i64, dup: bool) -> SendOk {
    SendOk { message_id: body.nonce, seq, no, sent_at: Timestamp::from_unix_ms(0), dup }
}

fn answer(hub: &Hub, replies: Vec<(SocketReply, Answer)>) {
    for (SocketReply { to, id, thread_id }, answer) in replies {
        let frame = match answer {
            Ok(ok) => reply::ok(id, &ok),
            Err(refusal) => reply::err(id, "message.send", &refusal),
        };
        if let Some(inbox) = hub.inbox(to.worker) {
            inbox.push(ToWorker::Replies(vec![(to, frame, thread_id)]));
        }
    }
}

impl LogReader for NodeBackend {
    fn pages<'a>(&'a self, asks: &'a [(StreamId, u64)], limit: u32) -> Later<'a, Result<Vec<Vec<Update>>, Refusal>> {
        let page = move |database: &Database, (stream, since): &(StreamId, u64)| {
            let mut bytes = 0;
            let fits = |update: &Update| {
                let is_first = bytes == 0;
                bytes += update.frame.len();
                is_first || bytes <= PAGE_BYTES
            };
            let updates = (since + 1..=database.head(*stream)).map(|seq| database.update(*stream, seq));
            updates.take(limit as usize).take_while(fits).collect()
        };
        Box::pin(self.read(move |database| Ok(asks.iter().map(|ask| page(database, ask)).collect())))
    }

    fn heads<'a>(&'a self, streams: &'a [StreamId]) -> Later<'a, Result<Vec<(StreamId, u64)>, Refusal>> {
        Box::pin(self.read(move |database| Ok(streams.iter().map(|one| (*one, database.head(*one))).collect())))
    }

    fn poll(&self, position: Option<String>, rows: u32) -> Later<'_, Result<Polled, Refusal>> {
        Box::pin(self.read(move |database| {
            let Some(position) = position else {
                let position = database.commits().to_string();
                return Ok(Polled { position, moved: Vec::new(), came: PolledTo::Present });
            };
            let (moved, to) = database.moved(position.parse().unwrap_or(0), rows as usize);
            let came = if to < database.commits() { PolledTo::Part } else { PolledTo::Present };
            Ok(Polled { position: to.to_string(), moved, came })
        }))
    }
}

impl Backend for NodeBackend {
    fn authenticate(&self, credential: Credential) -> Later<'_, Result<Access, Refusal>> {
        Box::pin(self.read(move |_| {
            let Credential::Token(token) = credential else { return Err(Refusal::unavailable()) };
            let profile_id = Uuid::parse_str(&token).map_err(|_| Refusal::unavailable())?;
            Ok(Access { profile_id, session_id: profile_id, expires_at_ms: i64::MAX })
        }))
    }

    fn welcome(&self, Access { profile_id, .. }: Access) -> Later<'_, Result<Welcome, Refusal>> {
        Box::pin(self.read(move |database| {
            let positions = database.positions(profile_id);
            Ok(Welcome {
                display_name: String::new(),
                role: "MEMBER",
                user_seq: database.head(StreamId::User(profile_id)),
                threads: positions.iter().map(|(id, position)| row(*id, position.head)).collect(),
                positions,
            })
        }))
    }

    fn send(&self, actor: Uuid, thread: Uuid, body: SendBody, to: SocketReply) {
        let mut words = body.content.as_deref().unwrap_or_default().split(' ').map(str::parse::<u64>);
        let (Some(nonce), Some(Ok(hash)), Some(Ok(padding))) = (body.nonce, words.next(), words.next()) else {
            return;
        };
        let body = Body { thread, nonce, hash, padding: padding as u16 };
        self.jobs.submit(Job::Send { actor, body, to });
    }

    fn command<'a>(
        &'a self,
        actor: Uuid,
        _: IpAddr,
        name: CommandName,
        d: &'a str,
    ) -> Later<'a, Result<Box<RawValue>, Refusal>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct History {
            thread_id: Uuid,
            before: u64,
            limit: usize,
        }
        Box::pin(self.read(move |database| {
            let refused = || Refusal::new(ErrorCode::Invalid, "not simulated");
            let asked: History = serde_json::from_str(d).map_err(|_| refused())?;
            if name != CommandName::History {
                return Err(refused());
            }
            let mut json = database.page_json(actor, asked.thread_id, asked.before, asked.limit);
            if saboteur::plants(Bug::StaleHistory) {
                let newest = database.page(actor, asked.thread_id, asked.before, 3);
                let before = newest.last().map_or(asked.before, |(_, no, _)| *no);
                json = database.page_json(actor, asked.thread_id, before, asked.limit);
            }
            RawValue::from_string(json).map_err(|_| refused())
        }))
    }

    fn stands(&self, _: Access) -> Later<'_, Result<(), Refusal>> {
        Box::pin(self.read(|_| Ok(())))
    }

    fn positions(&self, profile_id: Uuid, threads: Vec<Uuid>) -> Later<'_, Result<Positions, Refusal>> {
        Box::pin(self.read(move |database| {
            let mut positions = database.positions(profile_id);
            positions.retain(|(id, _)| threads.contains(id));
            Ok((database.head(StreamId::User(profile_id)), positions))
        }))
    }

    fn snapshot(&self, actor: Uuid, stream: StreamId) -> Later<'_, Result<Snapshot, Refusal>> {
        Box::pin(self.read(move |database| match stream {
            StreamId::Thread(id) => {
                let gone = || Refusal::new(ErrorCode::NotFound, "no member");
                let (frame, seq) = database.thread_snapshot(actor, id).ok_or_else(gone)?;
                Ok(Snapshot::Thread { frame, seq })
            }
            StreamId::User(id) => {
                let positions = database.positions(id);
                Ok(Snapshot::User(Box::new(UserSnapshot {
                    seq: database.head(stream),
                    threads: positions.iter().map(|(id, position)| row(*id, position.head)).collect(),
                    positions,
                    next: None,
                    inbox: serde_json::Value::Null,
                    settings: serde_json::Value::Null,
                })))
            }
        }))
    }

    fn cursor(&self, _: &ThreadRow) -> String {
        String::new()
    }
}

fn row(id: Uuid, seq: u64) -> ThreadRow {
    ThreadRow {
        id,
        kind: ThreadType::Group,
        name: None,
        peer: None,
        role: ThreadRole::Member,
        can_send: true,
        is_archived: false,
        member_count: 0,
        seq: seq as i64,
        no: 0,
        last_read_no: 0,
        read_rev: 0,
        unread: 0,
        mentions: 0,
        muted_until: None,
        last_message_at: None,
        description: None,
        avatar: None,
        is_muted: false,
        house_id: None,
        created_at: Timestamp::from_unix_ms(0),
    }
}
