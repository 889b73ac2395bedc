//! The node's engine: feeds, fan-out and sessions. No SQL and no axum; what it needs of the rest it asks through the
//! traits below, which `startup` implements.
//!
//! Path of an update: `Hub::ingest` puts it in order (`feed`), hands it once to each worker with interest (`inbox`), the
//! worker appends it to the outbox of each local member and flushes every dirty socket with one write (`worker`).

pub mod auth;
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
pub mod session;
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

use crate::protocol::codes::Refusal;
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
    /// Every thread of an active membership, most recent first, with the start of the present stay.
    pub threads: Vec<(ThreadRow, u64)>,
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
    /// `snapshot` of a stream for one reader: its frame and position. `not_found`: may not see it now.
    fn snapshot(&self, actor_id: Uuid, stream: StreamId) -> Later<'_, Result<(Bytes, u64), Refusal>>;
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
