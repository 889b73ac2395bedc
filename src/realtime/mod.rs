//! The node's engine: feeds, fan-out and sessions. No SQL and no axum; what it needs of the rest it asks through the
//! traits below, which `startup` implements.
//!
//! Path of an update: `Hub::ingest` puts it in order (`feed`), hands it once to each worker with interest (`inbox`), the
//! worker appends it to the outbox of each local member and flushes every dirty socket with one write (`worker`).

pub mod auth;
pub mod backlog;
pub mod behind;
pub mod catch_up;
pub mod commands;
pub mod delivery;
pub mod feed;
mod fill;
pub mod flush;
pub mod hub;
pub mod inbox;
pub mod node;
pub mod outbox;
pub mod plan;
mod poll;
pub mod reader;
pub mod reads;
pub mod registry;
pub mod repair;
pub mod replace;
pub mod session;
#[cfg(test)]
mod simulation;
pub mod socket;
pub mod streams;
pub mod sync;
pub mod timers;
pub mod worker;
pub mod ws;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::inbox::Snapshot;
use self::plan::Position;
use crate::protocol::codes::Refusal;
use crate::protocol::reply;
use crate::protocol::types::{SendBody, ThreadRow};
use crate::updates::{StreamId, Update};

/// A boxed future, for traits that are used as objects.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads of the log: holes, catch-up pages, heads, the snapshot poll.
pub trait LogReader: Send + Sync + 'static {
    /// Up to `limit` updates after each position, in order; one list an ask, in the order of the asks. A list is bounded in
    /// bytes too, and holds one update at least where there is one.
    fn pages<'a>(&'a self, asks: &'a [(StreamId, u64)], limit: u32) -> Later<'a, Result<Vec<Vec<Update>>, Refusal>>;
    /// Committed heads; streams that do not exist are left out.
    fn heads<'a>(&'a self, streams: &'a [StreamId]) -> Later<'a, Result<Vec<(StreamId, u64)>, Refusal>>;
    /// Streams that moved since `position` was taken, and the position for the next call. Without one only a position is
    /// taken. About `rows` rows are read at most.
    fn poll(&self, position: Option<String>, rows: u32) -> Later<'_, Result<Polled, Refusal>>;
}

/// What one snapshot poll saw.
#[derive(Debug)]
pub struct Polled {
    /// Opaque here.
    pub position: String,
    pub moved: Vec<(StreamId, u64)>,
    pub came: PolledTo,
}

/// How far a poll came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolledTo {
    /// All that is committed was seen.
    Present,
    /// There is more to read at once.
    Part,
    /// The database is not the one the position was taken in, or an older state of it.
    Nowhere,
}

/// Who a socket speaks for.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub profile_id: Uuid,
    pub session_id: Uuid,
    /// Unix time in milliseconds.
    pub expires_at_ms: i64,
}

/// What a client proves itself with.
#[derive(Debug, Clone)]
pub enum Credential {
    Token(String),
    Ticket(String),
}

/// A person as `auth` needs them, read in one snapshot.
#[derive(Debug)]
pub struct Welcome {
    pub display_name: String,
    pub role: &'static str,
    pub user_seq: u64,
    /// The most recent threads.
    pub threads: Vec<ThreadRow>,
    /// Where every thread of an active membership stands, in the same order.
    pub positions: Vec<(Uuid, Position)>,
}

/// Head of a user stream and positions of threads.
pub type Positions = (u64, Vec<(Uuid, Position)>);

/// What replaces a user stream at a client, read in one snapshot.
#[derive(Debug)]
pub struct UserSnapshot {
    pub seq: u64,
    /// The most recent threads, as many as fit.
    pub threads: Vec<ThreadRow>,
    /// Where every thread of an active membership stands, in the same order.
    pub positions: Vec<(Uuid, Position)>,
    pub next: Option<String>,
    pub inbox: serde_json::Value,
    pub settings: serde_json::Value,
}

impl UserSnapshot {
    /// Ready for a socket.
    pub fn frame(&self) -> Bytes {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            threads: &'a [ThreadRow],
            next: Option<&'a str>,
            inbox: &'a serde_json::Value,
            settings: &'a serde_json::Value,
        }
        let Self { threads, next, inbox, settings, .. } = self;
        reply::snapshot("user", self.seq, &Body { threads, next: next.as_deref(), inbox, settings })
    }
}

/// The rest of the product, as sessions use it.
pub trait Backend: Send + Sync + 'static {
    /// Checks a credential; `unauthenticated` closes the socket with 4401, `forbidden` with 4403.
    fn authenticate(&self, credential: Credential) -> Later<'_, Result<Access, Refusal>>;
    /// Account state, user stream and threads, after the session was registered.
    fn welcome(&self, access: Access) -> Later<'_, Result<Welcome, Refusal>>;
    /// Queues a send; the answer comes to the worker as a reply to `id`. Never blocks.
    fn send(&self, actor_id: Uuid, thread_id: Uuid, body: SendBody, to: SocketReply);
    /// Any other command that touches data; the JSON of `ok`.
    fn command<'a>(
        &'a self,
        actor_id: Uuid,
        address: IpAddr,
        name: CommandName,
        d: &'a str,
    ) -> Later<'a, Result<Box<RawValue>, Refusal>>;
    /// Whether the session behind a token still stands and may hold a socket, as the database has it now.
    fn stands(&self, access: Access) -> Later<'_, Result<(), Refusal>>;
    /// Head of a user stream, and where those of `threads` stand that the person is an active member of, in one snapshot.
    fn positions(&self, profile_id: Uuid, threads: Vec<Uuid>) -> Later<'_, Result<Positions, Refusal>>;
    /// `snapshot` of a stream for one reader. `not_found`: may not see it now.
    fn snapshot(&self, actor_id: Uuid, stream: StreamId) -> Later<'_, Result<Snapshot, Refusal>>;
    /// Cursor of `threads.list` after the first page of an `auth` reply.
    fn cursor(&self, last: &ThreadRow) -> String;
}

/// Commands that a backend answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandName {
    Read,
    ThreadOpen,
    ThreadsList,
    ProfilesGet,
    History,
}

/// Where the answer to a command goes: socket and `id`. Plain data, cheap to carry through a batch.
#[derive(Debug, Clone, Copy)]
pub struct SocketReply {
    pub to: inbox::SessionAddr,
    pub id: Option<u64>,
    pub thread_id: Uuid,
}

/// Settings of the engine, from the configuration.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    pub node: String,
    pub workers: usize,
    pub heartbeat_ms: u64,
    pub auth_timeout_ms: u64,
    pub slow_close_ms: u64,
    pub frame_bytes: usize,
    pub sends_per_10s: u32,
    pub sessions_per_profile: usize,
    pub limits_on: bool,
}
