//! Live delivery: a run of a stream goes to every member at once, appended to their outboxes; what an update does to
//! sessions besides (a leave, a new thread) happens here in the order of the stream. Who is where: `streams`. Those who
//! are behind: `behind`.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::backlog::Behind;
use super::inbox::Run;
use super::outbox::UPDATE_BYTES;
use super::plan::StreamPlan;
use super::session::{Phase, Session};
use super::streams::UNSET;
use super::worker::Worker;
use crate::saboteur::{self, Bug};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Touch, Update};

/// What to do after an update was written for one session.
enum After {
    Go,
    /// The session has left the stream with this update.
    Left,
    /// Not written: this thread must be left first.
    Wait(Uuid),
}

impl Worker {
    /// A run of a stream: to every live member, once.
    pub(super) fn deliver(&mut self, run: &Run) {
        let number = self.local_of(run.stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        if local.incarnation != run.incarnation {
            return;
        }
        let seen = run.updates.partition_point(|update| update.seq <= local.delivered);
        let mut fresh = &run.updates[seen..];
        let (Some(first), Some(last)) = (fresh.first(), fresh.last()) else { return };
        if first.seq != local.delivered + 1 {
            tracing::warn!(
                seq = first.seq,
                delivered = local.delivered,
                "a run does not follow; its sessions go on from the log"
            );
            let head = last.seq;
            return self.jump(run.stream, Some(run.incarnation), head);
        }
        // Kept alive to the end of the run: the last member may leave in the middle, and its number be given to another
        // stream, which would then get the rest of this run.
        local.behind += 1;
        while let Some(first) = fresh.first() {
            let plain = fresh.iter().take_while(|update| update.touch == Touch::None).count();
            if plain > 0 {
                let (group, rest) = fresh.split_at(piece(&fresh[..plain]));
                self.deliver_plain(number, group);
                fresh = rest;
            } else {
                self.deliver_touching(number, first);
                fresh = &fresh[1..];
            }
        }
        self.forget_behind(run.stream);
    }

    /// A piece of updates that only need writing: joined once, appended to every member.
    fn deliver_plain(&mut self, number: u32, group: &[Update]) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
        let joined = join(group);
        let local = &mut self.locals[number as usize];
        let (stream, from, to) = (local.stream, first.seq, last.seq);
        let mut lost: Vec<u32> = Vec::new();
        for slot in &local.members {
            let Some(session) = self.slots[*slot as usize].session.as_mut() else { continue };
            if session.makes_room(joined.len(), self.now_ms) {
                session.outbox.push_update(joined.clone());
            } else {
                lost.push(*slot);
            }
            if !session.dirty {
                session.dirty = true;
                self.dirty.push_back(*slot);
            }
        }
        metrics().deliveries.inc_by((local.members.len() - lost.len()) as u64 * group.len() as u64);
        // Planted: what does not fit is gone.
        if saboteur::plants(Bug::DropFullQueue) {
            lost.clear();
        }
        for slot in lost {
            self.with(slot, |worker, slot, session| worker.fall_behind(slot, session, stream, from - 1));
        }
        self.grow_up(number, group, to);
    }

    /// Gives young members their part of `group` and makes members of those whose position was reached.
    fn grow_up(&mut self, number: u32, group: &[Update], to: u64) {
        let local = &mut self.locals[number as usize];
        local.delivered = to;
        if local.young.is_empty() {
            return;
        }
        for (slot, position) in std::mem::take(&mut local.young) {
            if position > to {
                self.locals[number as usize].young.push((slot, position));
                continue;
            }
            self.locals[number as usize].members.push(slot);
            let part = &group[group.partition_point(|update| update.seq <= position)..];
            for update in part {
                self.with(slot, |worker, slot, session| worker.write_update(slot, session, update));
            }
        }
        self.note_width(number);
    }

    /// An update that does something to sessions besides being written.
    fn deliver_touching(&mut self, number: u32, update: &Update) {
        let local = &self.locals[number as usize];
        let members = local.members.clone();
        for slot in members {
            let mut after = After::Go;
            self.with(slot, |worker, slot, session| after = worker.touch(slot, session, update));
            match after {
                After::Go => {}
                After::Left => {
                    self.with(slot, |worker, slot, session| worker.left(slot, session, update.stream, update.seq))
                }
                After::Wait(thread) => self.with(slot, |worker, slot, session| {
                    worker.detach(slot, session, update.stream);
                    let plan = StreamPlan { known: update.seq, ..StreamPlan::live(update.stream, update.seq - 1) };
                    worker.queue_behind(session, Behind { after: Some(thread), ..Behind::new(plan) });
                }),
            }
        }
        self.grow_up(number, std::slice::from_ref(update), update.seq);
    }

