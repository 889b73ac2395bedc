//! The epoch: what tells clients that committed history was lost. It is stored beside the database identity (system
//! identifier, timeline) it belongs to. After a restore or a failover the identity differs, and a new epoch is taken,
//! unless the operator said that failover is synchronous (`haus epoch keep`).

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::DbError;
use super::safety::Place;

/// Deadline of each call here.
const DEADLINE_MS: u64 = 2_000;

/// Identity of the database as it is now. The timeline stands in the name of the present WAL file.
const IDENTITY: &str = "
    SELECT (SELECT system_identifier FROM pg_control_system()),
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer";

/// The epoch in force: the stored one while it belongs to this database, else a new one.
pub async fn load(pool: &PgPool) -> Result<Uuid, DbError> {
    load_here(pool).await.map(|(epoch, _)| epoch)
}

/// The same with the place it belongs to.
pub async fn load_here(pool: &PgPool) -> Result<(Uuid, Place), DbError> {
    super::with_deadline(pool, DEADLINE_MS, load_on).await
}

/// Takes a new epoch where `held` is still the stored one: of several nodes that find history lost, one does.
pub async fn replace(pool: &PgPool, held: Uuid) -> Result<Option<Uuid>, DbError> {
    super::with_deadline(pool, DEADLINE_MS, async |connection| {
        sqlx::query_scalar(
            "UPDATE stream_epoch SET epoch = CASE WHEN epoch = $1 THEN $2 ELSE epoch END,
                    since = CASE WHEN epoch = $1 THEN now() ELSE since END RETURNING epoch",
        )
        .bind(held)
        .bind(Uuid::now_v7())
        .fetch_optional(connection)
        .await
    })
    .await
}

async fn load_on(connection: &mut PgConnection) -> Result<(Uuid, Place), sqlx::Error> {
    let (system, timeline): (i64, i32) = sqlx::query_as(IDENTITY).fetch_one(&mut *connection).await?;
    // One statement, so that nodes that start together agree.
    let epoch = sqlx::query_scalar(
        "INSERT INTO stream_epoch AS e (epoch, system_identifier, timeline) VALUES ($1, $2, $3)
         ON CONFLICT (only_row) DO UPDATE SET
             epoch = CASE WHEN e.keep OR (e.system_identifier, e.timeline) = ($2, $3) THEN e.epoch ELSE $1 END,
             since = CASE WHEN e.keep OR (e.system_identifier, e.timeline) = ($2, $3) THEN e.since ELSE now() END,
             system_identifier = $2, timeline = $3
         RETURNING epoch",
    )
    .bind(Uuid::now_v7())
    .bind(system)
    .bind(timeline)
    .fetch_one(connection)
    .await?;
    Ok((epoch, Place { system, timeline }))
}

/// The stored epoch, for the poll of a running node; `None` before the first start.
pub async fn current(pool: &PgPool) -> Result<Option<Uuid>, DbError> {
    super::with_deadline(pool, DEADLINE_MS, async |connection| {
        sqlx::query_scalar("SELECT epoch FROM stream_epoch").fetch_optional(connection).await
    })
    .await
}

/// Takes a new epoch: every client resets its streams. For use after a restore. A later change of identity takes a new
/// one again.
pub async fn renew(pool: &PgPool) -> Result<Uuid, DbError> {
    set(pool, false).await
}

/// Keeps the epoch across changes of identity, now and later: failover is synchronous and loses nothing.
pub async fn keep(pool: &PgPool) -> Result<Uuid, DbError> {
    set(pool, true).await
}

async fn set(pool: &PgPool, keep: bool) -> Result<Uuid, DbError> {
    super::with_deadline(pool, DEADLINE_MS, async |connection| {
        let (system, timeline): (i64, i32) = sqlx::query_as(IDENTITY).fetch_one(&mut *connection).await?;
        sqlx::query_scalar(
            "INSERT INTO stream_epoch AS e (epoch, system_identifier, timeline, keep) VALUES ($1, $2, $3, $4)
             ON CONFLICT (only_row) DO UPDATE SET
                 epoch = CASE WHEN $4 THEN e.epoch ELSE $1 END, since = CASE WHEN $4 THEN e.since ELSE now() END,
                 system_identifier = $2, timeline = $3, keep = $4
             RETURNING epoch",
        )
        .bind(Uuid::now_v7())
        .bind(system)
        .bind(timeline)
        .bind(keep)
        .fetch_one(connection)
        .await
    })
    .await
}
