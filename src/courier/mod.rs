//! Hints between nodes: what one node committed reaches the others at once, or not at all. At-most-once by contract; the
//! feed and the snapshot poll make it whole. Nothing here reads the log or knows who listens.

pub mod in_process;
pub mod redis;

use std::sync::Arc;
use std::time::Instant;

use crate::updates::Update;

/// Channels that streams hash to; the same on all nodes.
pub const SHARDS: u16 = 128;

/// A key of the deployment that seals what nodes tell each other.
#[derive(Clone)]
pub struct SealKey {
    /// Of the root key it was derived from.
    pub id: [u8; 4],
    pub key: [u8; 32],
}

/// What a driver tells the node.
#[derive(Debug)]
pub enum CourierEvent {
    /// Committed at another node; of each stream in the order of its `seq`, possibly with holes or repetitions.
    Updates(Vec<Update>),
    /// These shards are heard from now on.
    Subscribed(Vec<u16>),
    /// Hints may be missing: poll at once.
    Gap,
}

/// Takes events; must not block. Called from the driver's tasks, and from within [`Courier::subscribe`].
pub type EventSink = Arc<dyn Fn(CourierEvent) + Send + Sync>;

/// Whether hints can be relied on to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Healthy,
    Unhealthy { since: Instant },
}

/// A driver. Every method returns at once and may be called from any thread.
pub trait Courier: Send + Sync + 'static {
    /// Hands updates to the other nodes; the own node feeds itself. What does not fit the queue is dropped and counted.
    fn publish(&self, updates: &[Update]);
    /// Asks for shards; [`CourierEvent::Subscribed`] follows once for each new one, and again after a reconnect.
    /// Idempotent. Shards from [`SHARDS`] on are ignored.
    fn subscribe(&self, shards: &[u16]);
    fn health(&self) -> Health;
    /// Age of the newest own canary that came back through the whole path, milliseconds.
    fn canary_age_ms(&self) -> u64;
    /// Ends the driver's tasks and connections; what is still queued is lost. Nothing is called afterwards but what was
    /// already under way.
    fn shutdown(&self);
}
