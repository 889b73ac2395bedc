//! Calls of the database with a deadline, and what their errors mean to the asker. Knows no table.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, PgConnection, PgPool, Postgres};

use crate::protocol::codes::{ErrorCode, Refusal};
use crate::store::is_unavailable;
use crate::telemetry::metrics;

/// From the call to its answer, the wait for a connection included (protocol: `unavailable` within 2 s).
pub const DEADLINE: Duration = Duration::from_millis(1800);

/// A statement ready to run: text and encoded arguments.
pub type Statement = Query<'static, Postgres, PgArguments>;

/// Rows of one statement. `path` names the use case in `haus_statements_total`.
///
/// # Errors
/// `unavailable` when the database cannot be reached or does not answer in time, `internal` when it refuses.
pub async fn fetch(pool: &PgPool, path: &'static str, statement: Statement) -> Result<Vec<PgRow>, Refusal> {
    with_connection(pool, path, |connection| Box::pin(statement.fetch_all(connection))).await
}

/// The same in a task of its own: a statement that changes something runs to its end though the asker has gone.
///
/// # Errors
/// As [`fetch`].
pub async fn change(pool: &PgPool, path: &'static str, statement: Statement) -> Result<Vec<PgRow>, Refusal> {
    let pool = pool.clone();
    joined(tokio::spawn(async move { fetch(&pool, path, statement).await }).await)
}

/// Why a transaction ended without its commit.
#[derive(Debug)]
pub enum Stop {
    /// It is the answer.
    Refused(Refusal),
    Failed(sqlx::Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

/// A change and what its answer needs to know, in one transaction: what fails in between leaves nothing behind, and after
/// the commit nothing is read that could fail. In a task of its own: it runs to its end though the asker has gone.
///
/// # Errors
/// What `work` refused (nothing has happened); as [`fetch`]. Only an `unavailable` leaves open whether the commit went
/// through.
pub async fn in_transaction<T: Send + 'static>(
    pool: &PgPool,
    path: &'static str,
    work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Stop>> + Send + 'static,
) -> Result<T, Refusal> {
    let pool = pool.clone();
    let task = tokio::spawn(async move {
        with_connection(&pool, path, |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                match work(&mut transaction).await {
                    Ok(value) => {
                        transaction.commit().await?;
                        Ok(Ok(value))
                    }
                    Err(Stop::Refused(refusal)) => {
                        transaction.rollback().await?;
                        Ok(Err(refusal))
                    }
                    Err(Stop::Failed(error)) => {
                        let _ = transaction.rollback().await;
                        Err(error)
                    }
                }
            })
        })
        .await?
    });
    joined(task.await)
}

/// Several reads in one snapshot. In a task of its own, because a transaction must not be dropped half begun.
///
/// # Errors
/// As [`fetch`].
pub async fn in_snapshot<T: Send + 'static>(
    pool: &PgPool,
    path: &'static str,
    work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
) -> Result<T, Refusal> {
    let pool = pool.clone();
    let task = tokio::spawn(async move {
        with_connection(&pool, path, |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                let value = work(&mut transaction).await?;
                transaction.commit().await?;
                Ok(value)
            })
        })
        .await
    });
    joined(task.await)
}

async fn with_connection<T>(
    pool: &PgPool,
    path: &'static str,
    work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
) -> Result<T, Refusal> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut connection = match tokio::time::timeout_at(deadline, pool.acquire()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(refusal(path, &error)),
        Err(_) => return Err(late(path)),
    };
    metrics().statements.with_label_values(&[path]).inc();
    match tokio::time::timeout_at(deadline, work(&mut connection)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            if !matches!(error, sqlx::Error::Database(_)) {
                drop(connection.detach());
            }
            Err(refusal(path, &error))
        }
        Err(_) => {
            // The answer may still come on this connection: it must not be used again.
            drop(connection.detach());
            Err(late(path))
        }
    }
}

fn joined<T>(result: Result<Result<T, Refusal>, tokio::task::JoinError>) -> Result<T, Refusal> {
    result.unwrap_or_else(|error| {
        tracing::error!(%error, "a database task ended early");
        Err(Refusal::new(ErrorCode::Internal, "the request failed"))
    })
}

fn late(path: &str) -> Refusal {
    tracing::warn!(path, "no answer from the database in time");
    Refusal::unavailable()
}

/// What an error means to the asker; the cause is logged here, once.
pub fn refusal(path: &str, error: &sqlx::Error) -> Refusal {
    if is_unavailable(error) {
        tracing::warn!(path, %error, "the database is not available");
        return Refusal::unavailable();
    }
    tracing::error!(path, %error, "the database refused");
    Refusal::new(ErrorCode::Internal, "the request could not be carried out")
}

/// A value of a column that no enum of ours has: the schema is ahead of this build.
pub fn unknown(column: &'static str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column}: unknown value {value:?}").into())
}
