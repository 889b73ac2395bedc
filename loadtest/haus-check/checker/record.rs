//! The records of a history file: one JSON object a line, `op` first. What is written here is all the
//! checker knows; `README.md` beside `main.rs` describes each record for other writers.
//! Nothing is judged here.
//!
//! The order of the lines is the order in which the recorder learned of things: a line that stands
//! before another happened before it, so no clock is needed to judge. `t_us` (microseconds of one
//! monotonic clock since `begin`) serves the obligations alone.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// An ordered log of updates: the reader's own user stream, or a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamId {
    /// The user stream of the client's own profile.
    User,
    /// The stream of the thread with this id.
    Thread(Uuid),
}

impl StreamId {
    /// Reads `user` or a UUID, as the protocol names streams. `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "user" {
            return Some(Self::User);
        }
        Uuid::parse_str(name).ok().map(Self::Thread)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => out.write_str("user"),
            Self::Thread(id) => id.fmt(out),
        }
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("not a stream: `user` or a UUID"))
    }
}

/// Positions by stream, as in `auth`, `sync` and `resumed`.
pub type Positions = BTreeMap<StreamId, u64>;

/// What broke or was mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A node process ended by SIGKILL.
    NodeKill,
    /// A node process stopped for a while, then continued.
    NodeStop,
    /// Redis ended by SIGKILL, or stopped so that it answers nothing.
    RedisDown,
    /// Postgres ended at once, with its connections.
    PostgresDown,
    /// Client sockets cut by the proxy.
    SocketsCut,
    /// The path between clients and a node swallows bytes without closing.
    BlackHole,
    /// A client stays away, or stops reading, for long.
    ClientAway,
}

/// One message of a history page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageMessage {
    /// Position in the thread's stream.
    pub seq: u64,
    /// Number among the thread's messages.
    pub no: u64,
    /// The sender's nonce; absent for system messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Uuid>,
    /// Hash of sender and content, the same everywhere in the history.
    #[serde(default)]
    pub hash: u64,
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Record {
    /// First line of every history.
    Begin { seed: u64, nodes: u32 },
    /// A thread and the members it was made with.
    Thread { thread: Uuid, members: Vec<Uuid> },
    /// A recording client: one device of one profile, one socket at a time.
    Client { client: u32, profile: Uuid },
    /// A new socket of the client, to this node. The old one, if any, is gone.
    Open { client: u32, node: String },
    /// The reply to `auth`: what the client asked to resume, and the positions the reply listed.
    Auth { client: u32, resume: Positions, streams: Positions },
    /// `sync` was sent.
    Sync { client: u32, streams: Positions },
    /// `resumed` arrived.
    Resumed { client: u32, streams: Positions, reset: Vec<StreamId>, denied: Vec<StreamId> },
    /// `snapshot` arrived.
    Snapshot { client: u32, stream: StreamId, seq: u64 },
    /// An update arrived on the socket. `nonce` and `hash` for `message.created` alone.
    Deliver {
        client: u32,
        stream: StreamId,
        seq: u64,
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<Uuid>,
        #[serde(default)]
        hash: u64,
        t_us: u64,
    },
    /// `thread.added` arrived: the client is live in the thread from `seq`.
    Added { client: u32, thread: Uuid, seq: u64 },
    /// `thread.removed` arrived: the stay ended at `seq`.
    Removed { client: u32, thread: Uuid, seq: u64 },
    /// The client's socket ended.
    Close { client: u32 },
    /// A send (or its repetition) left for a node, by socket or REST.
    Send { client: u32, thread: Uuid, nonce: Uuid, hash: u64, node: String },
    /// The send was answered `ok`.
    Ack { client: u32, thread: Uuid, nonce: Uuid, hash: u64, seq: u64, dup: bool },
    /// The send was refused for good (not retryable). A timeout or a lost socket has no record.
    Nack { client: u32, thread: Uuid, nonce: Uuid, hash: u64, code: String },
    /// A history page was asked for; `read` pairs it with its `page`.
    Read { client: u32, thread: Uuid, read: u64 },
    /// The page arrived, in the order the server gave. `newest`: asked without a cursor.
    Page { client: u32, thread: Uuid, read: u64, newest: bool, messages: Vec<PageMessage> },
    /// A fault began (written once it took effect).
    Fault { kind: Fault, node: String, t_us: u64 },
    /// The fault of this kind ended.
    Heal { kind: Fault, node: String, t_us: u64 },
    /// Holes a node says it filled from the log since it started.
    Repairs { node: String, count: u64 },
    /// One update of the final log, by `GET /v1/threads/{id}/updates` after everything healed.
    Log {
        thread: Uuid,
        seq: u64,
        kind: String,
        #[serde(default)]
        no: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<Uuid>,
        #[serde(default)]
        hash: u64,
        /// Sender of a message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<Uuid>,
        /// Who joined or left.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        profiles: Vec<Uuid>,
    },
    /// After everything healed and time to catch up passed, the session as it is.
    Settled { client: u32 },
    /// As `settled`, after a last resume and reading all that snapshots left out.
    End { client: u32 },
}

/// Whether the line is part of the final truth, told by its first bytes so that the first pass need
/// not parse the others.
pub fn is_truth(line: &str) -> bool {
    ["{\"op\":\"log\"", "{\"op\":\"thread\"", "{\"op\":\"client\""].iter().any(|head| line.starts_with(head))
}
