//! What other threads hand to a worker: a bounded queue and a wake-up that costs one system call per sleep, not per
//! message. Runs of updates count in bytes; when they pass the limit they are dropped and the worker is told, so that it
//! feeds its sessions from the log.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::backlog::Backlog;
use super::plan::StreamPlan;
use super::registry::Registration;
use super::socket::Socket;
use super::{Access, Credential, UserSnapshot};
use crate::limits::AddressGuard;
use crate::protocol::CloseCode;
use crate::protocol::codes::Refusal;
use crate::updates::{StreamId, Update};

/// Bytes of update frames waiting for one worker.
pub const RUN_BYTES: usize = 64 << 20;

/// One socket of one worker; `generation` tells a reused slot apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionAddr {
    pub worker: u16,
    pub slot: u32,
    pub generation: u32,
}

/// What somebody wants kept until most sockets have got a run.
pub type Kept = Arc<dyn Any + Send + Sync>;

/// Contiguous updates of one stream, in order.
#[derive(Clone)]
pub struct Run {
    pub stream: StreamId,
    /// The life of the feed that it comes from.
    pub incarnation: u64,
    pub updates: Arc<[Update]>,
    /// Dropped when most sockets that take anything have got it.
    pub kept: Option<Kept>,
}

/// A socket after its upgrade.
pub struct NewSocket {
    pub socket: Socket,
    /// Bytes that came behind the request.
    pub early: Vec<u8>,
    pub credential: Option<Credential>,
    pub guard: AddressGuard,
}

/// Messages to a worker.
pub enum ToWorker {
    Socket(Box<NewSocket>),
    Run(Run),
    /// A hole too wide to fill: sessions of the stream go on from the log, the stream at `head`.
    Jump {
        stream: StreamId,
        /// As of a run: one of an earlier life is for nobody.
        incarnation: u64,
        head: u64,
    },
    /// A finished command: its reply (empty: none is owed).
    Reply {
        to: SessionAddr,
        frame: Bytes,
        thread: Option<uuid::Uuid>,
    },
    /// The answer to the read under way of a session.
    Answer {
        to: SessionAddr,
        frame: Bytes,
    },
    /// Answers of one committed batch.
    Replies(Vec<(SessionAddr, Bytes, uuid::Uuid)>),
    Authenticated {
        to: SessionAddr,
        access: Access,
        registration: Registration,
        reply: Bytes,
        streams: Backlog,
        resumed: Option<ResumeAnswer>,
    },
    Refreshed {
        to: SessionAddr,
        access: Access,
        /// Where the token is of another signed-in session than before.
        registration: Option<Registration>,
        reply: Bytes,
    },
    AuthFailed {
        to: SessionAddr,
        id: Option<u64>,
        refusal: Refusal,
    },
    /// Streams to go through the log for a `sync`, already judged.
    Sync {
        to: SessionAddr,
        reply: Bytes,
        streams: Vec<StreamPlan>,
        resumed: ResumeAnswer,
        user_seq: u64,
    },
    /// A page of the log, or why there is none.
    Page {
        to: SessionAddr,
        stream: StreamId,
        since: u64,
        result: Result<Arc<[Update]>, Refusal>,
    },
    /// A snapshot, or why there is none.
    Snapshot {
        to: SessionAddr,
        stream: StreamId,
        result: Result<Snapshot, Refusal>,
    },
    Close {
        to: SessionAddr,
        code: CloseCode,
        retry_after_ms: Option<u32>,
    },
    /// Close all sockets with this code; `spread_ms` is told as retry-after at random.
    CloseAll {
        code: CloseCode,
        spread_ms: u32,
    },
    /// Panics.
    #[cfg(test)]
    Fail,
}

/// What replaces a stream at a client that is too far behind.
pub enum Snapshot {
    /// The ready frame.
    Thread {
        frame: Bytes,
        seq: u64,
    },
    User(Box<UserSnapshot>),
}

impl Snapshot {
    /// The position it is as of.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Thread { seq, .. } => *seq,
            Self::User(shown) => shown.seq,
        }
    }
}

/// What `resumed` will say of streams that need no reading.
#[derive(Debug, Default)]
pub struct ResumeAnswer {
    pub reached: Vec<(StreamId, u64)>,
    pub reset: Vec<StreamId>,
    pub denied: Vec<String>,
}

#[derive(Default)]
struct Queue {
    messages: Vec<ToWorker>,
    run_bytes: usize,
    overflowed: bool,
}

/// The sending side; shared by everybody.
pub struct Inbox {
    queue: Mutex<Queue>,
    asleep: AtomicBool,
    /// Something was pushed since the last drain.
    filled: AtomicBool,
    stopped: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Inbox {
    /// `wake` ends the worker's sleep.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            asleep: AtomicBool::new(true),
            filled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            wake,
        }
    }

    /// Hands over a message. Everything but runs is bounded by its origin (sockets, commands in work).
    pub fn push(&self, message: ToWorker) {
        let bytes = match &message {
            ToWorker::Run(run) => run.updates.iter().map(|update| update.frame.len()).sum(),
            _ => 0,
        };
        {
            let mut queue = self.lock();
            if bytes > 0 && queue.run_bytes + bytes > RUN_BYTES {
                if !queue.overflowed {
                    crate::telemetry::metrics().dropped.with_label_values(&["worker_inbox"]).inc();
                }
                queue.overflowed = true;
                queue.messages.retain(|message| !matches!(message, ToWorker::Run(_)));
                queue.run_bytes = 0;
            } else if bytes == 0 || !queue.overflowed {
                queue.run_bytes += bytes;
                queue.messages.push(message);
            }
            self.filled.store(true, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Ends the worker.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Takes everything; true when runs were dropped since the last time.
    pub fn drain(&self, into: &mut Vec<ToWorker>) -> bool {
        let mut queue = self.lock();
        self.filled.store(false, Ordering::SeqCst);
        std::mem::swap(&mut queue.messages, into);
        queue.run_bytes = 0;
        std::mem::take(&mut queue.overflowed)
    }

    pub fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::SeqCst)
    }

    /// The worker is about to sleep; it must look at `is_empty` after this.
    pub fn going_to_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
