//! A recording client without I/O: text in, records and text out. It keeps the client rule of the protocol, repeats
//! unanswered sends with the same nonce on the next socket, and reads from history what a snapshot left out.
//!
//! It is stricter than an application: it never uses `hb` heads to catch up, so that a stall shows.

mod replies;
mod sending;

pub use sending::BATCH_FRAMES;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::checker::record::{Positions, Record, StreamId};
use crate::mirror::Mirror;
use crate::plan::Workload;
use crate::recorder::{Recorder, body_hash};
use crate::rig::rng::Rng;
use crate::wire::{Created, Frame, Page, Resumed, ThreadAdded, ThreadRemoved, ThreadRow, UserSnapshot, frames};

/// A gap may close by itself for so long before the client asks.
const GAP_GRACE: Duration = Duration::from_millis(250);
/// An unanswered command on a live socket makes the client try another node.
const ANSWER_DEADLINE: Duration = Duration::from_secs(6);
/// Pause before a retryable refusal is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// One message body, known by its nonce and hash.
#[derive(Debug, Clone)]
pub struct Body {
    pub thread: Uuid,
    pub nonce: Uuid,
    pub content: String,
    pub hash: u64,
}

/// Part of a thread's history still to be read: messages before number `before`, down to `seq` `down_to`.
#[derive(Debug, Clone)]
struct Fill {
    thread: Uuid,
    down_to: u64,
    before: Option<u64>,
}

#[derive(Debug)]
enum Command {
    Auth { resume: Positions },
    Send(Body),
    Sync,
    Fill { fill: Fill, read: u64 },
}

/// What the driver may see of a client.
#[derive(Debug, Default, Clone)]
pub struct Status {
    /// Live, and no catch-up under way.
    pub is_live: bool,
    /// Sends without an answer, waiting ones included.
    pub unanswered: usize,
    /// Parts of history still to be read.
    pub fills: usize,
    /// Positions, and the epoch they belong to.
    pub mirror: Mirror,
    pub epoch: String,
}

/// Who the client is, and how it behaves.
#[derive(Debug, Clone)]
pub struct Identity {
    pub client: u32,
    pub profile: Uuid,
    pub token: String,
    /// Threads it may send to while a member.
    pub targets: Arc<[Uuid]>,
    pub workload: Workload,
    /// A client that only listens and resumes.
    pub is_silent: bool,
}

/// The state of one recording client over all its sockets.
#[derive(Debug)]
pub struct Member {
    pub identity: Identity,
    recorder: Arc<Recorder>,
    status: Arc<Mutex<Status>>,
    mirror: Mirror,
    epoch: String,
    rng: Rng,
    node: String,
    next_id: u64,
    pending: HashMap<u64, (Command, Instant)>,
    ready: VecDeque<Body>,
    later: VecDeque<(Instant, Body)>,
    fills: VecDeque<Fill>,
    gap_since: Option<Instant>,
    is_authenticated: bool,
    catching_up: u32,
    auth_at: Option<Instant>,
    budget: f64,
    counter: u64,
}

impl Member {
    /// A client that never connected. `resume_from` are positions it claims to hold, of `epoch`.
    pub fn new(identity: Identity, recorder: Arc<Recorder>, seed: u64, resume_from: &Positions, epoch: &str) -> Self {
        let mut mirror = Mirror::default();
        for (stream, seq) in resume_from {
            mirror.listed(*stream, *seq);
        }
        recorder.write(&Record::Client { client: identity.client, profile: identity.profile });
        Self {
            rng: Rng::new(seed, 1000 + u64::from(identity.client)),
            identity,
            recorder,
            status: Arc::default(),
            mirror,
            epoch: epoch.to_owned(),
            node: String::new(),
            next_id: 1,
            pending: HashMap::new(),
            ready: VecDeque::new(),
            later: VecDeque::new(),
            fills: VecDeque::new(),
            gap_since: None,
            is_authenticated: false,
            catching_up: 0,
            auth_at: None,
            budget: 0.0,
            counter: 0,
        }
    }

    /// What the driver looks at.
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// A socket to `node` opened.
    pub fn opened(&mut self, node: &str) {
        node.clone_into(&mut self.node);
        self.recorder.write(&Record::Open { client: self.identity.client, node: node.to_owned() });
        self.auth_at = Some(Instant::now());
    }

    /// The socket ended: what had no answer is repeated on the next.
    pub fn closed(&mut self) {
        self.recorder.write(&Record::Close { client: self.identity.client });
        let mut unanswered: Vec<(u64, Command)> =
            self.pending.drain().map(|(id, (command, _))| (id, command)).collect();
        unanswered.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
        for (_, command) in unanswered {
            match command {
                Command::Send(body) => self.ready.push_front(body),
                Command::Fill { fill, .. } => self.fills.push_front(fill),
                Command::Auth { .. } | Command::Sync => {}
            }
        }
        self.mirror.session_ended();
        self.is_authenticated = false;
        self.catching_up = 0;
        self.gap_since = None;
        self.publish_status();
    }

    /// Takes in one websocket message. Returns `false` when it is not what the protocol says.
    pub fn on_text(&mut self, text: &str) -> bool {
        let Ok(batch) = frames(text) else { return false };
        for frame in batch {
            match (frame.up, frame.id) {
                (Some(up), _) => self.on_update(up, &frame),
                (None, Some(id)) => self.on_reply(id, &frame),
                (None, None) => {}
            }
        }
        true
    }

