//! A client: one device that keeps the client rule of the protocol, repeats what has no answer on its next socket, reads
//! from history what a snapshot left out, and records all it sees. It never uses the heads of `hb`, so that a stall shows.

mod incoming;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::database::Body;
use super::node::Life;
use super::pipe::ClientEnd;
use super::rng::Rng;
use super::world::World;
use crate::checker::record::{Positions, Record, StreamId};
use crate::mirror::Mirror;

/// A gap may close by itself for so long before the client asks.
const GAP_GRACE_MS: u64 = 250;
/// An unanswered command makes the client try another node.
const ANSWER_MS: u64 = 6_000;
const RETRY_MS: u64 = 200;
const PAGE: usize = 100;
/// Above every number of a message.
const NEWEST: u64 = 1 << 53;

/// What the director says, and sees.
#[derive(Default)]
pub struct Desk {
    /// Ends the socket.
    pub cut: bool,
    /// Nothing is read before this time.
    pub deaf_until_ms: u64,
    pub may_send: bool,
    pub is_live: bool,
    pub unanswered: usize,
    pub fills: usize,
    pub mirror: Mirror,
    pub epoch: String,
}

pub struct Handle {
    pub client: u32,
    pub profile: Uuid,
    desk: Mutex<Desk>,
    woken: Arc<Notify>,
}

impl Handle {
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tell(&self, order: impl FnOnce(&mut Desk)) {
        order(&mut self.desk());
        self.woken.notify_one();
    }
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Between two sends; 0: it only listens.
    pub sends_every_ms: u64,
    /// Bytes that may lie on the way to it.
    pub room: usize,
    /// Threads it tries to write to.
    pub targets: Vec<Uuid>,
}

#[derive(Debug, Clone)]
struct Fill {
    thread: Uuid,
    /// Messages above this `seq`.
    down_to: u64,
    before: Option<u64>,
}

enum Command {
    Auth { resume: Positions },
    Send(Body),
    Sync,
    Fill { fill: Fill, read: u64 },
}

struct Client {
    handle: Arc<Handle>,
    world: Arc<World>,
    habits: Habits,
    rng: Rng,
    mirror: Mirror,
    epoch: String,
    node: String,
    input: Vec<u8>,
    next_id: u64,
    pending: BTreeMap<u64, (Command, u64)>,
    /// Unanswered sends of the last socket, in their order.
    ready: VecDeque<Body>,
    /// Not before so many milliseconds.
    later: VecDeque<(u64, Body)>,
    fills: VecDeque<Fill>,
    gap_since: Option<u64>,
    is_authenticated: bool,
    auth_at_ms: Option<u64>,
    catching_up: u32,
    next_send_ms: u64,
}

/// Starts a client that holds `positions` of `epoch`.
pub fn start(
    world: &Arc<World>,
    (client, profile): (u32, Uuid),
    seed: u64,
    habits: Habits,
    positions: &Positions,
    epoch: &str,
) -> Arc<Handle> {
    world.record(Record::Client { client, profile });
    let handle = Arc::new(Handle { client, profile, desk: Mutex::default(), woken: Arc::default() });
    let mut mirror = Mirror::default();
    positions.iter().for_each(|(stream, seq)| mirror.listed(*stream, *seq));
    let actor = Client {
        handle: handle.clone(),
        world: world.clone(),
        next_send_ms: world.now_ms() + habits.sends_every_ms,
        habits,
        rng: Rng::new(seed, 100 + u64::from(client)),
        mirror,
        epoch: epoch.to_owned(),
        node: String::new(),
        input: Vec::new(),
        next_id: 1,
        pending: BTreeMap::new(),
        ready: VecDeque::new(),
        later: VecDeque::new(),
        fills: VecDeque::new(),
        gap_since: None,
        is_authenticated: false,
        auth_at_ms: None,
        catching_up: 0,
    };
    tokio::spawn(actor.run());
    handle
}

impl Client {
    async fn run(mut self) {
        loop {
            let nodes = self.world.nodes();
            let node = &nodes[self.rng.below(nodes.len() as u64) as usize];
            if node.life() != Life::Dead
                && let Some(end) = node.connect(self.habits.room, self.handle.woken.clone())
            {
                self.node = format!("n{}", node.number + 1);
                self.world.record(Record::Open { client: self.handle.client, node: self.node.clone() });
                self.session(&end).await;
                self.closed();
            }
            drop(nodes);
            tokio::time::sleep(Duration::from_millis(self.rng.between(1, 200))).await;
        }
    }

