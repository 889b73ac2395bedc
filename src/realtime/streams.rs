//! Which session is where: the worker's list of members of each stream, and the ways in and out of it.
//!
//! A session is in one of two states in a stream: *live* (the worker's run reaches it) or *behind* (its position stands
//! in its catch-up queue). It never is in both, and it changes from behind to live in one turn, so nothing is skipped
//! and nothing comes twice.

use uuid::Uuid;

use super::backlog::Behind;
use super::delivery::stays_are_ignored;
use super::plan::StreamPlan;
use super::session::{CatchUp, NOWHERE, Session};
use super::worker::Worker;
use crate::protocol::reply;
use crate::telemetry::metrics;
use crate::updates::{StreamId, Touch};

/// One stream as this worker serves it.
pub(super) struct Local {
    pub stream: StreamId,
    /// Runs up to here were delivered to `members`; `UNSET` until the hub was asked for the first time.
    pub delivered: u64,
    /// Which life of the hub's feed `delivered` is about; runs of an earlier one, still under way, are for nobody.
    pub incarnation: u64,
    /// Sessions that are live.
    pub members: Vec<u32>,
    /// Sessions that are live from a position above `delivered` on: runs still under way reach them only from there.
    pub young: Vec<(u32, u64)>,
    /// Sessions here that are behind; they keep the interest alive.
    pub behind: u32,
    /// The hub was told that many are live here.
    pub wide: bool,
}

/// Live sessions of one worker from which on a stream is wide: its delivery takes as long as a commit or longer. It is no
/// longer below half of that.
const WIDE: usize = 256;

/// No run is expected yet.
pub(super) const UNSET: u64 = u64::MAX;

impl Worker {
    /// Whether the session is live or behind in a stream.
    pub(super) fn is_in(&self, session: &Session, stream: StreamId) -> bool {
        self.is_live(session, stream) || session.is_behind_in(stream)
    }

    /// The thread that this session must have left before an update of its user stream may be told: the stay that ended, or
    /// one before that which begins. (What tells of its end may have been skipped by a snapshot.)
    pub(super) fn must_be_left_first(&self, slot: u32, session: &Session, touch: &Touch) -> Option<Uuid> {
        let (thread, end) = match touch {
            Touch::Removed { thread, seq } => (*thread, *seq),
            // A position right before the beginning of a stay is in none before it.
            Touch::Added { thread, seq } => (*thread, seq.saturating_sub(1)),
            Touch::None | Touch::Left(_) => return None,
        };
        let waits = !stays_are_ignored() && self.is_before(slot, session, StreamId::Thread(thread), end);
        waits.then_some(thread)
    }

    /// Whether `seq` of a stream is still to come to this session. A person who has left and joined again is in the
    /// stream, and past the leave.
    pub(super) fn is_before(&self, slot: u32, session: &Session, stream: StreamId, seq: u64) -> bool {
        let replaced = session.behind_in(stream).is_some_and(|behind| behind.plan.snapshot);
        replaced || self.position(slot, session, stream).is_some_and(|position| position < seq)
    }

    /// Up to where this session was given a stream that it is live or behind in.
    pub(super) fn position(&self, slot: u32, session: &Session, stream: StreamId) -> Option<u64> {
        if let Some(behind) = session.behind_in(stream) {
            return Some(behind.plan.since);
        }
        if !self.is_live(session, stream) {
            return None;
        }
        let local = self.locals.get(self.local_of(stream) as usize)?;
        let young = local.young.iter().find(|(member, _)| *member == slot);
        Some(young.map_or(local.delivered, |(_, position)| *position))
    }

    pub(super) fn is_live(&self, session: &Session, stream: StreamId) -> bool {
        let number = self.local_of(stream);
        number != NOWHERE && (session.user == number || session.threads.binary_search(&number).is_ok())
    }

    pub(super) fn queue_behind(&mut self, session: &mut Session, behind: Behind) {
        session.catch_up.get_or_insert_default().backlog.push_back(behind);
    }

    /// Counts a session that is behind, in the local stream, which is made where it is missing.
    pub(super) fn note_behind(&mut self, stream: StreamId) {
        let number = self.local_of(stream);
        let number = if number == NOWHERE { self.new_local(stream) } else { number };
        self.locals[number as usize].behind += 1;
    }

    pub(super) fn new_local(&mut self, stream: StreamId) -> u32 {
        let local = Local {
            stream,
            delivered: UNSET,
            incarnation: 0,
            members: Vec::new(),
            young: Vec::new(),
            behind: 0,
            wide: false,
        };
        let number = match self.free_locals.pop() {
            Some(number) => {
                self.locals[number as usize] = local;
                number
            }
            None => {
                self.locals.push(local);
                (self.locals.len() - 1) as u32
            }
        };
        self.by_stream.insert(stream, number);
        number
    }

