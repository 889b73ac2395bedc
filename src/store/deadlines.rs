//! What Postgres enforces for each session of a node, so that nothing hangs for ever: settings of the role in its database,
//! made by `haus migrate`. A pooler cannot drop them, as it does with what a client asks for. Where the owner may not set
//! them, each connection does so itself, which holds without a pooler only.
//!
//! The TCP times are the server's own view: it gives up a client that stopped, and with it the locks it held.

use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Name and value of each.
pub const SETTINGS: [(&str, &str); 8] = [
    ("lock_timeout", "2s"),
    ("statement_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("tcp_user_timeout", "5s"),
    ("tcp_keepalives_idle", "5s"),
    ("tcp_keepalives_interval", "2s"),
    ("tcp_keepalives_count", "3"),
    ("timezone", "UTC"),
];
/// So many of them are looked at: what the others show depends on the kind of socket.
const LOOKED_AT: usize = 3;

/// Whether this session has them.
///
/// # Errors
/// The statement's.
pub async fn are_set(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'),
                current_setting('idle_in_transaction_session_timeout')",
    )
    .fetch_one(connection)
    .await?;
    for (index, (_, value)) in SETTINGS.iter().take(LOOKED_AT).enumerate() {
        if row.try_get::<&str, _>(index)? != *value {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets them for this session, where they are not set already.
///
/// # Errors
/// The statements'.
pub async fn ensure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if are_set(connection).await? {
        return Ok(());
    }
    let statements: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
    sqlx::raw_sql(AssertSqlSafe(statements.join("; "))).execute(connection).await.map(drop)
}

/// Makes them settings of a login in the present database. Returns what the owner was not allowed to do.
///
/// # Errors
/// Any other refusal.
pub async fn set_for(owner: &mut PgConnection, login: &str) -> Result<Option<sqlx::Error>, sqlx::Error> {
    for (name, value) in SETTINGS {
        // Quoted by the server itself: names cannot be bound here.
        let statement: String = sqlx::query_scalar(
            "SELECT format('ALTER ROLE %I IN DATABASE %I SET %I = %L', $1, current_database(), $2, $3)",
        )
        .bind(login)
        .bind(name)
        .bind(value)
        .fetch_one(&mut *owner)
        .await?;
        match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *owner).await {
            Ok(_) => {}
            Err(error @ sqlx::Error::Database(_)) if is_refused(&error) => return Ok(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Insufficient privilege.
fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("42501"))
}
