//! Threads, members, messages and read marks: use cases and their SQL, called by socket and REST alike. Never sees the
//! engine: it returns the updates it committed, or hands them to the `CommitSink` it was given.

pub mod batcher;
mod changes;
pub mod db;
pub mod history;
pub mod log;
pub mod members;
pub mod profiles;
pub mod read_marks;
pub mod render;
mod render_log;
pub mod rows;
pub mod send;
pub mod threads;

use crate::updates::Update;

/// Takes updates right after their commit: feeds the node itself and hands them to the courier. Never blocks.
pub trait Publisher: Send + Sync + 'static {
    fn publish(&self, updates: Vec<Update>);
}

/// What a use case committed: its answer, and the updates to publish.
#[derive(Debug)]
pub struct Committed<T> {
    pub value: T,
    pub updates: Vec<Update>,
}