    /// Writes a touching update to one live session and says what follows from it.
    fn touch(&mut self, slot: u32, session: &mut Session, update: &Update) -> After {
        if let Some(thread) = self.must_be_left_first(slot, session, &update.touch) {
            return After::Wait(thread);
        }
        self.write_update(slot, session, update);
        if !self.is_live(session, update.stream) {
            // No room: what this update does is done when it comes from the log.
            return After::Go;
        }
        match &update.touch {
            // Planted: the one who left goes on listening.
            Touch::Left(_) if saboteur::plants(Bug::KickNotApplied) => After::Go,
            Touch::Left(profiles) if profiles.contains(&session.profile_id) => After::Left,
            Touch::Removed { thread, seq } => {
                session.note_removed(*thread, *seq);
                After::Go
            }
            Touch::Added { thread, seq } => {
                session.entered_at = update.seq;
                let stream = StreamId::Thread(*thread);
                if !self.is_in(session, stream) && !session.has_left(*thread, *seq) {
                    self.go(slot, session, StreamPlan::live(stream, *seq));
                }
                After::Go
            }
            _ => After::Go,
        }
    }

    /// Appends one update to a live session, or puts the session behind where it has no room.
    fn write_update(&mut self, slot: u32, session: &mut Session, update: &Update) {
        if session.phase == Phase::Closing {
            return;
        }
        if !self.is_live(session, update.stream) {
            // It fell behind a moment ago: this comes from the log, after what it missed.
            return;
        }
        self.mark_dirty_session(slot, session);
        if session.makes_room(update.frame.len(), self.now_ms) {
            session.outbox.push_update(update.frame.clone());
            metrics().deliveries.inc();
        } else if !saboteur::plants(Bug::DropFullQueue) {
            self.fall_behind(slot, session, update.stream, update.seq - 1);
        }
    }

    /// The stream goes on at `head`; its sessions read the rest from the log. `incarnation`: the life of the feed that says
    /// so.
    pub(super) fn jump(&mut self, stream: StreamId, incarnation: Option<u64>, head: u64) {
        let number = self.local_of(stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        let is_past = incarnation.is_some_and(|incarnation| incarnation != local.incarnation);
        if is_past || local.delivered == UNSET || head <= local.delivered {
            return;
        }
        let since = local.delivered;
        let slots: Vec<(u32, u64)> =
            local.members.iter().map(|slot| (*slot, since)).chain(local.young.iter().copied()).collect();
        // Kept alive while its sessions change from live to behind.
        local.behind += 1;
        local.delivered = head;
        for (slot, since) in slots {
            self.with(slot, |worker, slot, session| {
                worker.fall_behind(slot, session, stream, since);
                worker.pump(slot, session);
            });
        }
        self.forget_behind(stream);
    }

    /// The inbox lost runs: every live session of this worker goes on from the log.
    pub(super) fn lose_everything(&mut self) {
        let streams: Vec<(StreamId, u64)> =
            self.by_stream.keys().map(|stream| (*stream, self.shared.hub.head(*stream).unwrap_or(0))).collect();
        for (stream, head) in streams {
            self.jump(stream, None, head);
        }
    }
}

/// Planted: the end of a stay ends nothing here, and nothing may wait for it.
pub(super) fn stays_are_ignored() -> bool {
    saboteur::plants(Bug::KickNotApplied) || saboteur::plants(Bug::NoRecheckOnResume)
}

/// How many of `updates`, from the first on, are judged as one: as many as may wait for one socket, and one at least.
pub(super) fn piece(updates: &[Update]) -> usize {
    let mut bytes = 0;
    let fits = |update: &&Update| {
        bytes += update.frame.len();
        bytes <= UPDATE_BYTES || bytes == update.frame.len()
    };
    updates.iter().take_while(fits).count()
}

/// Several frames as one piece of memory, shared by all who get them.
fn join(group: &[Update]) -> Bytes {
    match group {
        [one] => one.frame.clone(),
        many => {
            let mut joined = BytesMut::with_capacity(many.iter().map(|update| update.frame.len()).sum());
            many.iter().for_each(|update| joined.extend_from_slice(&update.frame));
            joined.freeze()
        }
    }
}
