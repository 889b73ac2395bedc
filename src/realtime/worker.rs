//! A worker loop: one thread, one poller, its own sockets. Everything a socket needs happens here in turns: take what
//! arrived, handle it, and write each dirty socket once. No timer delays a write and no lock is held while writing.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::inbox::{Inbox, Kept, NewSocket, SessionAddr, ToWorker};
use super::node::Shared;
use super::outbox::Flush;
use super::session::{NOWHERE, Phase, Session};
use super::streams::Local;
use crate::protocol::{CloseCode, frame};
use crate::telemetry::metrics;
use crate::updates::StreamId;

const WAKER: Token = Token(usize::MAX);
/// Sockets flushed between looks at the inbox.
const FLUSH_STEP: usize = 32;
/// What is kept for a run goes when so many of its sockets were flushed: the commit of what comes next takes as long as
/// the rest.
const KEPT_PERCENT: u64 = 75;
/// Between looks at the clock of all sessions.
const SWEEP_MS: u64 = 100;
/// Life of a socket after its close frame was queued.
pub const LINGER_MS: u64 = 2_000;

pub(super) struct Slot {
    pub generation: u32,
    pub session: Option<Box<Session>>,
}

/// One worker.
pub struct Worker {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) slots: Vec<Slot>,
    pub(super) locals: Vec<Local>,
    pub(super) free_locals: Vec<u32>,
    pub(super) by_stream: HashMap<StreamId, u32>,
    pub(super) now_ms: u64,
    /// Sockets to flush, in the order they became dirty.
    pub(super) dirty: VecDeque<u32>,
    /// Sockets flushed since the start.
    flushed: u64,
    /// What is kept until so many were flushed.
    kept: VecDeque<(u64, Kept)>,
    pub(super) sweep_at: usize,
    /// When the bytes waiting in outboxes were last counted, and how many there were.
    pub(super) counted_ms: u64,
    pub(super) pending_bytes: i64,
    pub(super) inbox: Arc<Inbox>,
    poll: Poll,
    free: Vec<u32>,
    /// Sockets with more input at hand.
    pub(super) readable: Vec<u32>,
    pub(super) scratch: Vec<u8>,
    started: Instant,
    stopping: bool,
}

