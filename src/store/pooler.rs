//! Whether a pooler stands before the database, and whether a node can work through it. A node prepares its statements
//! once a connection. A pooler that gives each transaction another server connection (PgBouncer's transaction mode) must
//! know them all: PgBouncer does from 1.21 on, with `max_prepared_statements` above 0.

use sqlx::{Connection, PgConnection};

use super::deadlines;
use super::safety::Unsafe;

/// Looks at it so often: other clients of the pooler may take its server connections in between.
const ROUNDS: usize = 3;

/// What stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// None, or one that gives each client a connection of its own.
    None,
    /// Server connections change between transactions, and prepared statements are kept.
    Transactions,
}

/// Judges by what two clients see of the server: they share a server connection only through a pooler.
///
/// # Errors
/// The statements', where they are no sign of a pooler.
pub async fn probe(first: &mut PgConnection, second: &mut PgConnection) -> Result<Result<Pooler, Unsafe>, sqlx::Error> {
    let found = match share(first, second).await {
        Ok(false) => Pooler::None,
        Ok(true) => Pooler::Transactions,
        Err(error) => return sign_of(&error).map(Err).ok_or(error),
    };
    if found == Pooler::Transactions && !deadlines::are_set(first).await? {
        return Ok(Err(Unsafe::Pooler(
            "a pooler, which drops the deadlines a client asks for, and the role has none of its own (lock_timeout, \
             statement_timeout, idle_in_transaction_session_timeout): run `haus migrate` with an owner \
             that may ALTER ROLE, then RECONNECT in the pooler",
        )));
    }
    Ok(Ok(found))
}

/// Whether one server connection serves both clients. Every statement is prepared, and met again by a client that may have
/// been given another server connection meanwhile.
async fn share(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    for _ in 0..ROUNDS {
        let before = backend(first).await?;
        // Takes the connection that was used last, where there is a choice.
        let mut transaction = second.begin().await?;
        let between = backend(&mut transaction).await?;
        let after = backend(first).await?;
        transaction.rollback().await?;
        if between == before || after != before {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await
}

/// What a pooler makes of prepared statements and transactions, by its errors.
pub(super) fn sign_of(error: &sqlx::Error) -> Option<Unsafe> {
    let sqlx::Error::Database(database) = error else { return None };
    let code = database.code().unwrap_or_default();
    // A statement that is not there, or there already; a pooler's own refusal of a transaction.
    let by_text = database.message().contains("statement pooling");
    let by_code = matches!(code.as_ref(), "26000" | "42P05");
    if by_text {
        return Some(Unsafe::Pooler("a pooler in statement mode: a node needs transaction or session mode"));
    }
    by_code.then_some(Unsafe::Pooler(
        "a pooler in transaction mode that does not keep prepared statements: PgBouncer from 1.21 on does, with \
         max_prepared_statements above 0; else use session mode",
    ))
}
