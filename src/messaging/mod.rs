//! Threads, members, messages and read marks: use cases and their SQL, called by socket and REST alike. Never sees the
//! engine: it returns the updates it committed, or hands them to the `CommitSink` it was given.

pub mod batcher;
pub mod render;
pub mod send;

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
