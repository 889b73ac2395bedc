//! Threads, members, messages and read marks: use cases and their SQL, called by socket and REST alike. Never sees the
//! engine: it returns the updates it committed, or hands them to the `CommitSink` it was given.

pub mod batcher;
mod changes;
pub mod db;
mod fair;
pub mod history;
mod lineup;
pub mod log;
pub mod lookups;
pub mod members;
pub mod memberships;
pub mod people;
pub mod read_marks;
pub mod render;
mod render_log;
pub mod rows;
pub mod schemas;
pub mod send;
pub mod threads;

pub use render_log::settings_changed;

use futures_util::future::BoxFuture;

use crate::protocol::codes::Refusal;
use crate::protocol::types::SendOk;
use crate::updates::Update;
use send::SendRequest;

/// Takes updates right after their commit: feeds the node itself and hands them to the courier. Never blocks.
pub trait Publisher: Send + Sync + 'static {
    fn publish(&self, updates: Vec<Update>);
}

/// The node's way of sending: its rate limit, its batcher. The answer comes after the commit; what was committed is
/// published by then.
pub trait Sender: Send + Sync + 'static {
    fn send(&self, request: SendRequest) -> BoxFuture<'static, Result<SendOk, Refusal>>;
}

/// What a use case committed: its answer, and the updates to publish.
#[derive(Debug)]
pub struct Committed<T> {
    pub value: T,
    pub updates: Vec<Update>,
}

impl<T> Committed<T> {
    /// The same change with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Committed<U> {
        Committed { value: change(self.value), updates: self.updates }
    }
}
