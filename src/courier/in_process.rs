//! The driver of a single node: there is nobody else to tell, so only subscriptions are confirmed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::{Courier, CourierEvent, EventSink, Health, SHARDS};
use crate::updates::Update;

/// Confirms subscriptions at once and carries nothing.
pub struct InProcess {
    sink: EventSink,
    /// At most [`SHARDS`].
    subscribed: Mutex<BTreeSet<u16>>,
}

impl InProcess {
    pub fn new(sink: EventSink) -> Self {
        Self { sink, subscribed: Mutex::default() }
    }
}

impl Courier for InProcess {
    fn publish(&self, _updates: &[Update]) {}

    fn subscribe(&self, shards: &[u16]) {
        let fresh: Vec<u16> = {
            let mut subscribed = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
            shards.iter().copied().filter(|shard| *shard < SHARDS && subscribed.insert(*shard)).collect()
        };
        if !fresh.is_empty() {
            (self.sink)(CourierEvent::Subscribed(fresh));
        }
    }

    fn health(&self) -> Health {
        Health::Healthy
    }

    fn canary_age_ms(&self) -> u64 {
        0
    }

    fn shutdown(&self) {}
}