    async fn session(&mut self, end: &ClientEnd) {
        let is_rough = self.world.is_rough.load(Ordering::Relaxed);
        // Some are gone before they are answered.
        let gone_at_ms = (is_rough && self.rng.chance(5)).then(|| self.world.now_ms() + self.rng.below(6));
        self.auth_at_ms = Some(0);
        loop {
            let now_ms = self.world.now_ms();
            let deaf_until_ms = {
                let mut desk = self.handle.desk();
                if std::mem::take(&mut desk.cut) || gone_at_ms.is_some_and(|at| at <= now_ms) {
                    return;
                }
                desk.deaf_until_ms
            };
            if now_ms < deaf_until_ms {
                self.wait(deaf_until_ms - now_ms).await;
                continue;
            }
            let is_over = end.take(&mut self.input);
            if !self.take_frames(end) || is_over || !self.act(now_ms, end) {
                return;
            }
            let wait_ms = self.next_due_ms(now_ms).saturating_sub(now_ms).clamp(1, 5_000);
            let wait_ms = gone_at_ms.map_or(wait_ms, |at| wait_ms.min(at.saturating_sub(now_ms).max(1)));
            self.wait(wait_ms).await;
        }
    }

    async fn wait(&self, ms: u64) {
        let _ = tokio::time::timeout(Duration::from_millis(ms), self.handle.woken.notified()).await;
    }

    fn closed(&mut self) {
        self.world.record(Record::Close { client: self.handle.client });
        for (_, (command, _)) in std::mem::take(&mut self.pending).into_iter().rev() {
            match command {
                Command::Send(body) => self.ready.push_front(body),
                Command::Fill { fill, .. } => self.fills.push_front(fill),
                Command::Auth { .. } | Command::Sync => {}
            }
        }
        self.mirror.session_ended();
        self.input.clear();
        self.is_authenticated = false;
        self.catching_up = 0;
        self.gap_since = None;
        self.show();
    }

