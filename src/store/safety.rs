//! Whether this database keeps what it acknowledges, and whether our role is as weak as it should be. Checked at start,
//! on every new connection and once a second; an unsafe database makes the node not ready and refuses its sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{PgConnection, PgPool, Row};

/// Values of `synchronous_commit` under which a commit has reached the disk of this server when it returns.
const DURABLE_COMMITS: [&str; 3] = ["on", "remote_write", "remote_apply"];

/// What is unsafe about a database or role; the text names the setting.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Unsafe {
    #[error("unsafe database: {name} is {value}")]
    Setting { name: &'static str, value: String },
    #[error("unsafe role: {role} {why}; DATABASE_URL must name one that owns nothing and bypasses nothing")]
    Role { role: String, why: &'static str },
}

/// Shared by pools, readiness and the send path. Safe until found otherwise.
#[derive(Debug, Clone, Default)]
pub struct SafetyState(Arc<AtomicBool>);

impl SafetyState {
    pub fn is_safe(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    fn set(&self, found: &Result<(), Unsafe>) {
        let is_unsafe = found.is_err();
        if self.0.swap(is_unsafe, Ordering::Relaxed) == is_unsafe {
            return;
        }
        match found {
            Err(reason) => {
                tracing::error!(%reason, "the database does not keep what it acknowledges; sends are refused")
            }
            Ok(()) => tracing::info!("the database is safe again"),
        }
    }
}

/// Reads the settings as this connection has them and tells `state`. The inner result is the verdict.
pub async fn check_settings(
    connection: &mut PgConnection,
    state: &SafetyState,
) -> Result<Result<(), Unsafe>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')",
    )
    .fetch_one(connection)
    .await?;
    let verdict = judge(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    state.set(&verdict);
    Ok(verdict)
}

fn judge(fsync: &str, full_page_writes: &str, synchronous_commit: &str) -> Result<(), Unsafe> {
    let found = |name, value: &str| Err(Unsafe::Setting { name, value: value.to_owned() });
    if fsync != "on" {
        return found("fsync", fsync);
    }
    if full_page_writes != "on" {
        return found("full_page_writes", full_page_writes);
    }
    if !DURABLE_COMMITS.contains(&synchronous_commit) {
        return found("synchronous_commit", synchronous_commit);
    }
    Ok(())
}

/// Whether the role of this connection is as weak as it should be.
pub async fn check_role(connection: &mut PgConnection) -> Result<Result<(), Unsafe>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_user::text, r.rolsuper, r.rolbypassrls,
                EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname IN ('public', 'engine') AND c.relkind IN ('r', 'p')
                          AND pg_has_role(current_user, c.relowner, 'MEMBER')),
                EXISTS (SELECT FROM pg_roles e WHERE e.rolname = 'haus_engine'
                          AND pg_has_role(current_user, e.oid, 'MEMBER'))
         FROM pg_roles r WHERE r.rolname = current_user",
    )
    .fetch_one(connection)
    .await?;
    let role: String = row.try_get(0)?;
    let reasons = ["is a superuser", "has BYPASSRLS", "owns tables", "is in haus_engine"];
    for (index, why) in reasons.into_iter().enumerate() {
        if row.try_get::<bool, _>(index + 1)? {
            return Ok(Err(Unsafe::Role { role, why }));
        }
    }
    Ok(Ok(()))
}

/// For a poll once a second: reads the settings again, so that a change by `ALTER SYSTEM` is noticed on connections
/// that are open. Returns whether the database is safe; without an answer nothing changes.
pub async fn recheck(pool: &PgPool, state: &SafetyState) -> Result<bool, super::DbError> {
    let checked = super::with_deadline(pool, 1_500, async |connection| check_settings(connection, state).await).await?;
    Ok(checked.is_ok())
}

#[cfg(test)]
mod tests {
    use super::{SafetyState, Unsafe, judge};

    #[test]
    fn each_unsafe_setting_is_named() {
        let named = |fsync, pages, commit| match judge(fsync, pages, commit) {
            Err(Unsafe::Setting { name, .. }) => Some(name),
            _ => None,
        };
        assert_eq!(named("on", "on", "on"), None);
        assert_eq!(named("on", "on", "remote_apply"), None);
        assert_eq!(named("on", "on", "remote_write"), None);
        assert_eq!(named("off", "on", "on"), Some("fsync"));
        assert_eq!(named("on", "off", "on"), Some("full_page_writes"));
        assert_eq!(named("on", "on", "off"), Some("synchronous_commit"));
        assert_eq!(named("on", "on", "local"), Some("synchronous_commit"));
    }

    #[test]
    fn the_state_follows_the_last_look() {
        let state = SafetyState::default();
        assert!(state.is_safe());
        state.set(&judge("off", "on", "on"));
        assert!(!state.clone().is_safe());
        state.set(&judge("on", "on", "on"));
        assert!(state.is_safe());
    }
}
