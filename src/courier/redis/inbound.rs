//! From the subscriber connection to the node. The connection's reader only moves bytes into a bounded queue, so that
//! Redis never finds this node slow (it would cut it off); a task of its own reads what is in them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::wire::{self, Channel, Names, Unread};
use super::{Shared, lock};
use crate::courier::CourierEvent;
use crate::telemetry::metrics;

/// Bytes waiting to be read; messages beyond are let go, counted, and the log is polled at once.
pub const INBOUND_BYTES: usize = 64 << 20;

/// Between two lines of the log about forged messages.
const FORGED_TOLD: Duration = Duration::from_secs(60);

/// Bytes that an item costs besides its payload.
const ITEM_BYTES: usize = 128;

/// Something from Redis, in its order.
enum Item {
    /// Name of the channel, and what came there.
    Message(Vec<u8>, Bytes),
    /// Name of the channel that is heard from now on.
    Confirmed(Vec<u8>),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    overflowed: bool,
}

/// The queue between the reader and the node.
#[derive(Default)]
pub struct Inbound {
    queue: Mutex<Queue>,
    filled: Notify,
    /// When the log was last told of forged messages.
    forged_told: Mutex<Option<Instant>>,
}

impl Inbound {
    /// Takes what the connection's reader got; anything that is neither message nor confirmation is ignored.
    pub fn push(&self, info: PushInfo) {
        let Some(item) = item(info) else { return };
        let bytes = ITEM_BYTES + if let Item::Message(_, payload) = &item { payload.len() } else { 0 };
        let mut queue = lock(&self.queue);
        if queue.bytes + bytes > INBOUND_BYTES {
            queue.overflowed = true;
            drop(queue);
            metrics().dropped.with_label_values(&["courier_inbound"]).inc();
        } else {
            queue.bytes += bytes;
            queue.items.push_back(item);
            drop(queue);
        }
        self.filled.notify_one();
    }
}

fn item(info: PushInfo) -> Option<Item> {
    let mut data = info.data.into_iter();
    let Some(Value::BulkString(name)) = data.next() else { return None };
    match (info.kind, data.next()) {
        (PushKind::Message, Some(Value::BulkString(payload))) => Some(Item::Message(name, payload.into())),
        (PushKind::Subscribe, _) => Some(Item::Confirmed(name)),
        _ => None,
    }
}

/// Hands over what comes until the driver ends.
pub async fn run(shared: Arc<Shared>) {
    loop {
        shared.inbound.filled.notified().await;
        let taken = std::mem::take(&mut *lock(&shared.inbound.queue));
        let names = Names::new(shared.deployment.prefix());
        let mut confirmed = Vec::new();
        for item in taken.items {
            match item {
                Item::Confirmed(name) => {
                    if let Some(Channel::Shard(shard)) = names.parse(&name) {
                        confirmed.push(shard);
                    }
                }
                Item::Message(name, payload) => {
                    tell_confirmed(&shared, &mut confirmed);
                    receive(&shared, &names, &name, payload);
                    tokio::task::consume_budget().await;
                }
            }
        }
        tell_confirmed(&shared, &mut confirmed);
        if taken.overflowed {
            (shared.sink)(CourierEvent::Gap);
        }
    }
}

fn tell_confirmed(shared: &Shared, confirmed: &mut Vec<u16>) {
    if !confirmed.is_empty() {
        (shared.sink)(CourierEvent::Subscribed(std::mem::take(confirmed)));
    }
}

fn receive(shared: &Shared, names: &Names, name: &[u8], payload: Bytes) {
    // What still comes of an epoch that is over is none of ours.
    let Some(channel) = names.parse(name) else { return };
    if channel == Channel::Canary {
        match wire::canary_sent_ms(&shared.signer, shared.origin, name, payload) {
            Some(sent_ms) => shared.turned(shared.pulse.returned(sent_ms)),
            None => forged(shared),
        }
        return;
    }
    let foreign = match wire::unpack(&shared.signer, shared.origin, name, payload) {
        Ok(foreign) => foreign,
        Err(Unread::Own) => return,
        Err(Unread::Forged) => return forged(shared),
    };
    if let Some(error) = foreign.malformed {
        metrics().dropped.with_label_values(&["courier_malformed"]).inc();
        tracing::warn!(%error, "a message of another node cannot be read");
        // Whatever it said is in the log.
        (shared.sink)(CourierEvent::Gap);
    } else {
        metrics().courier_lag_seconds.observe(unix_us().saturating_sub(foreign.sent_us) as f64 / 1e6);
    }
    if channel == Channel::Notice {
        (shared.sink)(CourierEvent::Gap);
    }
    if !foreign.updates.is_empty() {
        metrics().courier_received.inc_by(foreign.updates.len() as u64);
        (shared.sink)(CourierEvent::Updates(foreign.updates));
    }
}

/// Counts a message that nobody of ours sent; the log is told now and then, as its sender decides how many there are.
fn forged(shared: &Shared) {
    metrics().dropped.with_label_values(&["courier_forged"]).inc();
    let mut last = lock(&shared.inbound.forged_told);
    if last.is_none_or(|last| last.elapsed() >= FORGED_TOLD) {
        *last = Some(Instant::now());
        tracing::warn!("messages on our channels of Redis are not sealed by this deployment; they are ignored");
    }
}

/// Microseconds of the Unix clock.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::{INBOUND_BYTES, Inbound, lock};
    use redis::{PushInfo, PushKind, Value};

    #[test]
    fn holds_no_more_than_its_limit() {
        let inbound = Inbound::default();
        let payload = vec![0_u8; 8 << 20];
        for _ in 0..10 {
            let data = vec![Value::BulkString(b"haus:a:1:s:1".to_vec()), Value::BulkString(payload.clone())];
            inbound.push(PushInfo { kind: PushKind::Message, data });
        }
        let queue = lock(&inbound.queue);
        assert!(queue.overflowed && queue.bytes <= INBOUND_BYTES);
        assert_eq!(queue.items.len(), 7, "the eighth does not fit beside what items cost");
    }
}
