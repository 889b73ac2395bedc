//! A worker loop: one thread, one poller, its own sockets. Everything a socket needs happens here in turns: take what
//! arrived, handle it, and write each dirty socket once. No timer delays a write and no lock is held while writing.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use super::flush::KEPT_PERCENT;
use super::inbox::{Inbox, Kept, NewSocket, SessionAddr, ToWorker};
use super::node::Shared;
use super::session::{NOWHERE, Phase, Session};
use super::socket::Ready;
use super::streams::Local;
use crate::protocol::{CloseCode, frame};
use crate::telemetry::metrics;
use crate::updates::StreamId;

const WAKER: Token = Token(usize::MAX);
/// Between looks at the clock of all sessions.
const SWEEP_MS: u64 = 100;
/// Before a worker that panicked begins anew.
const ANEW_PAUSE: Duration = Duration::from_millis(20);
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
    pub(super) flushed: u64,
    /// What is kept until so many were flushed.
    pub(super) kept: VecDeque<(u64, Kept)>,
    pub(super) sweep_at: usize,
    /// When the bytes waiting in outboxes were last counted, and how many there were.
    pub(super) counted_ms: u64,
    pub(super) pending_bytes: i64,
    pub(super) inbox: Arc<Inbox>,
    poll: Poll,
    free: Vec<u32>,
    /// Sessions with more to catch up with than one turn has room for.
    pub(super) yielded: Vec<u32>,
    /// Sockets with more input at hand.
    pub(super) readable: Vec<u32>,
    next_sweep_ms: u64,
    pub(super) scratch: Vec<u8>,
    started: Instant,
}

impl Worker {
    /// Makes a worker and its inbox.
    pub fn new(index: u16, shared: Arc<Shared>) -> io::Result<(Self, Arc<Inbox>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let inbox = Arc::new(Inbox::new(Box::new(move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "a worker cannot be woken");
            }
        })));
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
            yielded: Vec::new(),
            readable: Vec::new(),
            next_sweep_ms: SWEEP_MS,
            scratch: Vec::new(),
            started: Instant::now(),
        };
        Ok((worker, inbox))
    }

    /// Runs until told to stop. A defect that panics costs the sockets of this worker, which reconnect and resume, and
    /// nothing else: it begins anew with none.
    pub fn run(mut self) {
        while !self.inbox.is_stopped() {
            if std::panic::catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
                self.begin_anew();
            }
        }
    }

    fn work(&mut self) {
        let mut events = Events::with_capacity(1024);
        let mut messages = Vec::new();
        while !self.inbox.is_stopped() {
            self.inbox.going_to_sleep();
            let wait = if self.has_work() { Duration::ZERO } else { self.rest() };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "poll failed");
                std::thread::sleep(Duration::from_millis(10));
            }
            self.inbox.awake();
            self.now_ms = self.started.elapsed().as_millis() as u64;
            self.turn(events.iter().filter(|event| event.token() != WAKER).map(Ready::of), &mut messages);
        }
    }

    /// Whether the next turn has something to do already.
    pub(super) fn has_work(&self) -> bool {
        let at_hand = !self.readable.is_empty() || !self.yielded.is_empty() || !self.dirty.is_empty();
        at_hand || !self.inbox.is_empty()
    }

    /// How long it may sleep where nothing happens.
    pub(super) fn rest(&self) -> Duration {
        Duration::from_millis(self.next_sweep_ms.saturating_sub(self.now_ms).min(SWEEP_MS))
    }

    /// One turn, at `now_ms`: what was left of the last one, what sockets are ready for, messages, writes, clocks.
    pub(super) fn turn(&mut self, ready: impl Iterator<Item = Ready>, messages: &mut Vec<ToWorker>) {
        for slot in std::mem::take(&mut self.yielded) {
            self.with(slot, Self::resume_turn);
        }
        for slot in std::mem::take(&mut self.readable) {
            self.with(slot, |worker, slot, session| {
                session.readable = false;
                worker.read(slot, session);
            });
        }
        for Ready { slot, readable, ended, writable } in ready {
            if readable {
                self.with(slot, |worker, slot, session| {
                    session.ended |= ended;
                    worker.read(slot, session);
                });
            }
            if writable {
                self.mark_dirty(slot);
            }
        }
        self.take_messages(messages);
        self.flush_dirty(messages);
        if self.now_ms >= self.next_sweep_ms {
            self.sweep();
            self.flush_dirty(messages);
            self.next_sweep_ms = self.now_ms + SWEEP_MS;
        }
    }

    /// After a panic: every socket is closed, the hub and the registry forget what this worker had.
    fn begin_anew(&mut self) {
        metrics().worker_panics.inc();
        tracing::error!(worker = self.index, "a worker panicked: its sockets are closed, and it begins anew");
        for slot in &mut self.slots {
            slot.session = None;
            slot.generation = slot.generation.wrapping_add(1);
        }
        self.free = (0..self.slots.len() as u32).rev().collect();
        for stream in std::mem::take(&mut self.by_stream).into_keys() {
            self.shared.hub.set_wide(self.index, stream, false);
            self.shared.hub.release(self.index, stream);
        }
        self.shared.registry.forget_worker(self.index);
        (self.locals, self.free_locals) = (Vec::new(), Vec::new());
        self.dirty.clear();
        self.readable.clear();
        self.yielded.clear();
        self.kept.clear();
        self.count_pending();
        // A defect that every turn meets must not take the whole of a core.
        std::thread::sleep(ANEW_PAUSE);
    }

    pub(super) fn take_messages(&mut self, messages: &mut Vec<ToWorker>) {
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
                ToWorker::Jump { stream, incarnation, head } => self.jump(stream, Some(incarnation), head),
                ToWorker::Authenticated { to, access, registration, reply, streams, resumed } => {
                    self.on(to, |worker, slot, session| {
                        worker.authenticated(slot, session, access, registration, reply, streams, resumed);
                    });
                }
                ToWorker::Refreshed { to, access, registration, reply } => {
                    self.on(to, |worker, _, session| worker.refreshed(session, access, registration, reply));
                }
                ToWorker::AuthFailed { to, id, refusal } => {
                    self.on(to, |worker, slot, session| worker.auth_failed(slot, session, id, &refusal));
                }
                ToWorker::Sync { to, reply, streams, resumed, user_seq } => {
                    self.on(to, |worker, slot, session| {
                        worker.synced(slot, session, reply, streams, resumed, user_seq);
                    });
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
                #[cfg(test)]
                ToWorker::Fail => panic!("as a test wants it"),
            }
        }
    }

    fn accept(&mut self, new: NewSocket) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            (self.slots.len() - 1) as u32
        });
        let mut socket = new.socket;
        if let Err(error) = socket.register(self.poll.registry(), slot) {
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
        if std::mem::take(&mut session.registered) {
            let addr = self.addr(slot, session);
            self.shared.registry.remove(session.profile_id, addr);
        }
        self.leave_streams(slot, session);
        session.work = None;
        session.reads = None;
        session.in_work = 0;
        session.waiting_bytes = 0;
    }

    fn drop_session(&mut self, slot: u32, mut session: Box<Session>) {
        if let Err(error) = session.socket.deregister(self.poll.registry()) {
            tracing::debug!(%error, "deregister");
        }
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
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

    /// The local number of a session's stream.
    pub(super) fn local_of(&self, stream: StreamId) -> u32 {
        self.by_stream.get(&stream).copied().unwrap_or(NOWHERE)
    }
}
