//! From the node to Redis: a bounded queue and the task that drains it, one pipelined write at a time; what comes in
//! meanwhile makes the next one.
//!
//! What a failed write held is written again on the next connection: it may arrive twice, which feeds ignore.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use super::inbound::unix_us;
use super::pulse::CANARY;
use super::wire::{Names, Writer};
use super::{BACKOFF, CONNECT, RESPONSE, Shared, lock, next_pause};
use crate::telemetry::metrics;
use crate::updates::Update;

/// Bytes of updates waiting for Redis; more are let go, counted, and found in the log by the other nodes.
pub const QUEUE_BYTES: usize = 32 << 20;
/// Bytes of updates in one pipelined write.
const WRITE_BYTES: usize = 2 << 20;
/// Without Redis for so long, updates are let go: by then the other nodes read the log.
const PATIENCE: Duration = Duration::from_secs(2);

struct Queue {
    /// In which all of them were committed: of a history that was lost nothing is told any more.
    epoch: Uuid,
    updates: VecDeque<Update>,
    bytes: usize,
    /// Whether there is hope that Redis takes them soon.
    open: bool,
    /// Something was let go since the others were told.
    owes_notice: bool,
}

/// Updates on their way to Redis.
pub struct Outbound {
    queue: Mutex<Queue>,
    canary_asked: AtomicBool,
    filled: Notify,
}

/// Bytes that an update costs while it waits.
fn cost(update: &Update) -> usize {
    size_of::<Update>() + update.frame.len()
}

impl Outbound {
    pub fn new(epoch: Uuid) -> Self {
        let queue = Queue { epoch, updates: VecDeque::new(), bytes: 0, open: true, owes_notice: false };
        Self { queue: Mutex::new(queue), canary_asked: AtomicBool::new(false), filled: Notify::new() }
    }

    /// Appends what was committed in `epoch`, unless there is no room or no Redis.
    pub fn push(&self, epoch: Uuid, updates: &[Update]) {
        if updates.is_empty() {
            return;
        }
        let bytes: usize = updates.iter().map(cost).sum();
        let mut queue = lock(&self.queue);
        if queue.epoch != epoch {
            queue.epoch = epoch;
            queue.updates.clear();
            queue.bytes = 0;
        }
        if queue.open && queue.bytes + bytes <= QUEUE_BYTES {
            queue.bytes += bytes;
            queue.updates.extend(updates.iter().cloned());
            drop(queue);
            self.filled.notify_one();
            return;
        }
        queue.owes_notice = true;
        let is_open = queue.open;
        drop(queue);
        let dropped = &metrics().dropped;
        let counter = if is_open {
            dropped.with_label_values(&["courier_queue"])
        } else {
            dropped.with_label_values(&["courier_down"])
        };
        counter.inc_by(updates.len() as u64);
    }

    /// Has a canary sent at once.
    pub fn ask_canary(&self) {
        self.canary_asked.store(true, Ordering::Relaxed);
        self.filled.notify_one();
    }

    /// The oldest that make one write, and whether the others are to be told of losses.
    fn take(&self) -> Write {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        let fits = queue.updates.iter().take_while(|update| {
            let before = bytes;
            bytes += cost(update);
            before < WRITE_BYTES
        });
        let count = fits.count();
        let taken: Vec<Update> = queue.updates.drain(..count).collect();
        queue.bytes -= taken.iter().map(cost).sum::<usize>();
        Write { epoch: queue.epoch, updates: taken, notice: std::mem::take(&mut queue.owes_notice) }
    }

    fn open(&self) {
        lock(&self.queue).open = true;
    }

    /// Lets everything go.
    fn close(&self, unwritten: Vec<Update>) {
        let mut queue = lock(&self.queue);
        let lost = queue.updates.len() + unwritten.len();
        queue.open = false;
        queue.owes_notice |= lost > 0;
        queue.updates = VecDeque::new();
        queue.bytes = 0;
        drop(queue);
        metrics().dropped.with_label_values(&["courier_down"]).inc_by(lost as u64);
    }
}

/// One write: what is in it, until Redis took it.
#[derive(Default)]
struct Write {
    epoch: Uuid,
    updates: Vec<Update>,
    notice: bool,
}

/// Keeps a publishing connection until the driver ends.
pub async fn run(shared: Arc<Shared>) {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(RESPONSE));
    let mut pause = BACKOFF.0;
    let mut unwritten = Write::default();
    let mut down_since = Instant::now();
    loop {
        let began = Instant::now();
        let connecting = shared.client.get_multiplexed_async_connection_with_config(&config);
        if let Ok(Ok(mut connection)) = timeout(CONNECT, connecting).await {
            metrics().courier_reconnects.inc();
            if drain(&shared, &mut connection, &mut unwritten).await {
                down_since = Instant::now();
            }
        }
        if down_since.elapsed() >= PATIENCE {
            shared.outbound.close(std::mem::take(&mut unwritten.updates));
        }
        pause = next_pause(pause, began.elapsed());
        tokio::time::sleep(pause).await;
    }
}

