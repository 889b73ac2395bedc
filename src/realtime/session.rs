//! The state of one socket, kept small: an idle session owns this struct and its list of streams, nothing else.
//!
//! What an active one needs (a half-read message, commands in work, streams behind) is boxed and freed after use.

use std::collections::{HashMap, VecDeque};
use std::io;

use bytes::Bytes;
use uuid::Uuid;

use super::backlog::{Backlog, Behind};
use super::inbox::ResumeAnswer;
use super::outbox::{Flush, Outbox, REPLY_BYTES};
use super::reads::Reads;
use super::socket::Socket;
use super::{CommandName, Credential};
use crate::limits::AddressGuard;
use crate::protocol::types::SendBody;
use crate::telemetry::metrics;
use crate::updates::StreamId;

/// Commands of one socket in work; above it the server stops reading from the socket.
pub const COMMANDS_IN_WORK: u16 = 64;
/// Bytes of commands that wait for their turn; above it the server stops reading from the socket.
pub const WAITING_BYTES: usize = 16 << 10;
/// Bytes a second that a socket must take while more waits for it, over the time of `HAUS_SLOW_CLOSE_MS`; one that takes
/// less is closed (4013). A tenth of what a phone on a poor link takes.
pub const SLOWEST_PACE: u64 = 2 << 10;
/// Malformed frames a socket may send in a minute; the next closes it (4400).
pub const OFFENCES_A_MINUTE: u8 = 10;
/// Pings, pongs and other frames that are no commands, in ten seconds; above it the socket is closed (4029).
pub const CONTROLS_PER_10S: u16 = 200;
/// Commands other than sends, in ten seconds; above it they are `rate_limited`.
pub const COMMANDS_PER_10S: u16 = 300;
/// `auth` on a live socket, in ten seconds; above it they are `rate_limited`.
pub const REFRESHES_PER_10S: u16 = 20;
/// Frames of any kind in ten seconds, those of a batch one by one, beside twice the sends that a person may make; above it
/// the socket is closed (4029).
pub const FRAMES_PER_10S: u32 = 2_000;
/// Threads one socket may have open.
pub const OPEN_THREADS: usize = 16;

/// No local stream.
pub const NOWHERE: u32 = u32::MAX;

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connected; must authenticate before `deadline_ms`.
    New,
    /// `auth` is being answered.
    Authenticating,
    Live,
    /// The close frame is on its way; dropped at `deadline_ms` at the latest.
    Closing,
}

/// One socket. Times are milliseconds on the worker's clock unless they say unix.
pub struct Session {
    pub socket: Socket,
    pub generation: u32,
    pub phase: Phase,
    /// In the worker's list of sockets to flush.
    pub dirty: bool,
    /// Reading stopped until something finishes; unread input waits in `partial` and in the kernel.
    pub paused: bool,
    /// In the worker's list of sockets to read.
    pub readable: bool,
    /// The peer has sent its last byte: the socket is read to its end.
    pub ended: bool,
    /// A refresh of the token is being answered.
    pub refreshing: bool,
    /// It stands in the registry and is to be removed from there.
    pub registered: bool,
    pub expiring_told: bool,
    /// `lag` was sent; until the session has caught up and all of it is with the kernel.
    pub lag_told: bool,
    /// Pings without an answer.
    pub unanswered: u8,
    pub offences: u8,
    pub controls: u16,
    pub commands: u16,
    pub refreshes: u16,
    pub frames: u32,
    pub rotation: u16,
    pub in_work: u16,
    /// Bytes of commands that wait for their turn.
    pub waiting_bytes: u32,
    pub profile_id: Uuid,
    pub session_id: Uuid,
    pub expires_at_unix_ms: i64,
    pub deadline_ms: u64,
    pub next_heartbeat_ms: u64,
    /// Since when what the socket takes is counted; 0 while nothing waits for it.
    pub blocked_since_ms: u64,
    /// Bytes taken since then.
    pub taken: u32,
    pub offences_since_ms: u64,
    pub window_since_ms: u64,
    /// The update of the user stream that last took this session into a thread.
    pub entered_at: u64,
    /// Local number of the user stream.
    pub user: u32,
    /// Local numbers of the threads this session is live in, ascending.
    pub threads: Vec<u32>,
    pub outbox: Outbox,
    /// Input that is no whole frame yet.
    pub partial: Vec<u8>,
    /// A message in several frames, so far.
    pub fragments: Option<Box<Vec<u8>>>,
    pub catch_up: Option<Box<CatchUp>>,
    /// Positions of the snapshots this socket was sent: it is sent nothing older.
    pub snapshots: Option<Box<HashMap<StreamId, u64>>>,
    /// Threads whose end of a stay came ahead of the user stream, and where; until that has told of it.
    pub left: Option<Box<HashMap<Uuid, u64>>>,
    pub work: Option<Box<HashMap<Uuid, ThreadWork>>>,
    pub reads: Option<Box<Reads>>,
    pub open: Option<Box<Vec<Uuid>>>,
    pub credential: Option<Box<Credential>>,
    /// The answer to `auth` that is being made.
    pub auth_task: Option<tokio::task::AbortHandle>,
    /// Counts this socket for its address as long as it lives.
    pub guard: AddressGuard,
}

