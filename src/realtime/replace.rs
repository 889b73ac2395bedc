//! Snapshots: a stream of a session that is too far behind is replaced, and goes on from there. That of the user stream
//! takes the session into every thread it shows, as the updates that it skips would have done.

use std::collections::HashMap;

use bytes::Bytes;
use uuid::Uuid;

use super::UserSnapshot;
use super::backlog::Behind;
use super::behind::RETRY_MS;
use super::inbox::Snapshot;
use super::plan::{Position, StreamPlan};
use super::session::Session;
use super::streams::name_of;
use super::worker::Worker;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::size::PAGE_BYTES;
use crate::updates::StreamId;

impl Worker {
    /// A snapshot came.
    pub(super) fn snapshot(
        &mut self,
        slot: u32,
        session: &mut Session,
        stream: StreamId,
        result: Result<Snapshot, Refusal>,
    ) {
        let now_ms = self.now_ms;
        let Some(catch_up) = session.catch_up.as_mut() else { return };
        let Some(mut behind) = catch_up.reading.take_if(|behind| behind.plan.stream == stream) else { return };
        session.outbox.unreserve(PAGE_BYTES);
        match result {
            Ok(snapshot) => {
                let seq = snapshot.seq();
                behind.plan =
                    StreamPlan { since: seq, known: seq.max(behind.plan.known), snapshot: false, ..behind.plan };
                catch_up.backlog.push_front(behind);
                let frame = match snapshot {
                    Snapshot::Thread { frame, .. } => frame,
                    Snapshot::User(shown) => self.show_all(slot, session, *shown),
                };
                session.push(frame);
                session.note_snapshot(stream, seq);
                self.mark_dirty_session(slot, session);
                self.free_waiting(session, stream);
            }
            // The stay has ended: what is left of it is told to its end.
            Err(refusal) if refusal.code == ErrorCode::NotFound && behind.plan.stay && !stream.is_user() => {
                behind.plan = StreamPlan { snapshot: false, stay: false, ended: true, ..behind.plan };
                catch_up.backlog.push_front(behind);
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
                catch_up.backlog.push_back(behind);
                catch_up.retry_at_ms = now_ms + RETRY_MS;
                return;
            }
        }
        self.pump(slot, session);
    }

    /// The frame of a user stream's snapshot. From it on the session is live in every thread the person is in: as the row
    /// says where it begins now, else from where it stands, which no row is above.
    fn show_all(&mut self, slot: u32, session: &mut Session, mut shown: UserSnapshot) -> Bytes {
        session.entered_at = shown.seq;
        if session.left.is_some() {
            // A thread that is not in it was left before, and the user stream will not tell of that any more.
            let present: HashMap<Uuid, u64> = shown.positions.iter().map(|(id, at)| (*id, at.join_seq)).collect();
            session.keep_left(|thread, seq| present.get(&thread).is_some_and(|join_seq| seq >= *join_seq));
        }
        for (at, (thread, position)) in shown.positions.iter().enumerate() {
            let told = self.show(slot, session, *thread, *position);
            if let Some(row) = shown.threads.get_mut(at) {
                row.seq = told as i64;
            }
        }
        shown.frame()
    }

    /// Takes a session into a thread whose position stands in a snapshot of the user stream; the position to be told.
    fn show(&mut self, slot: u32, session: &mut Session, thread: Uuid, position: Position) -> u64 {
        let (stream, head) = (StreamId::Thread(thread), position.head);
        let stands_at = self.position(slot, session, stream);
        if stands_at.is_some_and(|at| at >= position.join_seq) {
            return head.min(stands_at.unwrap_or(head));
        }
        if let Some(behind) = session.behind_in_mut(stream) {
            // It stands in an earlier stay, whose end and what came after it the snapshot has skipped.
            behind.plan = StreamPlan { snapshot: true, stay: false, known: head.max(behind.plan.known), ..behind.plan };
        } else if let Some(at) = stands_at {
            self.note_behind(stream);
            self.detach(slot, session, stream);
            let plan = StreamPlan { since: at, snapshot: true, stay: false, ..StreamPlan::live(stream, head) };
            self.queue_behind(session, Behind { counted: true, ..Behind::new(plan) });
        } else if !session.has_left(thread, position.join_seq) {
            self.queue_behind(session, Behind::new(StreamPlan::live(stream, head)));
        }
        head
    }
}