impl Worker {
    /// Makes a worker and its inbox.
    pub fn new(index: u16, shared: Arc<Shared>) -> io::Result<(Self, Arc<Inbox>)> {
        let poll = Poll::new()?;
        let inbox = Arc::new(Inbox::new(Waker::new(poll.registry(), WAKER)?));
        let worker = Self {
            index,
            shared,
            slots: Vec::new(),
            locals: Vec::new(),
            free_locals: Vec::new(),
            by_stream: HashMap::new(),
            now_ms: 0,
            dirty: VecDeque::new(),
            flushed: 0,
            kept: VecDeque::new(),
            sweep_at: 0,
            counted_ms: 0,
            pending_bytes: 0,
            inbox: inbox.clone(),
            poll,
            free: Vec::new(),
            readable: Vec::new(),
            scratch: Vec::new(),
            started: Instant::now(),
            stopping: false,
        };
        Ok((worker, inbox))
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut messages = Vec::new();
        let mut next_sweep_ms = SWEEP_MS;
        while !self.stopping {
            let mut wait = Duration::from_millis(next_sweep_ms.saturating_sub(self.now_ms).min(SWEEP_MS));
            self.inbox.going_to_sleep();
            if !self.readable.is_empty() || !self.dirty.is_empty() || !self.inbox.is_empty() {
                wait = Duration::ZERO;
            }
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "poll failed");
                std::thread::sleep(Duration::from_millis(10));
            }
            self.inbox.awake();
            self.now_ms = self.started.elapsed().as_millis() as u64;
            for slot in std::mem::take(&mut self.readable) {
                self.with(slot, |worker, slot, session| {
                    session.readable = false;
                    worker.read(slot, session);
                });
            }
            for event in &events {
                if event.token() == WAKER {
                    continue;
                }
                let slot = event.token().0 as u32;
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.with(slot, |worker, slot, session| {
                        session.ended |= event.is_read_closed();
                        worker.read(slot, session);
                    });
                }
                if event.is_writable() {
                    self.mark_dirty(slot);
                }
            }
            self.take_messages(&mut messages);
            self.flush_dirty(&mut messages);
            if self.now_ms >= next_sweep_ms {
                self.sweep();
                self.flush_dirty(&mut messages);
                next_sweep_ms = self.now_ms + SWEEP_MS;
            }
        }
    }

    fn take_messages(&mut self, messages: &mut Vec<ToWorker>) {
        if self.inbox.drain(messages) {
            self.lose_everything();
        }
        for message in messages.drain(..) {
            match message {
                ToWorker::Run(run) => {
                    self.deliver(&run);
                    // Everybody it went to is in the line of dirty sockets by now.
                    let most = self.dirty.len() as u64 * KEPT_PERCENT / 100;
                    self.kept.extend(run.kept.map(|kept| (self.flushed + most, kept)));
                }
                ToWorker::Replies(replies) => {
                    for (to, frame, thread) in replies {
                        self.reply(to, frame, Some(thread), true);
                    }
                }
                ToWorker::Reply { to, frame, thread } => self.reply(to, frame, thread, false),
                ToWorker::Answer { to, frame } => self.answer(to, frame),
                ToWorker::Socket(socket) => self.accept(*socket),
                ToWorker::Jump { stream, head } => self.jump(stream, head),
                ToWorker::Authenticated { to, access, registration, reply, user, threads, resumed } => {
                    self.on(to, |worker, slot, session| {
                        worker.authenticated(slot, session, access, registration, reply, user, threads, resumed);
                    });
                }
                ToWorker::Refreshed { to, access, reply } => self.on(to, |_, _, session| {
                    session.refreshing = false;
                    session.expires_at_unix_ms = access.expires_at_ms;
                    session.expiring_told = false;
                    session.push(reply);
                }),
                ToWorker::AuthFailed { to, id, refusal } => {
                    self.on(to, |worker, slot, session| worker.auth_failed(slot, session, id, &refusal));
                }
                ToWorker::Sync { to, reply, streams, resumed } => {
                    self.on(to, |worker, slot, session| worker.synced(slot, session, reply, streams, resumed));
                }
                ToWorker::Page { to, stream, since, result } => {
                    self.on(to, |worker, slot, session| worker.page(slot, session, stream, since, result));
                }
                ToWorker::Snapshot { to, stream, result } => {
                    self.on(to, |worker, slot, session| worker.snapshot(slot, session, stream, result));
                }
                ToWorker::Close { to, code, retry_after_ms } => {
                    self.on(to, |worker, slot, session| worker.close(slot, session, code, retry_after_ms));
                }
                ToWorker::CloseAll { code, spread_ms } => self.close_all(code, spread_ms),
                ToWorker::Stop => self.stopping = true,
            }
        }
    }

    fn accept(&mut self, new: NewSocket) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            (self.slots.len() - 1) as u32
        });
        let mut socket = TcpStream::from_std(new.stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, Token(slot as usize), interest) {
            tracing::warn!(%error, "a socket could not be registered");
            self.free.push(slot);
            return;
        }
        let generation = self.slots[slot as usize].generation;
        let deadline_ms = self.now_ms + self.shared.options.auth_timeout_ms;
        let mut session = Box::new(Session::new(socket, generation, new.guard, new.credential, deadline_ms));
        session.partial = new.early;
        session.push(self.shared.hello());
        // What came behind the request, and what came before the registration.
        self.mark_readable(slot, &mut session);
        self.slots[slot as usize].session = Some(session);
        metrics().sockets.inc();
        self.mark_dirty(slot);
    }

    /// Runs `act` on a session taken out of its slot, and puts it back unless it is over.
    pub(super) fn with(&mut self, slot: u32, act: impl FnOnce(&mut Self, u32, &mut Session)) {
        let Some(mut session) = self.slots.get_mut(slot as usize).and_then(|entry| entry.session.take()) else {
            return;
        };
        act(self, slot, &mut session);
        if session.phase == Phase::Closing && session.deadline_ms == 0 {
            self.drop_session(slot, session);
        } else {
            self.slots[slot as usize].session = Some(session);
        }
    }

    /// The same for an address, where the slot still holds that session.
    pub(super) fn on(&mut self, to: SessionAddr, act: impl FnOnce(&mut Self, u32, &mut Session)) {
        if self.slots.get(to.slot as usize).is_some_and(|entry| entry.generation == to.generation) {
            self.with(to.slot, |worker, slot, session| {
                if session.phase != Phase::Closing {
                    act(worker, slot, session);
                    worker.mark_dirty_session(slot, session);
                }
            });
        }
    }

    pub(super) fn addr(&self, slot: u32, session: &Session) -> SessionAddr {
        SessionAddr { worker: self.index, slot, generation: session.generation }
    }

    /// Starts closing: the close frame is queued, the session leaves all streams, nothing more is read as commands.
    pub(super) fn close(&mut self, slot: u32, session: &mut Session, code: CloseCode, retry_after_ms: Option<u32>) {
        if session.phase == Phase::Closing {
            return;
        }
        session.push(frame::close(code, retry_after_ms));
        self.leave_everything(slot, session);
        session.phase = Phase::Closing;
        session.deadline_ms = self.now_ms + LINGER_MS;
        session.partial = Vec::new();
        session.fragments = None;
        self.mark_dirty_session(slot, session);
    }

    /// Ends a session without another word: the peer is gone.
    pub(super) fn abandon(&mut self, slot: u32, session: &mut Session) {
        self.leave_everything(slot, session);
        session.phase = Phase::Closing;
        session.deadline_ms = 0;
    }

    fn leave_everything(&mut self, slot: u32, session: &mut Session) {
        if let Some(task) = session.auth_task.take() {
            // What it has registered goes with it.
            task.abort();
        }
        session.registration = None;
        self.leave_streams(slot, session);
        session.work = None;
        session.reads = None;
        session.in_work = 0;
        session.waiting_bytes = 0;
    }

    fn drop_session(&mut self, slot: u32, mut session: Box<Session>) {
        if let Err(error) = self.poll.registry().deregister(&mut session.socket) {
            tracing::debug!(%error, "deregister");
        }
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        metrics().sockets.dec();
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        if let Some(session) = self.slots.get_mut(slot as usize).and_then(|entry| entry.session.as_mut())
            && !session.dirty
        {
            session.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Notes that a socket has, or may have, more input at hand.
    pub(super) fn mark_readable(&mut self, slot: u32, session: &mut Session) {
        if !session.readable {
            session.readable = true;
            self.readable.push(slot);
        }
    }

    pub(super) fn mark_dirty_session(&mut self, slot: u32, session: &mut Session) {
        if !session.dirty {
            session.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Writes dirty sockets in turn, each with all that waits for it. What arrives meanwhile is taken in between, so that
    /// sockets still in the line get it with the same write. After two rounds the poller is asked again.
    fn flush_dirty(&mut self, messages: &mut Vec<ToWorker>) {
        let mut writes = 0;
        let mut left = (self.dirty.len() * 2).max(FLUSH_STEP);
        while left > 0
            && let Some(slot) = self.dirty.pop_front()
        {
            self.with(slot, |worker, slot, session| worker.flush(slot, session, &mut writes));
            self.flushed += 1;
            left -= 1;
            self.let_go();
            if left.is_multiple_of(FLUSH_STEP) && !self.inbox.is_empty() {
                self.take_messages(messages);
            }
        }
        self.let_go();
        if writes > 0 {
            metrics().socket_writes.inc_by(writes);
        }
    }

    /// Drops what was kept for runs that most have got.
    fn let_go(&mut self) {
        while self.kept.front().is_some_and(|(until, _)| *until <= self.flushed) {
            self.kept.pop_front();
        }
    }

    fn flush(&mut self, slot: u32, session: &mut Session, writes: &mut u64) {
        session.dirty = false;
        if session.outbox.is_empty() {
            return self.after_flush(slot, session);
        }
        match session.write(writes, self.now_ms) {
            Ok(Flush::Empty) => self.after_flush(slot, session),
            Ok(Flush::Blocked) if session.phase == Phase::Closing => {}
            Ok(Flush::Blocked) => self.go_on(slot, session),
            Err(_) => self.abandon(slot, session),
        }
    }

    fn after_flush(&mut self, slot: u32, session: &mut Session) {
        if session.phase == Phase::Closing {
            // All is with the kernel; the peer answers with its own close, or the deadline ends it.
            if session.socket.shutdown(std::net::Shutdown::Write).is_err() {
                session.deadline_ms = 0;
            }
            return;
        }
        if session.catch_up.is_some() {
            self.pump(slot, session);
        } else {
            session.note_caught_up();
        }
        self.go_on(slot, session);
    }

    /// Some of what waited was taken: what waited for that goes on.
    fn go_on(&mut self, slot: u32, session: &mut Session) {
        self.next_read(slot, session);
        if session.paused && !session.is_full() {
            session.paused = false;
            self.mark_readable(slot, session);
        }
    }

    /// The local number of a session's stream.
    pub(super) fn local_of(&self, stream: StreamId) -> u32 {
        self.by_stream.get(&stream).copied().unwrap_or(NOWHERE)
    }
}
