//! Changes over REST: one transaction that is published and runs to its end though the client has gone. After a commit
//! nothing is left to do that could turn its answer into an error.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};

use super::problem::{FieldError, Problem};
use crate::messaging::db::{Stop, in_transaction};
use crate::messaging::{Committed, Publisher};
use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;

/// Runs `work` in one transaction, publishes its updates after the commit and gives its value.
pub async fn changed<T: Send + 'static>(
    pool: &PgPool,
    publisher: &Arc<dyn Publisher>,
    path: &'static str,
    work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<Committed<T>, Stop>> + Send + 'static,
) -> Result<T, Problem> {
    let pool = pool.clone();
    published(publisher, async move { in_transaction(&pool, path, work).await }).await
}

/// Publishes what `work` committed, and gives its value.
pub async fn published<T: Send + 'static>(
    publisher: &Arc<dyn Publisher>,
    work: impl Future<Output = Result<Committed<T>, Refusal>> + Send + 'static,
) -> Result<T, Problem> {
    let publisher = publisher.clone();
    let task = tokio::spawn(async move {
        let Committed { value, updates } = work.await?;
        if !updates.is_empty() {
            publisher.publish(updates);
        }
        Ok(value)
    });
    let done = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the task of a request ended early");
        Err(Refusal::new(ErrorCode::Internal, "the request failed"))
    });
    done.map_err(problem)
}

/// A refusal whose text is `field: what is wrong` as a problem that names the field.
pub fn problem(refusal: Refusal) -> Problem {
    match (refusal.code, refusal.message.split_once(": ")) {
        // Part of the query, as `limit` is.
        (ErrorCode::Invalid, Some(("cursor", _))) => Problem::malformed(refusal.message),
        (ErrorCode::Invalid, Some((path, message))) if !path.contains(' ') => {
            Problem::invalid(vec![FieldError { path: path.to_owned(), code: "range", message: message.to_owned() }])
        }
        _ => refusal.into(),
    }
}