    /// Whole frames at the front of the input; `false` at a close frame or what is no frame.
    fn take_frames(&mut self, end: &ClientEnd) -> bool {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let [first, second, rest @ ..] = &input[at..] {
            let (header, length) = match (*second, rest) {
                (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                (127, [a, b, c, d, e, f, g, h, ..]) => {
                    (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
                }
                (126 | 127, _) => break,
                (short, _) => (2, usize::from(short)),
            };
            let Some(payload) = input.get(at + header..at + header + length) else { break };
            match first {
                0x81 => self.on_text(payload),
                0x89 => write_frame(end, 0x8A, payload),
                _ => return false,
            }
            at += header + length;
        }
        self.input = input[at..].to_vec();
        true
    }

    /// What is due now; `false` gives the socket up.
    fn act(&mut self, now_ms: u64, end: &ClientEnd) -> bool {
        if self.pending.values().any(|(_, since)| now_ms > since + ANSWER_MS) {
            return false;
        }
        if !self.is_authenticated {
            if self.auth_at_ms.is_some_and(|at| at <= now_ms) {
                self.auth_at_ms = None;
                self.auth(now_ms, end);
            }
        } else {
            self.ask_for_gaps(now_ms, end);
            self.read_history(now_ms, end);
            self.send_due(now_ms, end);
        }
        self.show();
        true
    }

    fn next_due_ms(&self, now_ms: u64) -> u64 {
        let gap = self.gap_since.map(|since| since + GAP_GRACE_MS + 1);
        let later = self.later.front().map(|(at, _)| *at);
        let sends = self.habits.sends_every_ms > 0 && self.is_authenticated && self.handle.desk().may_send;
        let send = sends.then_some(self.next_send_ms);
        let pending = self.pending.values().map(|(_, since)| since + ANSWER_MS + 1).min();
        let fills = (!self.fills.is_empty() && self.is_authenticated).then_some(now_ms + 20);
        [gap, later, send, pending, fills, self.auth_at_ms].into_iter().flatten().min().unwrap_or(now_ms + 5_000)
    }

    fn command(&mut self, now_ms: u64, end: &ClientEnd, name: &str, d: &str, command: Command) {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, (command, now_ms));
        write_frame(end, 0x81, format!(r#"{{"id":{id},"cmd":"{name}","d":{d}}}"#).as_bytes());
    }

    fn auth(&mut self, now_ms: u64, end: &ClientEnd) {
        let resume = self.mirror.positions().clone();
        let token = self.handle.profile;
        let d = match resume.is_empty() {
            true => format!(r#"{{"token":"{token}"}}"#),
            false => {
                let streams = serde_json::to_string(&resume).unwrap_or_default();
                format!(r#"{{"token":"{token}","resume":{{"epoch":"{}","streams":{streams}}}}}"#, self.epoch)
            }
        };
        self.command(now_ms, end, "auth", &d, Command::Auth { resume });
    }

    fn ask_for_gaps(&mut self, now_ms: u64, end: &ClientEnd) {
        let mut streams = self.mirror.gaps();
        if streams.is_empty() {
            self.gap_since = None;
            // Nothing forbids to ask for what one has.
            if self.catching_up > 0 || !self.world.is_rough.load(Ordering::Relaxed) || self.rng.below(300) > 0 {
                return;
            }
            for (stream, at) in self.mirror.positions().clone() {
                // Who asks again for the user stream asks for every stay that began and ended there.
                let floor = if let StreamId::Thread(id) = stream { self.mirror.floor(&id) } else { at };
                let back = if self.rng.chance(20) { u64::MAX } else { self.rng.below(30) };
                if self.rng.chance(50) {
                    streams.insert(stream, at.saturating_sub(back).max(floor));
                }
            }
            if streams.is_empty() {
                return;
            }
        } else if self.catching_up > 0 || now_ms <= *self.gap_since.get_or_insert(now_ms) + GAP_GRACE_MS {
            return;
        }
        self.world.record(Record::Sync { client: self.handle.client, streams: streams.clone() });
        self.catching_up += 1;
        let d = format!(r#"{{"streams":{}}}"#, serde_json::to_string(&streams).unwrap_or_default());
        self.command(now_ms, end, "sync", &d, Command::Sync);
    }

    fn read_history(&mut self, now_ms: u64, end: &ClientEnd) {
        if self.pending.values().any(|(command, _)| matches!(command, Command::Fill { .. })) {
            return;
        }
        let Some(fill) = self.fills.pop_front() else { return };
        let (client, thread, read) = (self.handle.client, fill.thread, self.next_id);
        self.world.record(Record::Read { client, thread, read });
        let before = fill.before.unwrap_or(NEWEST);
        let d = format!(r#"{{"threadId":"{thread}","before":{before},"limit":{PAGE}}}"#);
        self.command(now_ms, end, "history", &d, Command::Fill { fill, read });
    }

    fn send_due(&mut self, now_ms: u64, end: &ClientEnd) {
        while self.later.front().is_some_and(|(at, _)| *at <= now_ms) {
            self.ready.extend(self.later.pop_front().map(|(_, body)| body));
        }
        let every_ms = self.habits.sends_every_ms;
        if every_ms > 0 && self.handle.desk().may_send && now_ms >= self.next_send_ms {
            self.next_send_ms = now_ms + self.rng.between(every_ms / 2, every_ms * 3 / 2);
            let at = self.rng.below(self.habits.targets.len() as u64) as usize;
            let nonce = Uuid::from_u64_pair(self.rng.next_u64(), self.rng.next_u64());
            let padding = self.rng.below(200) as u16;
            self.ready.push_back(Body {
                thread: self.habits.targets[at],
                nonce,
                hash: self.rng.below(1 << 50),
                padding,
            });
            if self.rng.chance(10) {
                let thread = self.habits.targets[at];
                self.fills.push_back(Fill { thread, down_to: u64::MAX - 1, before: None });
            }
        }
        while let Some(body) = self.ready.pop_front() {
            let Body { thread, nonce, hash, padding } = body;
            let (client, node) = (self.handle.client, self.node.clone());
            self.world.record(Record::Send { client, thread, nonce, hash, node });
            let d = format!(r#"{{"threadId":"{thread}","nonce":"{nonce}","content":"{hash} {padding}"}}"#);
            self.command(now_ms, end, "message.send", &d, Command::Send(body));
        }
    }

    /// Shows the director where it stands.
    fn show(&self) {
        let sends = self.pending.values().filter(|(command, _)| matches!(command, Command::Send(_))).count();
        let filling = self.pending.values().filter(|(command, _)| matches!(command, Command::Fill { .. })).count();
        let mut desk = self.handle.desk();
        desk.is_live = self.is_authenticated && self.catching_up == 0 && self.gap_since.is_none();
        desk.unanswered = sends + self.ready.len() + self.later.len();
        desk.fills = self.fills.len() + filling;
        if !desk.may_send {
            desk.mirror = self.mirror.clone();
            desk.epoch.clone_from(&self.epoch);
        }
    }
}

/// Writes one masked frame; the mask is zero.
fn write_frame(end: &ClientEnd, first: u8, payload: &[u8]) {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=65535 => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    end.write(&frame);
}