/// Commands of one session on one thread take effect in the order received.
#[derive(Default)]
pub struct ThreadWork {
    /// Sends in the batcher; these keep their order among themselves.
    pub sends: u32,
    /// Another command is in work.
    pub busy: bool,
    pub waiting: VecDeque<Pending>,
}

/// A command that waits for its turn.
pub enum Pending {
    Send { id: Option<u64>, body: Box<SendBody> },
    Other { id: Option<u64>, name: CommandName, d: String },
}

impl Pending {
    /// What it holds, bytes.
    pub fn bytes(&self) -> usize {
        /// The parts of fixed size.
        const FIXED: usize = 256;
        FIXED
            + match self {
                Self::Send { body, .. } => {
                    let texts = [&body.content, &body.media_url].into_iter().flatten();
                    texts.map(String::len).sum::<usize>() + body.mentions.len() * size_of::<Uuid>()
                }
                Self::Other { d, .. } => d.len(),
            }
    }
}

/// Streams of one session that are behind and come from the log, one read at a time.
#[derive(Default)]
pub struct CatchUp {
    pub backlog: Backlog,
    /// What a page or a snapshot was asked for.
    pub reading: Option<Behind>,
    /// It has had its part of the worker's turn; the worker has it in its list for the next.
    pub yielded: bool,
    /// No read before this time (after a failed one).
    pub retry_at_ms: u64,
    /// A `resumed` that is owed, and the bytes sent on its account.
    pub resume: Option<ResumeAnswer>,
    pub resume_bytes: usize,
}

/// Counted as long as it lives, however it ends.
impl Drop for Session {
    fn drop(&mut self) {
        self.end_lag();
        metrics().sockets.dec();
    }
}

impl Session {
    pub fn new(
        socket: Socket,
        generation: u32,
        guard: AddressGuard,
        credential: Option<Credential>,
        deadline_ms: u64,
    ) -> Self {
        metrics().sockets.inc();
        Self {
            socket,
            generation,
            phase: Phase::New,
            dirty: false,
            paused: false,
            readable: false,
            ended: false,
            refreshing: false,
            registered: false,
            expiring_told: false,
            lag_told: false,
            unanswered: 0,
            offences: 0,
            controls: 0,
            commands: 0,
            refreshes: 0,
            frames: 0,
            rotation: 0,
            in_work: 0,
            waiting_bytes: 0,
            profile_id: Uuid::nil(),
            session_id: Uuid::nil(),
            expires_at_unix_ms: i64::MAX,
            deadline_ms,
            next_heartbeat_ms: u64::MAX,
            blocked_since_ms: 0,
            taken: 0,
            offences_since_ms: 0,
            window_since_ms: 0,
            entered_at: 0,
            user: NOWHERE,
            threads: Vec::new(),
            outbox: Outbox::default(),
            partial: Vec::new(),
            fragments: None,
            catch_up: None,
            snapshots: None,
            left: None,
            work: None,
            reads: None,
            open: None,
            credential: credential.map(Box::new),
            auth_task: None,
            guard,
        }
    }

