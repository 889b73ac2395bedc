//! Clean-up of rows that nobody can use any more: tickets, idempotency keys, revocations, refresh tokens. Every node
//! runs it; two at once do no harm. Sessions are kept for their list; their retention is the business of the jobs.

use sqlx::PgPool;

use super::reading;

/// Rows one statement deletes at most; the rest waits for the next run.
const SWEEP_ROWS_MAX: i64 = 5_000;
/// Hours an idempotency key is kept (protocol, section 7).
const IDEMPOTENCY_KEEP_HOURS: i64 = 24;

const TICKETS: &str = "DELETE FROM ws_tickets WHERE hash IN
    (SELECT hash FROM ws_tickets WHERE expires_at < now() - make_interval(hours => $1::int) LIMIT $2)";
const IDEMPOTENCY_KEYS: &str = "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY
    (SELECT ctid FROM idempotency_keys WHERE created_at < now() - make_interval(hours => $1::int) LIMIT $2))";
const REFRESH_TOKENS: &str = "DELETE FROM refresh_tokens WHERE id IN
    (SELECT id FROM refresh_tokens WHERE expires_at < now() - make_interval(hours => $1::int) LIMIT $2)";
const REVOCATIONS: &str = "DELETE FROM revocations WHERE id IN
    (SELECT id FROM revocations WHERE at < now() - make_interval(hours => $1::int) LIMIT $2)";

/// The time of a suspension is over: what `engine.standing` says already is written down.
const LIFT: &str = "UPDATE profiles SET status = engine.standing(status, role, suspended_until), suspended_until = NULL
    WHERE id IN (SELECT id FROM profiles WHERE status = 'SUSPENDED' AND suspended_until <= now()
                 ORDER BY suspended_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)";

/// Writes down that suspensions are over. Failures are logged and wait for the next run.
pub async fn lift_suspensions(pool: &PgPool) {
    match reading(sqlx::query(LIFT).bind(SWEEP_ROWS_MAX).execute(pool)).await {
        Ok(done) if done.rows_affected() > 0 => tracing::info!(people = done.rows_affected(), "suspensions are over"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "suspensions that are over could not be lifted"),
    }
}

/// Deletes what has expired; `revocations_keep_ms` is one life of an access token. Failures are logged and wait for
/// the next run.
pub async fn sweep(pool: &PgPool, revocations_keep_ms: i64) {
    // Revocations stay a day longer than needed: a restarted node and an operator may want to read them.
    let revocations_keep_hours = revocations_keep_ms / 3_600_000 + 24;
    let steps = [
        ("ws_tickets", TICKETS, 0),
        ("idempotency_keys", IDEMPOTENCY_KEYS, IDEMPOTENCY_KEEP_HOURS),
        ("refresh_tokens", REFRESH_TOKENS, 24),
        ("revocations", REVOCATIONS, revocations_keep_hours),
    ];
    for (table, statement, hours) in steps {
        match reading(sqlx::query(statement).bind(hours).bind(SWEEP_ROWS_MAX).execute(pool)).await {
            Ok(done) if done.rows_affected() > 0 => tracing::debug!(table, rows = done.rows_affected(), "swept"),
            Ok(_) => {}
            Err(error) => tracing::warn!(table, %error, "sweep failed"),
        }
    }
}
