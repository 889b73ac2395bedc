//! Watches the database a node serves from: whether it still keeps and takes what it acknowledges, and whether it is still
//! the one whose history clients hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use crate::deployment::Deployment;
use crate::realtime::node::Node;
use crate::store::safety::{self, Look, SafetyState};
use crate::store::{DbError, epoch, migrate, restored};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks once a second, and at once when a new connection leads elsewhere. Another place (a failover, a restore) takes a new
/// epoch, unless the operator has said that it loses nothing; until that is done connections to it are not used. The same
/// place with an older state has lost history too.
///
/// `pool` is the watcher's own connection; `others` is for what takes longer.
pub async fn database(
    (pool, others): (PgPool, PgPool),
    state: SafetyState,
    node: Arc<Node>,
    deployment: Arc<Deployment>,
) {
    let keep_epoch = |epoch: Uuid| {
        deployment.keep_epoch(epoch);
        node.keep_epoch(&epoch.to_string());
    };
    let mut reached = 0;
    loop {
        let _ = tokio::time::timeout(LOOK_EVERY, state.met_a_stranger()).await;
        let seen = match safety::recheck(&pool).await {
            Ok(seen) => seen,
            Err(DbError::Unavailable(_)) => continue,
            Err(error) => {
                tracing::warn!(%error, "the database could not be looked at");
                continue;
            }
        };
        match follow((&pool, &others), &state, &node, &keep_epoch, &seen, reached).await {
            Ok(()) => {
                reached = seen.next_number;
                state.set(&seen.verdict);
            }
            Err(error) => {
                tracing::warn!(%error, "whether the database is the same could not be seen to the end");
                // What is wrong is told all the same; that all is well is not.
                if seen.verdict.is_err() {
                    state.set(&seen.verdict);
                }
            }
        }
    }
}

/// Brings the node's epoch and place to what was seen. `reached`: the next transaction number at the last look.
async fn follow(
    (pool, others): (&PgPool, &PgPool),
    state: &SafetyState,
    node: &Node,
    keep_epoch: &impl Fn(Uuid),
    seen: &Look,
    reached: i64,
) -> Result<(), DbError> {
    let stored = seen.stored.map(|(epoch, _)| epoch);
    let is_elsewhere = seen.place.is_some()
        && (seen.place != state.held() || seen.stored.is_some_and(|(_, place)| Some(place) != seen.place));
    let epoch = if is_elsewhere {
        let (epoch, place) = epoch::load_here(pool).await?;
        renumber(pool, others).await;
        keep_epoch(epoch);
        state.hold(place);
        tracing::warn!(?place, %epoch, "the database is another one, or another life of it");
        Some(epoch)
    } else if seen.place.is_some() && seen.next_number < reached {
        tracing::error!(reached, now = seen.next_number, "the database holds an older state: history was lost");
        match node.shared.epoch().parse::<Uuid>() {
            Ok(held) => epoch::replace(pool, held).await?,
            Err(_) => stored,
        }
    } else {
        stored
    };
    if let Some(epoch) = epoch {
        keep_epoch(epoch);
    }
    Ok(())
}

/// Gives rows that a restore brought from another cluster a number of this one's past: the revocations at once, so that
/// their next poll takes none for news, the logs in the background.
pub async fn renumber(pool: &PgPool, others: &PgPool) {
    match restored::renumber_some(pool).await {
        Ok(0) => {}
        Ok(some) => {
            tracing::warn!(
                rows = some,
                "the database was restored from another cluster's dump: its rows are renumbered"
            );
            let others = others.clone();
            tokio::spawn(async move {
                match restored::renumber(&others).await {
                    Ok(rows) => tracing::info!(rows, "renumbered"),
                    Err(error) => tracing::warn!(%error, "renumbering ended early; haus epoch new goes on with it"),
                }
            });
        }
        Err(error) => tracing::warn!(%error, "whether the database was restored could not be seen"),
    }
}

/// Looks once an hour whether the coming month has a place for its messages; `haus migrate` makes it.
pub async fn partitions(pool: PgPool, missing: Arc<AtomicBool>) {
    loop {
        let pause = match migrate::next_partition_exists(&pool).await {
            Ok(exists) => {
                missing.store(!exists, Ordering::Relaxed);
                if !exists {
                    tracing::error!("messages of the coming month have no partition: run haus migrate");
                }
                Duration::from_secs(3600)
            }
            Err(_) => Duration::from_secs(10),
        };
        tokio::time::sleep(pause).await;
    }
}
