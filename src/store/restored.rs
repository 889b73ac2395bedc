//! What a restore from a dump leaves behind: rows with transaction numbers of the cluster they were written in. Where these
//! lie above this cluster's counter they would later be taken for new ones, so they are given a number that every
//! snapshot has seen (`engine.renumber`).

use sqlx::{PgConnection, PgPool};

use super::DbError;

/// Rows of each log in one statement.
const ROWS: i32 = 5_000;
/// Deadline of one statement, milliseconds.
const DEADLINE_MS: u64 = 4_000;

/// Renumbers a part: all revocations, and the next rows of the logs. Returns how many; 0: nothing is left.
///
/// # Errors
/// [`DbError`].
pub async fn renumber_some(pool: &PgPool) -> Result<i64, DbError> {
    super::with_deadline(pool, DEADLINE_MS, async |connection| {
        sqlx::query_scalar("SELECT engine.renumber($1)").bind(ROWS).fetch_one(connection).await
    })
    .await
}

/// Renumbers everything; returns how many rows.
///
/// # Errors
/// [`DbError`]; what was done stays.
pub async fn renumber(pool: &PgPool) -> Result<i64, DbError> {
    let mut total = 0;
    loop {
        match renumber_some(pool).await? {
            0 => return Ok(total),
            some => total += some,
        }
    }
}

/// Rows with numbers of another cluster, counted up to `most`.
///
/// # Errors
/// The statement's.
pub async fn foreign_rows(connection: &mut PgConnection, most: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT FROM thread_updates WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
             UNION ALL SELECT FROM user_updates WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
             UNION ALL SELECT FROM revocations WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
             LIMIT $1) AS foreign_row",
    )
    .bind(most)
    .fetch_one(connection)
    .await
}