/// One life of the connection; returns at its first failure, with what was not written. True when anything was.
async fn drain(shared: &Shared, connection: &mut MultiplexedConnection, unwritten: &mut Write) -> bool {
    let mut alive = false;
    let mut canary_due = Instant::now();
    loop {
        if unwritten.updates.is_empty() {
            let next = shared.outbound.take();
            *unwritten = Write { notice: unwritten.notice || next.notice, ..next };
        }
        if unwritten.epoch != shared.deployment.epoch() {
            *unwritten = Write { epoch: shared.deployment.epoch(), ..Write::default() };
        }
        let canary = shared.outbound.canary_asked.swap(false, Ordering::Relaxed) || Instant::now() >= canary_due;
        if unwritten.updates.is_empty() && !unwritten.notice && !canary {
            let _ =
                timeout(canary_due.saturating_duration_since(Instant::now()), shared.outbound.filled.notified()).await;
            continue;
        }
        if canary {
            canary_due = Instant::now() + CANARY;
        }
        if let Err(error) = write(shared, connection, unwritten, canary).await {
            tracing::debug!(%error, "Redis did not take updates");
            return alive;
        }
        if !alive {
            alive = true;
            shared.outbound.open();
        }
        metrics().courier_published.inc_by(unwritten.updates.len() as u64);
        *unwritten = Write::default();
    }
}

async fn write(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    what: &Write,
    canary: bool,
) -> Result<(), redis::RedisError> {
    let names = Names::new(shared.deployment.prefix_in(what.epoch));
    let writer = Writer { names: &names, signer: &shared.signer, origin: shared.origin, now_us: unix_us() };
    let mut messages = writer.pack(&what.updates);
    messages.extend(what.notice.then(|| writer.notice()));
    messages.extend(canary.then(|| writer.canary(shared.pulse.now_ms())));
    let mut pipe = redis::pipe();
    for (channel, message) in messages {
        pipe.cmd("PUBLISH").arg(channel).arg(&message[..]).ignore();
    }
    pipe.query_async(connection).await
}

#[cfg(test)]
mod tests {
    use super::{Outbound, QUEUE_BYTES, WRITE_BYTES, Write, cost, lock};
    use crate::updates::{StreamId, Touch, Update, UpdateKind};
    use bytes::Bytes;
    use uuid::Uuid;

    fn update(seq: u64, bytes: usize) -> Update {
        let stream = StreamId::Thread(Uuid::nil());
        Update { stream, seq, kind: UpdateKind::MessageCreated, touch: Touch::None, frame: vec![0; bytes].into() }
    }

    #[test]
    fn takes_in_order_and_never_more_than_its_limit() {
        let outbound = Outbound::new(Uuid::nil());
        for seq in 1..=40 {
            outbound.push(Uuid::nil(), &[update(seq, 1 << 20)]);
        }
        assert!(lock(&outbound.queue).bytes <= QUEUE_BYTES);
        let mut seqs = Vec::new();
        let mut noticed = false;
        loop {
            let Write { updates: taken, notice, .. } = outbound.take();
            noticed |= notice;
            if taken.is_empty() {
                break;
            }
            assert!(taken.iter().map(cost).sum::<usize>() <= WRITE_BYTES + cost(&taken[0]));
            seqs.extend(taken.iter().map(|update| update.seq));
        }
        assert_eq!(seqs, (1..=31).collect::<Vec<u64>>());
        assert!(noticed, "the others are told to poll");
        assert_eq!(lock(&outbound.queue).bytes, 0);
    }

    #[test]
    fn without_redis_everything_is_let_go() {
        let outbound = Outbound::new(Uuid::nil());
        outbound.push(Uuid::nil(), &[update(1, 10)]);
        outbound.close(vec![update(0, 10)]);
        outbound.push(Uuid::nil(), &[Update { frame: Bytes::new(), ..update(2, 0) }]);
        let Write { updates: taken, notice, .. } = outbound.take();
        assert!(taken.is_empty() && notice);
        outbound.open();
        outbound.push(Uuid::nil(), &[update(3, 10)]);
        assert_eq!(outbound.take().updates.len(), 1);
    }

    #[test]
    fn of_an_epoch_that_is_over_nothing_is_told() {
        let outbound = Outbound::new(Uuid::nil());
        outbound.push(Uuid::nil(), &[update(7, 10)]);
        outbound.push(Uuid::max(), &[update(1, 10)]);
        let Write { epoch, updates, .. } = outbound.take();
        assert_eq!((epoch, updates.len(), updates[0].seq), (Uuid::max(), 1, 1));
        assert_eq!(lock(&outbound.queue).bytes, 0);
    }
}
