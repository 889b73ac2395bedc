//! Those who are behind: a session's catch-up queue, gone through one read at a time, from ring, log or snapshot until
//! each stream is live. One machine for `auth`, resume, `sync`, joining and slow readers.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::backlog::Behind;
use super::delivery::{piece, stays_are_ignored};
use super::feed::Attach;
use super::inbox::ResumeAnswer;
use super::outbox::{OUTBOX_BYTES, UPDATE_BYTES};
use super::plan::{CATCH_UP_BYTES, MISSED_UPDATES, StreamPlan};
use super::session::Session;
use super::streams::name_of;
use super::worker::Worker;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::reply;
use crate::protocol::size::PAGE_BYTES;
use crate::saboteur::{self, Bug, TRUNCATED_UPDATES};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Touch, Update};

/// Steps of one session in one turn of its worker: as long as one that is in thousands of threads takes, others go on.
const STEPS: usize = 256;
/// Pause after a read that failed, milliseconds.
pub(super) const RETRY_MS: u64 = 250;

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
    /// Makes a session live in a stream from a position on, now or as soon as the log was read.
    pub(super) fn go(&mut self, slot: u32, session: &mut Session, plan: StreamPlan) {
        self.queue_behind(session, Behind::new(plan));
        self.pump(slot, session);
    }

    /// Goes through a session's backlog as far as its outbox, the log and its part of the turn allow.
    pub(super) fn pump(&mut self, slot: u32, session: &mut Session) {
        let mut steps = 0;
        while let Some(catch_up) = session.catch_up.as_mut() {
            if catch_up.yielded || catch_up.reading.is_some() || self.now_ms < catch_up.retry_at_ms {
                return;
            }
            if catch_up.backlog.is_at_rest() {
                break;
            }
            if steps == STEPS {
                catch_up.yielded = true;
                return self.yielded.push(slot);
            }
            if !session.outbox.has_room(UPDATE_BYTES / 2) {
                return;
            }
            let Some(behind) = catch_up.backlog.pop() else { break };
            steps += 1;
            if self.advance(slot, session, behind) {
                return;
            }
        }
        self.finish(slot, session);
    }

    /// The next turn of a session that has had its part of the last one.
    pub(super) fn resume_turn(&mut self, slot: u32, session: &mut Session) {
        if let Some(catch_up) = session.catch_up.as_mut() {
            catch_up.yielded = false;
            self.pump(slot, session);
        }
    }

    /// One step for one stream; true when a read is under way now, or the socket must take something first.
    pub(super) fn advance(&mut self, slot: u32, session: &mut Session, mut behind: Behind) -> bool {
        let StreamPlan { stream, since, known, snapshot, .. } = behind.plan;
        if !std::mem::replace(&mut behind.counted, true) {
            self.note_behind(stream);
        }
        let addr = self.addr(slot, session);
        if !snapshot {
            let (attach, incarnation) = self.shared.hub.attach(self.index, stream, since, known);
            let (Attach::Live { head, .. } | Attach::Behind { head }) = &attach;
            self.expect_runs(stream, *head, incarnation);
            match attach {
                // The feed is behind the database: what was missed is read, so that `resumed` comes after it.
                Attach::Live { reached, .. } if reached < known => {
                    self.shared.pages.ask(stream, since, addr);
                    session.catch_up.get_or_insert_default().reading = Some(behind);
                    return true;
                }
                Attach::Live { updates, .. }
                    if !session.outbox.has_room(updates.iter().map(|update| update.frame.len()).sum()) =>
                {
                    session.catch_up.get_or_insert_default().backlog.push_front(behind);
                    return true;
                }
                Attach::Live { mut updates, reached, .. } => {
                    // Planted: the rest of a long resume is left out.
                    if saboteur::plants(Bug::ResumeTruncated) && behind.plan.resumed {
                        updates.truncate(TRUNCATED_UPDATES);
                    }
                    self.join(slot, session, stream, reached);
                    self.forget_behind(stream);
                    let (position, end) = self.push_page(slot, session, &updates, &behind);
                    match end {
                        End::Through => self.reached(session, &behind.plan, reached),
                        End::Left => self.reached(session, &behind.plan, position),
                        End::Waits => {}
                    }
                    return false;
                }
                Attach::Behind { head }
                    if head - since <= MISSED_UPDATES
                        || (behind.plan.resumed && since < known)
                        || behind.plan.ended =>
                {
                    self.shared.pages.ask(stream, since, addr);
                    session.catch_up.get_or_insert_default().reading = Some(behind);
                    return true;
                }
                Attach::Behind { .. } => {}
            }
        }
        if session.outbox.held() + PAGE_BYTES > OUTBOX_BYTES {
            session.catch_up.get_or_insert_default().backlog.push_front(behind);
            return true;
        }
        session.outbox.reserve(PAGE_BYTES);
        self.shared.ask_snapshot(session.profile_id, stream, addr);
        session.catch_up.get_or_insert_default().reading = Some(behind);
        true
    }

    /// Writes updates read from ring or log, with what they do. The session is live in the stream, or reading it.
    /// Returns the position written, and how it ended; what waits keeps the rest of `from`.
    fn push_page(&mut self, slot: u32, session: &mut Session, updates: &[Update], from: &Behind) -> (u64, End) {
        let mut position = 0;
        for update in updates {
            if update.seq > from.given
                && let Some(thread) = self.must_be_left_first(slot, session, &update.touch)
            {
                self.detach(slot, session, update.stream);
                let known = from.plan.known.max(update.seq);
                let plan = StreamPlan { since: update.seq - 1, known, ..from.plan.clone() };
                self.queue_behind(session, Behind { after: Some(thread), ..Behind::new(plan) });
                return (position, End::Waits);
            }
            position = update.seq;
            if update.seq > from.told {
                session.outbox.push_update(update.frame.clone());
                metrics().deliveries.inc();
                self.mark_dirty_session(slot, session);
            }
            match &update.touch {
                Touch::Left(profiles) if profiles.contains(&session.profile_id) && !stays_are_ignored() => {
                    self.detach(slot, session, update.stream);
                    session.note_left(update.stream.uuid(), update.seq);
                    self.release_waiting(session, update.stream);
                    return (position, End::Left);
                }
                Touch::Removed { thread, seq } => session.note_removed(*thread, *seq),
                Touch::Added { thread, seq } if update.seq > from.given => {
                    session.entered_at = update.seq;
                    let stream = StreamId::Thread(*thread);
                    if let Some(behind) = session.behind_in_mut(stream) {
                        behind.told = behind.told.max(*seq);
                    } else if !self.is_live(session, stream) && !session.has_left(*thread, *seq) {
                        self.queue_behind(session, Behind::new(StreamPlan::live(stream, *seq)));
                    }
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
            // Behind the session's other streams, which may have no trouble.
            Err(refusal) if refusal.code == ErrorCode::Internal => {
                behind.plan.snapshot = true;
                catch_up.backlog.push_back(behind);
                return self.pump(slot, session);
            }
            _ => {
                catch_up.backlog.push_back(behind);
                catch_up.retry_at_ms = now_ms + RETRY_MS;
                return;
            }
        };
        // What the socket takes at once goes on its way at once; the rest is read again when it has taken that.
        let count = self.takes(slot, session, &updates);
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        let updates = &updates[..count];
        if updates.is_empty() {
            catch_up.backlog.push_front(behind);
            return;
        }
        let bytes: usize = updates.iter().map(|update| update.frame.len()).sum();
        // What was committed after the client asked is no part of its resume and is not counted: it is never reset.
        if behind.plan.resumed && since < behind.plan.known && !stream.is_user() {
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
            _ => updates,
        };
        let (position, end) = self.push_page(slot, session, brought, &behind);
        match end {
            End::Through => {
                behind.plan.since = position;
                // Planted: the rest of a long resume is left out.
                if saboteur::plants(Bug::ResumeTruncated) && behind.plan.resumed {
                    behind.plan.since = behind.plan.known.max(position);
                }
                session.catch_up.get_or_insert_default().backlog.push_front(behind);
            }
            End::Left => {
                self.reached(session, &behind.plan, position.max(since));
                self.forget_behind(stream);
            }
            End::Waits => self.forget_behind(stream),
        }
        self.pump(slot, session);
    }

    /// The catch-up is as large as one may be: threads that are left of it are reset, live at their heads. A stream that has got to
    /// the head it was asked from, or beyond, has nothing left: going back there would bring updates twice.
    pub(super) fn reset_rest(&mut self, session: &mut Session, current: Behind) {
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        catch_up.backlog.push_front(current);
        let mut jumped = Vec::new();
        let is_short =
            |plan: &StreamPlan| plan.resumed && (plan.snapshot || plan.since < plan.known) && !plan.stream.is_user();
        for behind in catch_up.backlog.iter_mut().filter(|behind| is_short(&behind.plan)) {
            behind.plan.resumed = false;
            behind.plan.snapshot = false;
            behind.plan.since = behind.plan.known;
            catch_up.resume.get_or_insert_default().reset.push(behind.plan.stream);
            jumped.push(behind.plan.stream);
        }
        jumped.into_iter().for_each(|stream| self.free_waiting(session, stream));
    }

    /// How many of `updates`, from the first on, may wait for this socket now.
    fn takes(&mut self, slot: u32, session: &mut Session, updates: &[Update]) -> usize {
        let updates = &updates[..piece(updates)];
        let room = |session: &Session| {
            let mut bytes = 0;
            let fits = |update: &&Update| {
                bytes += update.frame.len();
                session.outbox.has_room(bytes)
            };
            updates.iter().take_while(fits).count()
        };
        let count = room(session);
        if count < updates.len() && !session.outbox.is_empty() {
            session.write_ahead(self.now_ms);
            self.mark_dirty_session(slot, session);
            return room(session);
        }
        count
    }

    pub(super) fn reached(&mut self, session: &mut Session, plan: &StreamPlan, position: u64) {
        if plan.resumed {
            let catch_up = session.catch_up.get_or_insert_default();
            catch_up.resume.get_or_insert_default().reached.push((plan.stream, position));
        }
    }

    /// Nothing is left to read: says `resumed` where it is owed.
    pub(super) fn finish(&mut self, slot: u32, session: &mut Session) {
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        let waiting = catch_up.backlog.waits_for_resume();
        if catch_up.reading.is_some() {
            return;
        }
        if !waiting && let Some(mut answer) = catch_up.resume.take() {
            catch_up.resume_bytes = 0;
            // Who was let in again meanwhile has been told so, and is not to forget the thread.
            answer.denied.retain(|name| {
                !Uuid::parse_str(name).is_ok_and(|thread| self.is_in(session, StreamId::Thread(thread)))
            });
            session.push(resumed_frame(&answer));
            self.mark_dirty_session(slot, session);
        }
        if session.catch_up.as_ref().is_some_and(|catch_up| catch_up.backlog.is_empty()) {
            session.catch_up = None;
            session.note_caught_up();
        }
    }

    /// Starts the streams that a `sync` names. `user_seq`: the head of the user stream that they were judged at.
    pub(super) fn start_streams(
        &mut self,
        slot: u32,
        session: &mut Session,
        plans: Vec<StreamPlan>,
        mut answer: ResumeAnswer,
        user_seq: u64,
    ) {
        let told = self.position(slot, session, StreamId::User(session.profile_id)).unwrap_or(0);
        for mut plan in plans {
            let stream = plan.stream;
            // A client that was sent a snapshot gets nothing from before it, though it may have asked before it came.
            plan.snapshot |= session.is_older(stream, plan.since);
            if self.is_live(session, stream) {
                let given = self.position(slot, session, stream).unwrap_or(0);
                // It may have been left and entered again since it was judged, and what lies between is not for it.
                plan.snapshot |= session.entered_at > user_seq && !stream.is_user() && !stays_are_ignored();
                if plan.snapshot {
                    // Should it have been left by then, the rest of the stay that the socket is in is told from here.
                    plan = StreamPlan { since: given, stay: true, ..plan };
                }
                self.note_behind(stream);
                self.detach(slot, session, stream);
                self.queue_behind(session, Behind { counted: true, given, ..Behind::new(plan) });
                // The position named may be past a leave that the user stream waits for.
                self.free_waiting(session, stream);
            } else if let Some(behind) = session.behind_in_mut(stream) {
                // Already on its way, from the position the socket was last given.
                behind.plan.resumed = true;
            } else if told >= user_seq && !stream.is_user() && !stays_are_ignored() {
                // Left since it was judged: the socket was told all of the user stream up to there, and more.
                answer.denied.push(name_of(stream));
            } else {
                self.queue_behind(session, Behind::new(plan));
            }
        }
        let owed = session.catch_up.get_or_insert_default().resume.get_or_insert_default();
        owed.reached.extend(answer.reached);
        owed.reset.extend(answer.reset);
        owed.denied.extend(answer.denied);
        self.pump(slot, session);
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
