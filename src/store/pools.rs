//! Pools of connections as a node uses them: bounded waits everywhere, so that a stalled database or a stopped node
//! cannot hold anybody up, and a safety check on every new connection.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use super::safety::{SafetyState, check_settings};

/// Longest wait for a free or new connection.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);
/// A connection is renewed after this, so that a failover behind a name is followed.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A connection unused for so long is asked whether it still works before it is given out.
const RESTED: Duration = Duration::from_secs(1);

/// What the server enforces for each session of a node. The TCP times are the server's own view: it gives up a client
/// that stopped, and with it the locks it held.
const SESSION: [(&str, &str); 8] = [
    ("lock_timeout", "2s"),
    ("statement_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("tcp_user_timeout", "5s"),
    ("tcp_keepalives_idle", "5s"),
    ("tcp_keepalives_interval", "2s"),
    ("tcp_keepalives_count", "3"),
    ("timezone", "UTC"),
];

/// A pool of at most `size` connections to `url`, as the application role. Connects lazily.
///
/// # Errors
/// When `url` is not a Postgres URL; the database is not asked.
pub fn connect(url: &str, node: &str, size: u32, safety: &SafetyState) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.application_name(&format!("haus/{node}")).options(SESSION).disable_statement_logging();
    let safety = safety.clone();
    Ok(PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            // A busy connection was used a moment ago; one that rested may have outlived its server.
            Box::pin(async move {
                if meta.idle_for > RESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            let safety = safety.clone();
            Box::pin(async move {
                // The pool gives a refused connection up and says so in the log.
                check_settings(connection, &safety)
                    .await?
                    .map_err(|reason| sqlx::Error::Configuration(Box::new(reason)))
            })
        })
        .connect_lazy_with(options))
}
