//! The snapshot poll: finds whatever nobody announced. It goes on from a position in the order of commits; where that
//! cannot be read, or is of no use any more, it starts anew and looks up the heads of all streams here instead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::hub::Hub;
use super::repair::{HEADS, Repairs};
use super::{LogReader, Polled, PolledTo};
use crate::courier::{Courier, Health};
use crate::protocol::codes::Refusal;
use crate::telemetry::metrics;

/// Between polls while the courier is healthy, and while it is not.
const POLL: Duration = Duration::from_secs(5);
const FAST_POLL: Duration = Duration::from_millis(250);
/// Least time from one poll to the next, however often hints were lost.
const SPACING: Duration = Duration::from_millis(100);
/// Rows one poll reads; a quarter of them after each failure.
const ROWS: u32 = 10_000;
/// After so many failures in a row the position is given up.
const FAILURES: u32 = 3;

/// Polls until the runtime ends.
pub async fn run(
    hub: Arc<Hub>,
    repairs: Arc<Repairs>,
    log: Arc<dyn LogReader>,
    courier: Arc<dyn Courier>,
    started: Instant,
) {
    let mut position: Option<String> = None;
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let read = match &position {
            Some(position) => onwards(&hub, log.as_ref(), position.clone(), ROWS >> (2 * failures)).await,
            None => anew(&hub, log.as_ref()).await,
        };
        metrics().polls.inc();
        let pause = match read {
            Ok((reached, came)) => {
                failures = 0;
                position = reached;
                repairs.note_poll(started);
                match (came, courier.health()) {
                    (PolledTo::Part | PolledTo::Nowhere, _) => Duration::ZERO,
                    (PolledTo::Present, Health::Healthy) => POLL,
                    (PolledTo::Present, _) => FAST_POLL,
                }
            }
            Err(_) => {
                failures += 1;
                if failures >= FAILURES {
                    (position, failures) = (None, 0);
                }
                FAST_POLL
            }
        };
        if !pause.is_zero() {
            let _ = tokio::time::timeout(pause, repairs.asked_to_poll()).await;
            tokio::time::sleep(SPACING.saturating_sub(began.elapsed())).await;
        }
    }
}

/// Reads what became visible since `position`.
async fn onwards(
    hub: &Hub,
    log: &dyn LogReader,
    position: String,
    rows: u32,
) -> Result<(Option<String>, PolledTo), Refusal> {
    let Polled { position, moved, came } = log.poll(Some(position), rows).await?;
    if came == PolledTo::Nowhere {
        tracing::warn!("the database is behind the last poll of its log: all heads are read anew");
        return Ok((None, came));
    }
    moved.into_iter().for_each(|(stream, seq)| hub.know(stream, seq));
    Ok((Some(position), came))
}

/// Takes a new position, and then the heads of all streams here: what was committed before it is in them.
async fn anew(hub: &Hub, log: &dyn LogReader) -> Result<(Option<String>, PolledTo), Refusal> {
    let Polled { position, .. } = log.poll(None, 0).await?;
    for streams in hub.streams().chunks(HEADS) {
        log.heads(streams).await?.into_iter().for_each(|(stream, head)| hub.know(stream, head));
    }
    Ok((Some(position), PolledTo::Present))
}
