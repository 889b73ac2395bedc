//! The subscriber connection: made, subscribed, watched by the canary, and made anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::pulse::CANARY;
use super::wire::Names;
use super::{BACKOFF, CONNECT, RESPONSE, Shared, lock, next_pause};
use crate::telemetry::metrics;

/// Keeps a subscriber connection until the driver ends.
pub async fn run(shared: Arc<Shared>) {
    let mut pause = BACKOFF.0;
    loop {
        let began = Instant::now();
        let closed = Arc::new(Notify::new());
        if let Some(connection) = connect(&shared, closed.clone()).await {
            metrics().courier_reconnects.inc();
            listen(&shared, connection, &closed).await;
        }
        shared.turned(shared.pulse.lost());
        metrics().canary_age_seconds.set(shared.pulse.canary_age_ms() as f64 / 1e3);
        pause = next_pause(pause, began.elapsed());
        tokio::time::sleep(pause).await;
    }
}

async fn connect(shared: &Arc<Shared>, closed: Arc<Notify>) -> Option<MultiplexedConnection> {
    let inbound = shared.inbound.clone();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_push_sender(move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                closed.notify_one();
            } else {
                inbound.push(info);
            }
            Ok::<(), ()>(())
        });
    let connecting = shared.client.get_multiplexed_async_connection_with_config(&config);
    match timeout(CONNECT, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%error, "Redis refused");
            None
        }
        Err(_) => None,
    }
}

/// One life of the connection; returns when it is dead, or when the epoch and with it every name has changed.
async fn listen(shared: &Shared, mut connection: MultiplexedConnection, closed: &Notify) {
    let mut epochs = shared.deployment.epochs();
    let names = Names::new(shared.deployment.prefix_in(*epochs.borrow_and_update()));
    let mut channels = vec![names.canary(shared.origin), names.notice()];
    let mut subscribed: BTreeSet<u16> = lock(&shared.wanted).clone();
    channels.extend(subscribed.iter().map(|shard| names.shard(*shard)));
    if !subscribe(&mut connection, &channels).await {
        return;
    }
    shared.pulse.subscribed();
    // The first canary proves the path: at once.
    shared.outbound.ask_canary();
    let mut tick = tokio::time::interval(CANARY);
    loop {
        tokio::select! {
            () = closed.notified() => return,
            _ = epochs.changed() => return,
            () = shared.wants.notified() => {
                let fresh: Vec<u16> = lock(&shared.wanted).difference(&subscribed).copied().collect();
                let channels: Vec<String> = fresh.iter().map(|shard| names.shard(*shard)).collect();
                if !channels.is_empty() && !subscribe(&mut connection, &channels).await {
                    return;
                }
                subscribed.extend(fresh);
            }
            _ = tick.tick() => {
                metrics().canary_age_seconds.set(shared.pulse.canary_age_ms() as f64 / 1e3);
                if shared.pulse.is_dead() {
                    return;
                }
            }
        }
    }
}

/// One command for all of them. Confirmations go the way of messages, so that they are told in order.
async fn subscribe(connection: &mut MultiplexedConnection, channels: &[String]) -> bool {
    match timeout(RESPONSE, connection.subscribe(channels)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "Redis did not subscribe");
            false
        }
        Err(_) => false,
    }
}
