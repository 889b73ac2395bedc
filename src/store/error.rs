//! What can go wrong with the database, as the layers above need to know it, and calls with a deadline.

use std::future::Future;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::time::{Instant, timeout_at};

/// A database call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No answer, or none that says what happened; the same call may succeed later.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database understood the call and refused it: a defect of ours.
    #[error("the database refused a statement: {0}")]
    Bug(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) { Self::Unavailable(error.to_string()) } else { Self::Bug(error) }
    }
}

/// Whether an error says that the database cannot serve now, rather than that the statement is wrong. The one judgement
/// of this kind: every layer that talks to the database asks it.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => database.code().is_none_or(|code| is_transient(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Configuration(_) => true,
        _ => false,
    }
}

/// Whether the same call may succeed later, by the class of its SQLSTATE: connection trouble (08), resources (53),
/// operator intervention and statement time-out (57), system (58), locks not had in time (55), serialisation (40),
/// transactions ended from outside (25).
fn is_transient(code: &str) -> bool {
    ["08", "53", "57", "58", "55", "40", "25"].iter().any(|class| code.starts_with(class))
}

/// A connection that goes back to the pool only when its call ran to the end. Dropped before (a time-out, a cancelled
/// caller) it is closed: an answer may still be on its way there, or a transaction open.
struct Borrowed(Option<PoolConnection<Postgres>>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Runs `call` on a connection of `pool`; waiting for the connection counts. After `deadline_ms` milliseconds the
/// connection is closed instead of being given back.
///
/// # Errors
/// [`DbError::Unavailable`] at the deadline, else what the call returned.
pub async fn with_deadline<T, F>(pool: &PgPool, deadline_ms: u64, call: F) -> Result<T, DbError>
where
    F: AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
{
    let deadline = Instant::now() + Duration::from_millis(deadline_ms);
    let late = |what: &str| DbError::Unavailable(format!("no {what} in {deadline_ms} ms"));
    let connection = timeout_at(deadline, pool.acquire()).await.map_err(|_| late("connection"))??;
    let mut borrowed = Borrowed(Some(connection));
    let Some(connection) = borrowed.0.as_deref_mut() else { return Err(late("connection")) };
    let answer = timeout_at(deadline, call(connection)).await.map_err(|_| late("answer"))?;
    match answer.map_err(DbError::from) {
        Err(error @ DbError::Unavailable(_)) => Err(error),
        done => {
            drop(borrowed.0.take());
            done
        }
    }
}

/// Between two lines of the log about a database that is not there.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Waits for a database that may not be up yet: tries until one attempt succeeds or `patience` is over.
///
/// # Errors
/// The last attempt's error.
pub async fn patiently<T, F, A>(patience: Duration, mut attempt: A) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
    A: FnMut() -> F,
{
    let start = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        let error = match tokio::time::timeout(Duration::from_secs(5), attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error @ sqlx::Error::Configuration(_))) => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        if start.elapsed() >= patience {
            return Err(error);
        }
        if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            told = Some(Instant::now());
            tracing::warn!(%error, "the database is not reachable yet; waiting for it");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{DbError, is_transient};

    #[test]
    fn classes_of_sqlstate_decide() {
        for code in ["08006", "53300", "57P01", "57014", "55P03", "40P01", "25P03"] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["23505", "42703", "22P02", "28P01"] {
            assert!(!is_transient(code), "{code}");
        }
        assert!(matches!(DbError::from(sqlx::Error::PoolTimedOut), DbError::Unavailable(_)));
        assert!(matches!(DbError::from(sqlx::Error::RowNotFound), DbError::Bug(_)));
    }
}
