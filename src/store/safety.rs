//! Whether this database keeps what it acknowledges, whether it is the one whose history this node tells, and whether our
//! role is as weak as it should be. Looked at when a node starts, on every new connection and once a second; an unsafe or
//! read-only database makes the node not ready and refuses its sends, and a connection to another database is not used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{PgConnection, PgPool, Row};
use tokio::sync::Notify;
use uuid::Uuid;

/// Values of `synchronous_commit` under which a commit has reached the disk of this server when it returns.
const DURABLE_COMMITS: [&str; 3] = ["on", "remote_write", "remote_apply"];
/// Deadline of one look, milliseconds.
const LOOK_MS: u64 = 1_500;

/// What is unsafe about a database or role; the text names the setting.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Unsafe {
    #[error("unsafe database: {name} is {value}")]
    Setting { name: &'static str, value: String },
    #[error("the database is read-only: {0}")]
    ReadOnly(&'static str),
    #[error("DATABASE_URL leads through {0}")]
    Pooler(&'static str),
    #[error("unsafe role: {role} {why}; DATABASE_URL must name one that owns nothing and bypasses nothing")]
    Role { role: String, why: &'static str },
}

/// One life of a database: a failover changes the timeline, a restore from a dump the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub system: i64,
    pub timeline: i32,
}

/// What a look at a connection found.
#[derive(Debug, Clone)]
pub struct Seen {
    pub verdict: Result<(), Unsafe>,
    /// None on a standby: it has no timeline of its own.
    pub place: Option<Place>,
}

/// Shared by pools, readiness and the send path. Safe, and anywhere, until found otherwise.
#[derive(Debug, Clone, Default)]
pub struct SafetyState(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_unsafe: AtomicBool,
    reason: Mutex<Option<Unsafe>>,
    /// The place this node serves from, and since when.
    held: Mutex<Option<(Place, Instant)>>,
    stranger: Notify,
}

impl SafetyState {
    pub fn is_safe(&self) -> bool {
        !self.0.is_unsafe.load(Ordering::Relaxed)
    }

    /// What is wrong, where something is.
    pub fn reason(&self) -> Option<Unsafe> {
        if self.is_safe() { None } else { lock(&self.0.reason).clone() }
    }

    /// This node serves from `place` from now on: connections to another are refused, and older ones are not used again.
    pub fn hold(&self, place: Place) {
        let mut held = lock(&self.0.held);
        if held.is_none_or(|(before, _)| before != place) {
            *held = Some((place, Instant::now()));
        }
    }

    /// The place this node serves from.
    pub fn held(&self) -> Option<Place> {
        lock(&self.0.held).map(|(place, _)| place)
    }

    /// Whether a connection of this age was made before the node came to its place.
    pub fn is_of_old(&self, age: Duration) -> bool {
        lock(&self.0.held).is_some_and(|(_, since)| age > since.elapsed())
    }

    /// Whether a new connection leads to the place this node serves from; if not, whoever watches is woken.
    pub fn is_here(&self, seen: &Seen) -> bool {
        let here = match (self.held(), seen.place) {
            (Some(held), Some(place)) => held == place,
            _ => true,
        };
        if !here {
            self.0.stranger.notify_one();
        }
        here
    }

    /// Waits until a connection led elsewhere.
    pub async fn met_a_stranger(&self) {
        self.0.stranger.notified().await;
    }

    /// Takes in what a look found.
    pub fn set(&self, found: &Result<(), Unsafe>) {
        let mut reason = lock(&self.0.reason);
        if reason.as_ref() == found.as_ref().err() {
            return;
        }
        self.0.is_unsafe.store(found.is_err(), Ordering::Relaxed);
        *reason = found.as_ref().err().cloned();
        match found {
            Err(reason) => tracing::error!(%reason, "the database does not take or keep commits; sends are refused"),
            Ok(()) => tracing::info!("the database is safe again"),
        }
    }
}

/// Reads what this connection leads to, and judges it.
///
/// # Errors
/// The statement's.
pub async fn look(connection: &mut PgConnection) -> Result<Seen, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
                pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
                (SELECT system_identifier FROM pg_control_system()),
                CASE WHEN NOT pg_is_in_recovery()
                     THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END",
    )
    .fetch_one(connection)
    .await?;
    let read_only = match (row.try_get(3)?, row.try_get(4)?) {
        (true, _) => Some("it is a standby"),
        (false, true) => Some("default_transaction_read_only is on"),
        (false, false) => None,
    };
    let settings = judge(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let system = row.try_get(5)?;
    let timeline: Option<i32> = row.try_get(6)?;
    Ok(Seen {
        verdict: settings.and(read_only.map_or(Ok(()), |why| Err(Unsafe::ReadOnly(why)))),
        place: timeline.map(|timeline| Place { system, timeline }),
    })
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

/// What a look once a second finds.
#[derive(Debug, Clone)]
pub struct Look {
    pub verdict: Result<(), Unsafe>,
    pub place: Option<Place>,
    /// The stored epoch and the place it belongs to, where there is one.
    pub stored: Option<(Uuid, Place)>,
    /// The next transaction number: it never gets smaller in one place.
    pub next_number: i64,
}

/// For a look once a second: what the database is now (a change by `ALTER SYSTEM`, a promotion), and the stored epoch.
/// Without an answer nothing changes; taking the verdict in is the caller's, after it has followed a change of place.
///
/// # Errors
/// [`super::DbError`].
pub async fn recheck(pool: &PgPool) -> Result<Look, super::DbError> {
    super::with_deadline(pool, LOOK_MS, async |connection| {
        let seen = look(connection).await?;
        let row = sqlx::query(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, e.epoch, e.system_identifier, e.timeline
             FROM (SELECT) AS always LEFT JOIN stream_epoch e ON true",
        )
        .fetch_one(connection)
        .await?;
        let stored = match row.try_get(1)? {
            Some(epoch) => Some((epoch, Place { system: row.try_get(2)?, timeline: row.try_get(3)? })),
            None => None,
        };
        Ok(Look { verdict: seen.verdict, place: seen.place, stored, next_number: row.try_get(0)? })
    })
    .await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Place, SafetyState, Seen, Unsafe, judge};

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
        assert!(state.is_safe() && state.reason().is_none());
        state.set(&judge("off", "on", "on"));
        assert!(!state.clone().is_safe());
        state.set(&Err(Unsafe::ReadOnly("it is a standby")));
        assert_eq!(state.reason(), Some(Unsafe::ReadOnly("it is a standby")));
        state.set(&judge("on", "on", "on"));
        assert!(state.is_safe() && state.reason().is_none());
    }

    #[test]
    fn connections_elsewhere_and_from_before_are_told_apart() {
        let state = SafetyState::default();
        let at = |timeline: Option<i32>| Seen {
            verdict: Ok(()),
            place: timeline.map(|timeline| Place { system: 1, timeline }),
        };
        assert!(state.is_here(&at(Some(1))) && !state.is_of_old(Duration::from_secs(9)), "nothing is held yet");
        state.hold(Place { system: 1, timeline: 1 });
        assert!(state.is_here(&at(Some(1))) && state.is_here(&at(None)) && !state.is_here(&at(Some(2))));
        assert!(state.is_of_old(Duration::from_secs(9)) && !state.is_of_old(Duration::ZERO));
    }
}
