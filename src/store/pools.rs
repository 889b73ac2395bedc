//! Pools of connections as a node uses them: bounded waits everywhere, so that a stalled database or a stopped node
//! cannot hold anybody up, and a look on every new connection at where it leads.
//!
//! Nothing is asked for in the startup packet that a pooler would refuse or drop: deadlines are settings of the role
//! (`deadlines`).

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use super::deadlines;
use super::safety::{SafetyState, Unsafe, look};

/// Longest wait for a free or new connection.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);
/// A connection is renewed after this, so that a failover behind a name is followed.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The same for the connection that watches the database: it is to see where new ones lead.
const WATCH_LIFETIME: Duration = Duration::from_secs(5);
/// A connection unused for so long is asked whether it still works before it is given out.
const RESTED: Duration = Duration::from_secs(1);

/// How any part of the product connects to `url`.
///
/// # Errors
/// When `url` is not a Postgres URL.
pub fn options(url: &str, name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.application_name(&format!("haus/{name}")).extra_float_digits(None);
    Ok(options.disable_statement_logging())
}

/// A pool of at most `size` connections to `url`, as the application role. Connects lazily.
///
/// # Errors
/// When `url` is not a Postgres URL; the database is not asked.
pub fn connect(url: &str, node: &str, size: u32, safety: &SafetyState) -> Result<PgPool, sqlx::Error> {
    let (options, on_connect, on_acquire) = (options(url, node)?, safety.clone(), safety.clone());
    Ok(PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let is_of_old = on_acquire.is_of_old(meta.age);
            Box::pin(async move {
                if is_of_old {
                    return Ok(false);
                }
                // A busy connection was used a moment ago; one that rested may have outlived its server.
                if meta.idle_for > RESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            let safety = on_connect.clone();
            Box::pin(async move {
                // The pool gives a refused connection up, says so in the log and tries again until its time is over.
                let refuse = |reason: String| sqlx::Error::Configuration(reason.into());
                let seen = look(connection).await?;
                if !safety.is_here(&seen) {
                    return Err(refuse(
                        "another database, or another life of it, answers; it is examined first".into(),
                    ));
                }
                safety.set(&seen.verdict);
                match seen.verdict {
                    // It can be read.
                    Ok(()) | Err(Unsafe::ReadOnly(_)) => deadlines::ensure(connection).await,
                    Err(reason) => Err(refuse(reason.to_string())),
                }
            })
        })
        .connect_lazy_with(options))
}

/// One connection for whoever watches the database: it is never refused, and made anew every few seconds.
///
/// # Errors
/// As [`connect`].
pub fn watch(url: &str, node: &str) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(WATCH_LIFETIME)
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(deadlines::ensure(connection)))
        .connect_lazy_with(options(url, node)?))
}
