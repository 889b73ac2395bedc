//! Commands that read a page (`history`, `thread.open`, lists, `sync`): one at a time for each session, and none while the
//! pages before it wait to be taken. So a client that does not read holds one page, whatever it asks for. The order of
//! commands on one thread is kept by `commands`; reads of different threads go in the order received.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::CommandName;
use super::inbox::{SessionAddr, ToWorker};
use super::outbox::OUTBOX_BYTES;
use super::session::Session;
use super::worker::Worker;
use crate::protocol::reply;
use crate::protocol::size::PAGE_BYTES;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Command(CommandName),
    Sync,
}

/// One such command.
#[derive(Debug, Clone)]
pub struct Read {
    pub id: Option<u64>,
    pub what: What,
    pub d: Arc<str>,
    /// The thread whose commands wait for this one.
    pub thread: Option<Uuid>,
    /// Its answer came when there was no room for it. Room is kept for the next.
    again: bool,
}

impl Read {
    pub fn new(id: Option<u64>, what: What, d: &str, thread: Option<Uuid>) -> Self {
        Self { id, what, d: d.into(), thread, again: false }
    }

    /// What it holds while it waits, bytes.
    fn bytes(&self) -> u32 {
        (size_of::<Self>() + self.d.len()) as u32
    }
}

/// The reads of one session; only there while there are some.
#[derive(Debug, Default)]
pub struct Reads {
    /// The one being answered.
    current: Option<Read>,
    line: VecDeque<Read>,
}

impl Worker {
    /// Puts a read, counted among the commands in work, behind those before it.
    pub(super) fn queue_read(&mut self, slot: u32, session: &mut Session, read: Read) {
        session.waiting_bytes = session.waiting_bytes.saturating_add(read.bytes());
        session.reads.get_or_insert_default().line.push_back(read);
        self.next_read(slot, session);
    }

    /// Starts the next read where none is under way and there is room for its answer.
    pub(super) fn next_read(&mut self, slot: u32, session: &mut Session) {
        let Some(reads) = session.reads.as_mut() else { return };
        if reads.current.is_some() || session.outbox.held() + PAGE_BYTES > OUTBOX_BYTES {
            return;
        }
        // A `sync` waits until the catch-up before it was answered with `resumed`: what is owed does not grow.
        let catching_up = session.catch_up.as_ref().is_some_and(|catch_up| catch_up.resume.is_some());
        let may_go = |read: &Read| read.what != What::Sync || !catching_up;
        let Some(read) = reads.line.iter().position(may_go).and_then(|at| reads.line.remove(at)) else { return };
        session.waiting_bytes = session.waiting_bytes.saturating_sub(read.bytes());
        if read.again {
            session.outbox.reserve(PAGE_BYTES);
        }
        reads.current = Some(read.clone());
        match read.what {
            What::Command(name) => self.look(slot, session, name, read),
            What::Sync => self.look_for_sync(slot, session, read),
        }
    }

    fn look(&self, slot: u32, session: &Session, name: CommandName, read: Read) {
        let address = session.guard.address();
        let (to, actor_id, shared) = (self.addr(slot, session), session.profile_id, self.shared.clone());
        self.shared.runtime.spawn(async move {
            let frame = match shared.backend.command(actor_id, address, name, &read.d).await {
                Ok(value) => reply::ok(read.id, &value),
                Err(refusal) => reply::err(read.id, name.wire_name(), &refusal),
            };
            shared.to_worker(to, ToWorker::Answer { to, frame });
        });
    }

    /// The answer to the read under way. Where there is no room for it, it is let go and read again when there is.
    pub(super) fn answer(&mut self, to: SessionAddr, frame: Bytes) {
        self.on(to, |worker, slot, session| {
            let Some(mut read) = worker.take_read(session) else { return };
            if !read.again && !session.outbox.has_reply_room(frame.len()) {
                read.again = true;
                session.waiting_bytes = session.waiting_bytes.saturating_add(read.bytes());
                session.reads.get_or_insert_default().line.push_front(read);
                return;
            }
            session.in_work = session.in_work.saturating_sub(1);
            session.push(frame);
            if let Some(thread) = read.thread {
                worker.work_done(slot, session, thread, false);
            }
        });
    }

    /// The read under way, which is over now; the next one starts when what it brought was flushed.
    pub(super) fn take_read(&mut self, session: &mut Session) -> Option<Read> {
        let reads = session.reads.as_mut()?;
        let read = reads.current.take()?;
        if read.again {
            session.outbox.unreserve(PAGE_BYTES);
        }
        if reads.line.is_empty() {
            session.reads = None;
        }
        Some(read)
    }
}
