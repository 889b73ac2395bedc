//! The driver of a single node: there is nobody else to tell.

use super::{Courier, CourierEvent, EventSink, Health};
use crate::updates::Update;

/// Confirms subscriptions at once and carries nothing.
pub struct InProcess {
    sink: EventSink,
}

impl InProcess {
    pub fn new(sink: EventSink) -> Self {
        Self { sink }
    }
}

impl Courier for InProcess {
    fn publish(&self, _updates: &[Update]) {}

    fn subscribe(&self, shards: &[u16]) {
        (self.sink)(CourierEvent::Subscribed(shards.to_vec()));
    }

    fn health(&self) -> Health {
        Health::Healthy
    }

    fn canary_age_ms(&self) -> u64 {
        0
    }

    fn shutdown(&self) {}
}
