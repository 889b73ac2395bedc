//! Writing: each dirty socket once in its turn, with all that waits for it; and what goes on when a socket has taken some.

use super::inbox::ToWorker;
use super::outbox::Flush;
use super::session::{Phase, Session};
use super::worker::Worker;
use crate::telemetry::metrics;

/// Sockets flushed between looks at the inbox.
const FLUSH_STEP: usize = 32;
/// What is kept for a run goes when so many of its sockets were flushed: the commit of what comes next takes as long as
/// the rest.
pub(super) const KEPT_PERCENT: u64 = 75;

impl Worker {
    /// Writes dirty sockets in turn, each with all that waits for it. What arrives meanwhile is taken in between, so that
    /// sockets still in the line get it with the same write. After two rounds the poller is asked again.
    pub(super) fn flush_dirty(&mut self, messages: &mut Vec<ToWorker>) {
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
            if session.socket.finish().is_err() {
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
}
