//! Updates on their way to sessions: the worker's list of members of each stream, runs appended to their outboxes, and
//! the catch-up of those that are behind.
//!
//! A session is in one of two states in a stream: *live* (the worker's run reaches it) or *behind* (its position stands
//! in its catch-up queue). It never is in both, and it changes from behind to live in one turn, so nothing is skipped
//! and nothing comes twice.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::feed::Attach;
use super::inbox::{ResumeAnswer, Run};
use super::plan::{CATCH_UP_BYTES, MISSED_UPDATES, StreamPlan};
use super::session::{Behind, CatchUp, NOWHERE, Phase, Session};
use super::worker::Worker;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::reply;
use crate::saboteur::{self, Bug, TRUNCATED_UPDATES};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Touch, Update};

/// Pause after a read that failed, milliseconds.
const RETRY_MS: u64 = 250;

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
}

/// No run is expected yet.
const UNSET: u64 = u64::MAX;

/// What to do after an update was written for one session.
enum After {
    Go,
    /// The session has left the stream with this update.
    Left,
    /// Not written: this thread must be left first.
    Wait(Uuid),
}

/// How a page ended for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Through,
    /// The session has left the stream.
    Left,
    /// The rest waits until a thread was left.
    Waits,
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
            return self.jump(run.stream, head);
        }
        while let Some(first) = fresh.first() {
            let plain = fresh.iter().take_while(|update| update.touch == Touch::None).count();
            if plain > 0 {
                let (group, rest) = fresh.split_at(plain);
                self.deliver_plain(number, group);
                fresh = rest;
            } else {
                self.deliver_touching(number, first);
                fresh = &fresh[1..];
            }
        }
    }

    /// Updates that only need writing: joined once, appended to every member.
    fn deliver_plain(&mut self, number: u32, group: &[Update]) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
        let joined = join(group);
        let local = &mut self.locals[number as usize];
        let (stream, from, to) = (local.stream, first.seq, last.seq);
        let mut lost: Vec<u32> = Vec::new();
        for slot in &local.members {
            let Some(session) = self.slots[*slot as usize].session.as_mut() else { continue };
            if session.outbox.has_room(joined.len()) {
                session.outbox.push(joined.clone());
                if !session.dirty {
                    session.dirty = true;
                    self.dirty.push_back(*slot);
                }
            } else {
                lost.push(*slot);
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
                After::Left => self.with(slot, |worker, slot, session| worker.left(slot, session, update.stream)),
                After::Wait(thread) => self.with(slot, |worker, slot, session| {
                    worker.detach(slot, session, update.stream);
                    let plan = StreamPlan { known: update.seq, ..StreamPlan::live(update.stream, update.seq - 1) };
                    worker.queue_behind(session, Behind { plan, after: Some(thread) });
                }),
            }
        }
        self.grow_up(number, std::slice::from_ref(update), update.seq);
    }

    /// Writes a touching update to one live session and says what follows from it.
    fn touch(&mut self, slot: u32, session: &mut Session, update: &Update) -> After {
        if let Touch::Removed { thread, seq } = update.touch
            && self.is_before(slot, session, StreamId::Thread(thread), seq)
            && !stays_are_ignored()
        {
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
            Touch::Added { thread, seq } => {
                let stream = StreamId::Thread(*thread);
                if !self.is_in(session, stream) {
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
        if session.outbox.has_room(update.frame.len()) {
            session.outbox.push(update.frame.clone());
            metrics().deliveries.inc();
            self.mark_dirty_session(slot, session);
        } else if !saboteur::plants(Bug::DropFullQueue) {
            self.fall_behind(slot, session, update.stream, update.seq - 1);
        }
    }

    /// Whether the session is live or behind in a stream.
    pub(super) fn is_in(&self, session: &Session, stream: StreamId) -> bool {
        self.is_live(session, stream) || session.is_behind_in(stream)
    }

    /// Whether `seq` of a stream is still to come to this session. A person who has left and joined again is in the
    /// stream, and past the leave.
    fn is_before(&self, slot: u32, session: &Session, stream: StreamId, seq: u64) -> bool {
        if let Some(plan) = session.behind_in(stream) {
            return plan.snapshot || plan.since < seq;
        }
        if !self.is_live(session, stream) {
            return false;
        }
        let Some(local) = self.locals.get(self.local_of(stream) as usize) else { return false };
        let young = local.young.iter().find(|(member, _)| *member == slot);
        young.map_or(local.delivered, |(_, position)| *position) < seq
    }

    fn is_live(&self, session: &Session, stream: StreamId) -> bool {
        let number = self.local_of(stream);
        number != NOWHERE && (session.user == number || session.threads.contains(&number))
    }

    /// Makes a session live in a stream from a position on, now or as soon as the log was read.
    pub(super) fn go(&mut self, slot: u32, session: &mut Session, plan: StreamPlan) {
        self.note_behind(plan.stream);
        self.queue_behind(session, Behind { plan, after: None });
        self.pump(slot, session);
    }

    fn queue_behind(&mut self, session: &mut Session, behind: Behind) {
        session.catch_up.get_or_insert_default().queue.push_back(behind);
    }

    /// Counts a session that is behind, in the local stream, which is made where it is missing.
    fn note_behind(&mut self, stream: StreamId) {
        let number = self.local_of(stream);
        let number = if number == NOWHERE { self.new_local(stream) } else { number };
        self.locals[number as usize].behind += 1;
    }

    fn new_local(&mut self, stream: StreamId) -> u32 {
        let local =
            Local { stream, delivered: UNSET, incarnation: 0, members: Vec::new(), young: Vec::new(), behind: 0 };
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
    fn fall_behind(&mut self, slot: u32, session: &mut Session, stream: StreamId, since: u64) {
        self.note_behind(stream);
        self.detach(slot, session, stream);
        self.queue_behind(session, Behind { plan: StreamPlan::live(stream, since), after: None });
        if !session.lag_told {
            session.lag_told = true;
            metrics().lagging_sessions.inc();
            session.push(reply::notice("lag", &LagBody { streams: [name_of(stream)] }));
            self.mark_dirty_session(slot, session);
        }
    }

    /// Takes a session out of the live members of a stream.
    fn detach(&mut self, slot: u32, session: &mut Session, stream: StreamId) {
        let number = self.local_of(stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        if session.user == number {
            session.user = NOWHERE;
        }
        session.threads.retain(|thread| *thread != number);
        if let Some(at) = local.members.iter().position(|member| *member == slot) {
            local.members.swap_remove(at);
        } else {
            local.young.retain(|(member, _)| *member != slot);
        }
        self.release_if_unused(number);
    }

    fn release_if_unused(&mut self, number: u32) {
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
    fn forget_behind(&mut self, stream: StreamId) {
        let number = self.local_of(stream);
        if let Some(local) = self.locals.get_mut(number as usize) {
            local.behind = local.behind.saturating_sub(1);
            self.release_if_unused(number);
        }
    }

    /// The session got `member.left` for itself: nothing of the thread after it, and what waited for it goes on.
    fn left(&mut self, slot: u32, session: &mut Session, stream: StreamId) {
        self.detach(slot, session, stream);
        self.release_waiting(session, stream);
        self.pump(slot, session);
    }

    fn release_waiting(&mut self, session: &mut Session, stream: StreamId) {
        if let Some(open) = &mut session.open {
            open.retain(|thread| *thread != stream.uuid());
        }
        self.free_waiting(session, stream);
    }

    /// What waited for a position of `stream` looks at it again.
    fn free_waiting(&mut self, session: &mut Session, stream: StreamId) {
        let mut freed = Vec::new();
        if let Some(catch_up) = &mut session.catch_up {
            for behind in &mut catch_up.queue {
                if behind.after == Some(stream.uuid()) {
                    behind.after = None;
                    freed.push(behind.plan.stream);
                }
            }
        }
        // It was detached without being counted: its hub interest is taken anew.
        freed.into_iter().for_each(|stream| self.note_behind(stream));
    }

    /// Goes through a session's catch-up queue as far as its outbox and the log allow.
    pub(super) fn pump(&mut self, slot: u32, session: &mut Session) {
        while let Some(catch_up) = session.catch_up.as_mut() {
            if catch_up.reading.is_some() || self.now_ms < catch_up.retry_at_ms {
                return;
            }
            let Some(at) = catch_up.queue.iter().position(|behind| behind.after.is_none()) else { break };
            if session.outbox.bytes() > 0 && !session.outbox.has_room(super::outbox::UPDATE_BYTES / 2) {
                return;
            }
            let Some(behind) = catch_up.queue.remove(at) else { break };
            if self.advance(slot, session, behind) {
                return;
            }
        }
        self.finish(slot, session);
    }

    /// One step for one stream; true when a read is under way now.
    fn advance(&mut self, slot: u32, session: &mut Session, behind: Behind) -> bool {
        let StreamPlan { stream, since, known, snapshot, .. } = behind.plan;
        let addr = self.addr(slot, session);
        if !snapshot {
            let (attach, incarnation) = self.shared.hub.attach(self.index, stream, since, known);
            let (Attach::Live { head, .. } | Attach::Behind { head }) = &attach;
            self.expect_runs(stream, *head, incarnation);
            match attach {
                Attach::Live { mut updates, reached, .. } => {
                    // Planted: the rest of a long resume is left out.
                    if saboteur::plants(Bug::ResumeTruncated) && behind.plan.resumed {
                        updates.truncate(TRUNCATED_UPDATES);
                    }
                    self.join(slot, session, stream, reached);
                    self.forget_behind(stream);
                    let (_, end) = self.push_page(slot, session, &updates, &behind.plan);
                    if end != End::Waits {
                        self.reached(session, &behind.plan, reached);
                    }
                    return false;
                }
                Attach::Behind { head } if head - since <= MISSED_UPDATES || behind.plan.resumed => {
                    self.shared.pages.ask(stream, since, addr);
                    session.catch_up.get_or_insert_default().reading = Some(behind);
                    return true;
                }
                Attach::Behind { .. } => {}
            }
        }
        self.shared.ask_snapshot(session.profile_id, stream, addr);
        session.catch_up.get_or_insert_default().reading = Some(behind);
        true
    }

    /// The hub has noted this worker's interest while the feed stood at `head`: runs come from there on.
    fn expect_runs(&mut self, stream: StreamId, head: u64, incarnation: u64) {
        let number = self.local_of(stream);
        if let Some(local) = self.locals.get_mut(number as usize)
            && (local.delivered == UNSET || local.incarnation != incarnation)
        {
            local.delivered = head;
            local.incarnation = incarnation;
        }
    }

    /// Adds a session to the live members of a stream, from `reached` on. The stream is counted as behind, so it exists.
    fn join(&mut self, slot: u32, session: &mut Session, stream: StreamId, reached: u64) {
        let number = self.local_of(stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        if reached > local.delivered {
            local.young.push((slot, reached));
        } else {
            local.members.push(slot);
        }
        match stream {
            StreamId::User(_) => session.user = number,
            StreamId::Thread(_) => session.threads.push(number),
        }
    }

    /// Writes updates read from ring or log, with what they do. The session is live in the stream, or reading it.
    /// Returns the position written, and how it ended; what waits keeps the rest of `from`.
    fn push_page(&mut self, slot: u32, session: &mut Session, updates: &[Update], from: &StreamPlan) -> (u64, End) {
        let mut position = 0;
        for update in updates {
            if let Touch::Removed { thread, seq } = update.touch
                && self.is_before(slot, session, StreamId::Thread(thread), seq)
                && !stays_are_ignored()
            {
                self.detach(slot, session, update.stream);
                let known = from.known.max(update.seq);
                let plan = StreamPlan { since: update.seq - 1, known, ..from.clone() };
                self.queue_behind(session, Behind { plan, after: Some(thread) });
                return (position, End::Waits);
            }
            session.push(update.frame.clone());
            metrics().deliveries.inc();
            self.mark_dirty_session(slot, session);
            position = update.seq;
            match &update.touch {
                Touch::Left(profiles) if profiles.contains(&session.profile_id) && !stays_are_ignored() => {
                    self.detach(slot, session, update.stream);
                    self.release_waiting(session, update.stream);
                    return (position, End::Left);
                }
                Touch::Added { thread, seq } if !self.is_in(session, StreamId::Thread(*thread)) => {
                    let stream = StreamId::Thread(*thread);
                    self.note_behind(stream);
                    self.queue_behind(session, Behind { plan: StreamPlan::live(stream, *seq), after: None });
                }
                _ => {}
            }
        }
        (position, End::Through)
    }

    /// A page of the log came.
    pub(super) fn page(
        &mut self,
        slot: u32,
        session: &mut Session,
        stream: StreamId,
        since: u64,
        result: Result<Arc<[Update]>, Refusal>,
    ) {
        let now_ms = self.now_ms;
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        let Some(mut behind) =
            catch_up.reading.take_if(|behind| behind.plan.stream == stream && behind.plan.since == since)
        else {
            return;
        };
        let updates = match result {
            Ok(updates) if !updates.is_empty() => updates,
            _ => {
                catch_up.queue.push_front(behind);
                catch_up.retry_at_ms = now_ms + RETRY_MS;
                return;
            }
        };
        let bytes: usize = updates.iter().map(|update| update.frame.len()).sum();
        if behind.plan.resumed {
            catch_up.resume_bytes += bytes;
            if catch_up.resume_bytes > CATCH_UP_BYTES {
                self.reset_rest(session, behind);
                return self.pump(slot, session);
            }
        }
        let brought = match updates.len() {
            // Planted: the first updates of a resume are all of it.
            many if saboteur::plants(Bug::ResumeTruncated) && behind.plan.resumed => {
                &updates[..many.min(TRUNCATED_UPDATES)]
            }
            _ => &updates[..],
        };
        let (position, end) = self.push_page(slot, session, brought, &behind.plan);
        match end {
            End::Through => {
                behind.plan.since = position;
                // Planted: the rest of a long resume is left out.
                if saboteur::plants(Bug::ResumeTruncated) && behind.plan.resumed {
                    behind.plan.since = behind.plan.known.max(position);
                }
                session.catch_up.get_or_insert_default().queue.push_front(behind);
            }
            End::Left => {
                self.reached(session, &behind.plan, position.max(since));
                self.forget_behind(stream);
            }
            End::Waits => self.forget_behind(stream),
        }
        self.pump(slot, session);
    }

    /// The catch-up is as large as one may be: what is left of it is reset, live at its head.
    fn reset_rest(&mut self, session: &mut Session, current: Behind) {
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        catch_up.queue.push_front(current);
        let mut jumped = Vec::new();
        for behind in catch_up.queue.iter_mut().filter(|behind| behind.plan.resumed) {
            behind.plan.resumed = false;
            behind.plan.snapshot = false;
            behind.plan.since = behind.plan.known;
            catch_up.resume.get_or_insert_default().reset.push(behind.plan.stream);
            jumped.push(behind.plan.stream);
        }
        jumped.into_iter().for_each(|stream| self.free_waiting(session, stream));
    }

    /// A snapshot came.
    pub(super) fn snapshot(
        &mut self,
        slot: u32,
        session: &mut Session,
        stream: StreamId,
        result: Result<(Bytes, u64), Refusal>,
    ) {
        let now_ms = self.now_ms;
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        let Some(mut behind) = catch_up.reading.take_if(|behind| behind.plan.stream == stream) else { return };
        match result {
            Ok((frame, seq)) => {
                behind.plan.snapshot = false;
                behind.plan.since = seq;
                behind.plan.known = behind.plan.known.max(seq);
                catch_up.queue.push_front(behind);
                session.push(frame);
                self.mark_dirty_session(slot, session);
                self.free_waiting(session, stream);
            }
            Err(refusal) if refusal.code == ErrorCode::NotFound => {
                // No member any more: the user stream tells the rest.
                if behind.plan.resumed {
                    catch_up.resume.get_or_insert_default().denied.push(name_of(stream));
                }
                self.release_waiting(session, stream);
                self.forget_behind(stream);
            }
            Err(_) => {
                catch_up.queue.push_front(behind);
                catch_up.retry_at_ms = now_ms + RETRY_MS;
                return;
            }
        }
        self.pump(slot, session);
    }

    fn reached(&mut self, session: &mut Session, plan: &StreamPlan, position: u64) {
        if plan.resumed {
            let catch_up = session.catch_up.get_or_insert_default();
            catch_up.resume.get_or_insert_default().reached.push((plan.stream, position));
        }
    }

    /// Nothing is left to read: says `resumed` where it is owed.
    fn finish(&mut self, slot: u32, session: &mut Session) {
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        let waiting = catch_up.queue.iter().any(|behind| behind.plan.resumed);
        if catch_up.reading.is_some() {
            return;
        }
        if !waiting && let Some(answer) = catch_up.resume.take() {
            catch_up.resume_bytes = 0;
            session.push(resumed_frame(&answer));
            self.mark_dirty_session(slot, session);
        }
        if session.catch_up.as_ref().is_some_and(|catch_up| catch_up.queue.is_empty()) {
            session.catch_up = None;
            if std::mem::take(&mut session.lag_told) {
                metrics().lagging_sessions.dec();
            }
        }
    }

    /// Starts the streams of a fresh session or a sync.
    pub(super) fn start_streams(
        &mut self,
        slot: u32,
        session: &mut Session,
        plans: Vec<StreamPlan>,
        resumed: Option<ResumeAnswer>,
    ) {
        if let Some(answer) = resumed {
            let owed = session.catch_up.get_or_insert_default().resume.get_or_insert_default();
            owed.reached.extend(answer.reached);
            owed.reset.extend(answer.reset);
            owed.denied.extend(answer.denied);
        }
        for mut plan in plans {
            // Planted: the update at the position comes once more.
            if saboteur::plants(Bug::CursorGe) && plan.resumed {
                plan.since = plan.since.saturating_sub(1);
            }
            if self.is_live(session, plan.stream) {
                self.note_behind(plan.stream);
                self.detach(slot, session, plan.stream);
            } else if session.is_behind_in(plan.stream) {
                // Already on its way, from the position the socket was last given.
                session.owe_resumed(plan.stream);
                continue;
            } else {
                self.note_behind(plan.stream);
            }
            self.queue_behind(session, Behind { plan, after: None });
        }
        self.pump(slot, session);
    }

    /// The stream goes on at `head`; its sessions read the rest from the log.
    pub(super) fn jump(&mut self, stream: StreamId, head: u64) {
        let number = self.local_of(stream);
        let Some(local) = self.locals.get_mut(number as usize) else { return };
        if local.delivered == UNSET || head <= local.delivered {
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
            self.jump(stream, head);
        }
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
            self.release_if_unused(number);
        }
        if let Some(catch_up) = session.catch_up.take() {
            let CatchUp { queue, reading, .. } = *catch_up;
            for behind in queue.into_iter().chain(reading) {
                if behind.after.is_none() {
                    self.forget_behind(behind.plan.stream);
                }
            }
        }
        if std::mem::take(&mut session.lag_told) {
            metrics().lagging_sessions.dec();
        }
    }

    /// Asks for nothing, answers a command: the reply goes out, what waited for it goes on.
    pub(super) fn reply(&mut self, to: super::inbox::SessionAddr, frame: Bytes, thread: Option<Uuid>, is_send: bool) {
        self.on(to, |worker, slot, session| {
            session.in_work = session.in_work.saturating_sub(1);
            session.push(frame);
            if let Some(thread) = thread {
                worker.work_done(slot, session, thread, is_send);
            }
        });
    }
}

#[derive(serde::Serialize)]
struct LagBody {
    streams: [String; 1],
}

/// Planted: the end of a stay ends nothing here, and nothing may wait for it.
fn stays_are_ignored() -> bool {
    saboteur::plants(Bug::KickNotApplied) || saboteur::plants(Bug::NoRecheckOnResume)
}

/// A stream's name on the wire.
pub(super) fn name_of(stream: StreamId) -> String {
    match stream {
        StreamId::User(_) => "user".to_owned(),
        StreamId::Thread(id) => id.to_string(),
    }
}

fn resumed_frame(answer: &ResumeAnswer) -> Bytes {
    #[derive(serde::Serialize)]
    struct Resumed {
        streams: serde_json::Map<String, serde_json::Value>,
        reset: Vec<String>,
        denied: Vec<String>,
    }
    let streams = answer.reached.iter().map(|(stream, seq)| (name_of(*stream), (*seq).into())).collect();
    let reset = answer.reset.iter().map(|stream| name_of(*stream)).collect();
    reply::notice("resumed", &Resumed { streams, reset, denied: answer.denied.clone() })
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