    /// Time passed: what to write now. `may_send`: new messages may be made. `None` gives the socket up.
    pub fn on_tick(&mut self, elapsed: Duration, may_send: bool) -> Option<Vec<Value>> {
        let now = Instant::now();
        if self.pending.values().any(|(_, since)| now.duration_since(*since) > ANSWER_DEADLINE) {
            return None;
        }
        let mut out = Vec::new();
        if !self.is_authenticated {
            if self.auth_at.is_some_and(|at| at <= now) {
                self.auth_at = None;
                out.push(self.auth(now));
            }
        } else {
            self.fill_gaps(now, &mut out);
            self.read_history(now, &mut out);
            self.send_due(now, elapsed, may_send, &mut out);
        }
        self.publish_status();
        Some(out)
    }

    fn command(&mut self, now: Instant, name: &str, d: &Value, command: Command) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, (command, now));
        json!({"id": id, "cmd": name, "d": d})
    }

    fn auth(&mut self, now: Instant) -> Value {
        let resume = self.mirror.positions().clone();
        let mut d = json!({"token": self.identity.token, "device": {"id": Uuid::from_u128(u128::from(self.identity.client)), "kind": "chaos"}, "caps": []});
        if !resume.is_empty() {
            d["resume"] = json!({"epoch": self.epoch, "streams": resume});
        }
        self.command(now, "auth", &d, Command::Auth { resume })
    }

    fn fill_gaps(&mut self, now: Instant, out: &mut Vec<Value>) {
        let gaps = self.mirror.gaps();
        if gaps.is_empty() {
            self.gap_since = None;
        } else if self.catching_up == 0 && now.duration_since(*self.gap_since.get_or_insert(now)) > GAP_GRACE {
            self.recorder.write(&Record::Sync { client: self.identity.client, streams: gaps.clone() });
            self.catching_up += 1;
            out.push(self.command(now, "sync", &json!({"streams": gaps}), Command::Sync));
        }
    }

    fn on_update(&mut self, up: &str, frame: &Frame<'_>) {
        let client = self.identity.client;
        let d = frame.d.map_or("null", RawValue::get);
        let stream = frame.s.and_then(StreamId::parse);
        if up == "resumed" {
            if let Ok(resumed) = serde_json::from_str::<Resumed>(d) {
                self.on_resumed(resumed);
            }
            return;
        }
        let (Some(stream), Some(seq)) = (stream, frame.seq) else { return };
        if up == "snapshot" {
            self.recorder.write(&Record::Snapshot { client, stream, seq });
            let held = self.mirror.at(stream);
            self.mirror.go_on_from(stream, seq);
            if let (StreamId::User, Ok(snapshot)) = (stream, serde_json::from_str::<UserSnapshot>(d)) {
                snapshot.threads.iter().for_each(|row| self.on_added(row));
            }
            if let (StreamId::Thread(thread), Ok(page)) = (stream, serde_json::from_str::<Page<'_>>(d)) {
                self.took_page(thread, self.recorder.next_read(), &page, held.unwrap_or(seq));
            }
            return;
        }
        let created = if up == "message.created" { serde_json::from_str::<Created<'_>>(d).ok() } else { None };
        let nonce = created.as_ref().and_then(|created| created.message.nonce);
        let hash = created.as_ref().map_or(0, |created| created.message.hash());
        let (kind, t_us) = (up.to_owned(), self.recorder.t_us());
        self.recorder.write(&Record::Deliver { client, stream, seq, kind, nonce, hash, t_us });
        self.mirror.deliver(stream, seq);
        if let Ok(added) = serde_json::from_str::<ThreadAdded>(if up == "thread.added" { d } else { "" }) {
            self.on_added(&added.thread);
        }
        if let Ok(removed) = serde_json::from_str::<ThreadRemoved>(if up == "thread.removed" { d } else { "" }) {
            let (thread, seq) = (removed.thread_id, removed.seq);
            self.recorder.write(&Record::Removed { client, thread, seq });
            if self.mirror.removed(thread, seq) {
                self.fills.retain(|fill| fill.thread != thread);
            }
        }
    }

    fn on_added(&mut self, row: &ThreadRow) {
        let (client, thread, seq) = (self.identity.client, row.id, row.seq);
        if self.mirror.added(thread, seq) {
            self.recorder.write(&Record::Added { client, thread, seq });
        }
    }

    fn on_resumed(&mut self, resumed: Resumed) {
        for (stream, head) in &resumed.streams {
            self.mirror.raise(*stream, *head);
        }
        for stream in &resumed.reset {
            if let (StreamId::Thread(thread), Some(down_to)) = (*stream, self.mirror.at(*stream)) {
                self.fills.push_back(Fill { thread, down_to, before: None });
            }
            self.mirror.forget(*stream);
        }
        for stream in &resumed.denied {
            self.mirror.forget(*stream);
        }
        self.catching_up = self.catching_up.saturating_sub(1);
        self.gap_since = None;
        let (client, streams) = (self.identity.client, resumed.streams);
        self.recorder.write(&Record::Resumed { client, streams, reset: resumed.reset, denied: resumed.denied });
    }

    fn publish_status(&self) {
        let sends = self.pending.values().filter(|(command, _)| matches!(command, Command::Send(_))).count();
        let filling = self.pending.values().filter(|(command, _)| matches!(command, Command::Fill { .. })).count();
        let status = Status {
            is_live: self.is_authenticated && self.catching_up == 0 && self.gap_since.is_none(),
            unanswered: sends + self.ready.len() + self.later.len(),
            fills: self.fills.len() + filling,
            mirror: self.mirror.clone(),
            epoch: self.epoch.clone(),
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn body(&self, thread: Uuid, nonce: Uuid, content: String) -> Body {
        let hash = body_hash(&self.identity.profile, &content);
        Body { thread, nonce, content, hash }
    }
}