    /// Queues a frame that is never dropped (replies, notices).
    pub fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() && self.phase != Phase::Closing {
            self.outbox.push(frame);
        }
    }

    /// Writes what waits, as far as the socket takes it, and notes its pace.
    pub fn write(&mut self, writes: &mut u64, now_ms: u64) -> io::Result<Flush> {
        let before = self.outbox.bytes();
        let flush = self.outbox.flush(&mut self.socket, writes)?;
        match flush {
            Flush::Empty => self.blocked_since_ms = 0,
            Flush::Blocked if self.blocked_since_ms == 0 => {
                self.blocked_since_ms = now_ms.max(1);
                self.taken = 0;
            }
            Flush::Blocked => self.taken = self.taken.saturating_add((before - self.outbox.bytes()) as u32),
        }
        Ok(flush)
    }

    /// Writes before this socket's turn. What fails here fails again in its turn, which is still to come.
    pub fn write_ahead(&mut self, now_ms: u64) {
        let mut writes = 0;
        let _ = self.write(&mut writes, now_ms);
        metrics().socket_writes.inc_by(writes);
    }

    /// Whether an update of `len` bytes may wait here. Where it does not fit, the socket first takes what it can: who reads
    /// is not put behind for what arrived within one turn of the worker. The session's turn must be still to come.
    pub fn makes_room(&mut self, len: usize, now_ms: u64) -> bool {
        if !self.outbox.has_room(len) {
            self.write_ahead(now_ms);
        }
        self.outbox.has_room(len)
    }

    /// Whether the pace is to be judged at `now_ms`, `close_ms` after its count began.
    pub fn is_pace_due(&self, now_ms: u64, close_ms: u64) -> bool {
        self.blocked_since_ms != 0 && now_ms - self.blocked_since_ms >= close_ms
    }

    /// Judges the pace of the last `close_ms` and begins to count anew; false when the socket took too little.
    pub fn keeps_pace(&mut self, now_ms: u64, close_ms: u64) -> bool {
        let kept = u64::from(std::mem::take(&mut self.taken)) >= (SLOWEST_PACE * close_ms / 1000).max(1);
        self.blocked_since_ms = now_ms.max(1);
        kept
    }

    /// Whether no more commands are taken for now: too many in work, too much waiting to be done or to be sent.
    pub fn is_full(&self) -> bool {
        self.in_work >= COMMANDS_IN_WORK
            || self.outbox.reply_bytes() > REPLY_BYTES
            || self.waiting_bytes as usize > WAITING_BYTES
    }

    /// Nothing is left to catch up with: the lag is over once all of it is with the kernel.
    pub fn note_caught_up(&mut self) {
        if self.outbox.is_empty() {
            self.end_lag();
        }
    }

    pub fn end_lag(&mut self) {
        if std::mem::take(&mut self.lag_told) {
            metrics().lagging_sessions.dec();
        }
    }

    /// A stream that waits to be caught up.
    pub fn behind_in(&self, stream: StreamId) -> Option<&Behind> {
        let catch_up = self.catch_up.as_ref()?;
        let reading = catch_up.reading.as_ref().filter(|behind| behind.plan.stream == stream);
        reading.or_else(|| catch_up.backlog.get(stream))
    }

    pub fn behind_in_mut(&mut self, stream: StreamId) -> Option<&mut Behind> {
        let catch_up = self.catch_up.as_mut()?;
        let reading = catch_up.reading.as_mut().filter(|behind| behind.plan.stream == stream);
        reading.or_else(|| catch_up.backlog.get_mut(stream))
    }

    /// Whether a stream waits to be caught up.
    pub fn is_behind_in(&self, stream: StreamId) -> bool {
        self.behind_in(stream).is_some()
    }

    /// Notes that the stay in a thread ended at `seq`; the user stream has yet to tell of it.
    pub fn note_left(&mut self, thread: Uuid, seq: u64) {
        self.left.get_or_insert_default().insert(thread, seq);
    }

    /// The user stream has told that the stay in a thread ended at `seq`.
    pub fn note_removed(&mut self, thread: Uuid, seq: u64) {
        self.keep_left(|left, at| left != thread || at > seq);
    }

    /// Whether the stay in a thread that began at `join_seq` is over for this socket.
    pub fn has_left(&self, thread: Uuid, join_seq: u64) -> bool {
        let left = self.left.as_ref().and_then(|left| left.get(&thread));
        left.is_some_and(|seq| *seq >= join_seq)
    }

    /// Keeps the ends of stays, by thread and `seq`, that the user stream has yet to tell of.
    pub fn keep_left(&mut self, keep: impl Fn(Uuid, u64) -> bool) {
        if let Some(left) = &mut self.left {
            left.retain(|thread, seq| keep(*thread, *seq));
            if left.is_empty() {
                self.left = None;
            }
        }
    }

    /// Whether this socket was sent a snapshot of a stream that is newer than `since`.
    pub fn is_older(&self, stream: StreamId, since: u64) -> bool {
        self.snapshots.as_ref().and_then(|all| all.get(&stream)).is_some_and(|seq| since < *seq)
    }

    pub fn note_snapshot(&mut self, stream: StreamId, seq: u64) {
        self.snapshots.get_or_insert_default().insert(stream, seq);
    }

    /// What is held of a thread that was left.
    pub fn forget_thread(&mut self, thread: Uuid) {
        if let Some(open) = &mut self.open {
            open.retain(|open| *open != thread);
        }
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.remove(&StreamId::Thread(thread));
        }
    }

    /// One more malformed frame at `now_ms`; true when it was one too many.
    pub fn offend(&mut self, now_ms: u64) -> bool {
        if now_ms - self.offences_since_ms > 60_000 {
            self.offences_since_ms = now_ms;
            self.offences = 0;
        }
        self.offences = self.offences.saturating_add(1);
        self.offences > OFFENCES_A_MINUTE
    }

    /// Starts a new window of ten seconds where the last one is over.
    pub fn roll_window(&mut self, now_ms: u64) {
        if now_ms - self.window_since_ms > 10_000 {
            self.window_since_ms = now_ms;
            self.controls = 0;
            self.commands = 0;
            self.refreshes = 0;
            self.frames = 0;
        }
    }
}