    /// The stream's next update did not fit: the session goes on from the log after `since`.
    pub(super) fn fall_behind(&mut self, slot: u32, session: &mut Session, stream: StreamId, since: u64) {
        self.note_behind(stream);
        self.detach(slot, session, stream);
        let plan = StreamPlan::live(stream, since);
        self.queue_behind(session, Behind { counted: true, ..Behind::new(plan) });
        if !session.lag_told {
            session.lag_told = true;
            metrics().lagging_sessions.inc();
            session.push(reply::notice("lag", &LagBody { streams: [name_of(stream)] }));
            self.mark_dirty_session(slot, session);
        }
    }

    /// Takes a session out of the live members of a stream.
    pub(super) fn detach(&mut self, slot: u32, session: &mut Session, stream: StreamId) {
        let number = self.local_of(stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        if session.user == number {
            session.user = NOWHERE;
        }
        if let Ok(at) = session.threads.binary_search(&number) {
            session.threads.remove(at);
        }
        if let Some(at) = local.members.iter().position(|member| *member == slot) {
            local.members.swap_remove(at);
        } else {
            local.young.retain(|(member, _)| *member != slot);
        }
        self.note_width(number);
        self.release_if_unused(number);
    }

    /// Tells the hub when the audience of a stream has become wide, or narrow again.
    pub(super) fn note_width(&mut self, number: u32) {
        let local = &mut self.locals[number as usize];
        let wide = local.members.len() >= if local.wide { WIDE / 2 } else { WIDE };
        if wide != local.wide {
            local.wide = wide;
            self.shared.hub.set_wide(self.index, local.stream, wide);
        }
    }

    pub(super) fn release_if_unused(&mut self, number: u32) {
        let local = &mut self.locals[number as usize];
        if local.members.is_empty() && local.young.is_empty() && local.behind == 0 {
            let stream = local.stream;
            local.members = Vec::new();
            local.young = Vec::new();
            self.by_stream.remove(&stream);
            self.free_locals.push(number);
            self.shared.hub.release(self.index, stream);
        }
    }

    /// One session fewer is behind in a stream.
    pub(super) fn forget_behind(&mut self, stream: StreamId) {
        let number = self.local_of(stream);
        if let Some(local) = self.locals.get_mut(number as usize) {
            local.behind = local.behind.saturating_sub(1);
            self.release_if_unused(number);
        }
    }

    /// The session got `member.left` for itself: nothing of the thread after it, and what waited for it goes on.
    pub(super) fn left(&mut self, slot: u32, session: &mut Session, stream: StreamId, seq: u64) {
        self.detach(slot, session, stream);
        session.note_left(stream.uuid(), seq);
        self.release_waiting(session, stream);
        self.pump(slot, session);
    }

    pub(super) fn release_waiting(&mut self, session: &mut Session, stream: StreamId) {
        session.forget_thread(stream.uuid());
        self.free_waiting(session, stream);
    }

    /// What waited for a position of `stream` looks at it again.
    pub(super) fn free_waiting(&mut self, session: &mut Session, stream: StreamId) {
        if let Some(catch_up) = &mut session.catch_up {
            catch_up.backlog.free(stream.uuid());
        }
    }

    /// The hub has noted this worker's interest while the feed stood at `head`: runs come from there on.
    pub(super) fn expect_runs(&mut self, stream: StreamId, head: u64, incarnation: u64) {
        let number = self.local_of(stream);
        if let Some(local) = self.locals.get_mut(number as usize)
            && (local.delivered == UNSET || local.incarnation != incarnation)
        {
            local.delivered = head;
            local.incarnation = incarnation;
        }
    }

    /// Adds a session to the live members of a stream, from `reached` on. The stream is counted as behind, so it exists.
    pub(super) fn join(&mut self, slot: u32, session: &mut Session, stream: StreamId, reached: u64) {
        let number = self.local_of(stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        if reached > local.delivered {
            local.young.push((slot, reached));
        } else {
            local.members.push(slot);
        }
        match stream {
            StreamId::User(_) => session.user = number,
            StreamId::Thread(_) => {
                if let Err(at) = session.threads.binary_search(&number) {
                    session.threads.insert(at, number);
                }
            }
        }
        self.note_width(number);
    }

    /// Takes a session out of everything.
    pub(super) fn leave_streams(&mut self, slot: u32, session: &mut Session) {
        for number in
            std::mem::take(&mut session.threads).into_iter().chain([std::mem::replace(&mut session.user, NOWHERE)])
        {
            let Some(local) = self.locals.get_mut(number as usize) else { continue };
            if let Some(at) = local.members.iter().position(|member| *member == slot) {
                local.members.swap_remove(at);
            } else {
                local.young.retain(|(member, _)| *member != slot);
            }
            self.note_width(number);
            self.release_if_unused(number);
        }
        if let Some(catch_up) = session.catch_up.take() {
            let CatchUp { backlog, reading, .. } = *catch_up;
            for behind in backlog.into_all().chain(reading).filter(|behind| behind.counted) {
                self.forget_behind(behind.plan.stream);
            }
        }
        session.end_lag();
    }
}

#[derive(serde::Serialize)]
struct LagBody {
    streams: [String; 1],
}

/// A stream's name on the wire.
pub(super) fn name_of(stream: StreamId) -> String {
    match stream {
        StreamId::User(_) => "user".to_owned(),
        StreamId::Thread(id) => id.to_string(),
    }
}
