//! Revocation: the in-memory set every check asks, and the poll that fills it from the table `revocations`.
//!
//! The poll is exact, and reads nothing twice: it keeps the database snapshot of its last run and reads the rows of the
//! transactions that were under way in it, and of those that began since. What lies above the present snapshot was written
//! in another cluster and restored from its dump; it is no news. A row with a session ends that
//! session; a row without one says that the standing of the profile changed (ban, suspension): its sockets are closed
//! and its standing is read again, but its tokens go on working for what the new status allows.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::error::IdentityError;
use super::{DATABASE_TIMEOUT, now_ms};

/// Time between two polls.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The same after a failed poll.
const POLL_EVERY_UNHEALTHY: Duration = Duration::from_millis(250);
/// Rows read by one statement.
const PAGE_ROWS_MAX: i64 = 10_000;
/// Clean-up of what has expired runs once in so many polls.
const SWEEP_EVERY_POLLS: u32 = 60;
/// Suspensions whose time is over are lifted once in so many polls.
const LIFT_EVERY_POLLS: u32 = 5;
/// A revocation is kept this long beyond the life of an access token, milliseconds.
const KEEP_SLACK_MS: i64 = 60_000;

/// Called for every revocation this node learns of: the profile, and the session unless the whole profile is meant.
pub type RevokedHook = Arc<dyn Fn(Uuid, Option<Uuid>) + Send + Sync>;

/// Sessions that ended within one life of an access token. Older tokens are expired anyway.
pub struct RevokedSet {
    /// Session → when the entry may go, milliseconds since 1970.
    sessions: DashMap<Uuid, i64>,
    /// Rows about the standing of a profile that were acted upon → when the entry may go. A first run that comes again (the
    /// database went back) must not close sockets once more.
    standings: DashMap<Uuid, i64>,
    hooks: RwLock<Vec<RevokedHook>>,
    keep_ms: i64,
    last_poll_ms: AtomicI64,
    /// Snapshot of the last successful poll, as text.
    snapshot: Mutex<Option<String>>,
}

impl RevokedSet {
    /// A set that remembers for `access_ttl_ms` and a little more.
    pub fn new(access_ttl_ms: u64) -> Self {
        Self {
            sessions: DashMap::new(),
            standings: DashMap::new(),
            hooks: RwLock::default(),
            keep_ms: i64::try_from(access_ttl_ms).unwrap_or(i64::MAX / 4).saturating_add(KEEP_SLACK_MS),
            last_poll_ms: AtomicI64::new(0),
            snapshot: Mutex::default(),
        }
    }

    /// Whether the session is known to have ended.
    pub fn contains(&self, session_id: Uuid) -> bool {
        self.sessions.contains_key(&session_id)
    }

    /// Adds a hook; it must not block. It may be called twice for a profile-wide revocation.
    pub fn on_revoked(&self, hook: impl Fn(Uuid, Option<Uuid>) + Send + Sync + 'static) {
        self.hooks.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(hook));
    }

    /// Milliseconds since the last successful poll; above 10,000 the node must stop delivering (architecture).
    pub fn poll_age_ms(&self) -> u64 {
        u64::try_from(now_ms() - self.last_poll_ms.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Takes a revocation in: from the poll, a hint of another node, or a commit made here.
    pub fn apply(&self, profile_id: Uuid, session_id: Option<Uuid>) {
        if let Some(session_id) = session_id
            && self.sessions.insert(session_id, now_ms() + self.keep_ms).is_some()
        {
            return;
        }
        let hooks = self.hooks.read().unwrap_or_else(PoisonError::into_inner).clone();
        for hook in hooks {
            hook(profile_id, session_id);
        }
    }

    /// Takes in one row of the table.
    fn apply_row(&self, id: Uuid, profile_id: Uuid, session_id: Option<Uuid>) {
        if session_id.is_none() && self.standings.insert(id, now_ms() + self.keep_ms).is_some() {
            return;
        }
        self.apply(profile_id, session_id);
    }

    /// Reads what was committed since the last poll, in pages; the first run reads all that one life of an access
    /// token covers. The snapshot kept is that of the first page: what commits during the others comes again next
    /// time, which does no harm.
    pub async fn poll(&self, pool: &PgPool) -> Result<(), IdentityError> {
        let before = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut after: Option<String> = None;
        let mut last_id = Uuid::nil();
        loop {
            let rows = tokio::time::timeout(DATABASE_TIMEOUT, self.read_page(pool, before.as_deref(), last_id))
                .await
                .map_err(|_| IdentityError::Unavailable)??;
            let mut read = 0;
            for row in &rows {
                if after.is_none() {
                    after = Some(row.try_get("snapshot")?);
                }
                if let Some(id) = row.try_get::<Option<Uuid>, _>("id")? {
                    self.apply_row(id, row.try_get("profile_id")?, row.try_get("session_id")?);
                    last_id = id;
                    read += 1;
                }
            }
            if read < PAGE_ROWS_MAX {
                break;
            }
        }
        // A snapshot older than the last one means another database (a restore): the next poll loads anew.
        let backward = matches!((&before, &after), (Some(old), Some(new)) if xmax(new) < xmax(old));
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = if backward { None } else { after };
        self.last_poll_ms.store(now_ms(), Ordering::Release);
        Ok(())
    }

    async fn read_page(
        &self,
        pool: &PgPool,
        since: Option<&str>,
        after_id: Uuid,
    ) -> Result<Vec<sqlx::postgres::PgRow>, IdentityError> {
        let query = match since {
            Some(snapshot) => {
                sqlx::query(PAGE_SINCE).bind(self.keep_ms).bind(after_id).bind(PAGE_ROWS_MAX).bind(snapshot)
            }
            None => sqlx::query(PAGE_FIRST).bind(self.keep_ms).bind(after_id).bind(PAGE_ROWS_MAX),
        };
        Ok(query.fetch_all(pool).await?)
    }

    /// Polls until the process ends; sweeps what has expired once a minute. Run as a task of the composition root.
    pub async fn keep_polling(self: Arc<Self>, pool: PgPool) {
        let mut polls = 0_u32;
        loop {
            let wait = match self.poll(&pool).await {
                Ok(()) => POLL_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "revocations cannot be read");
                    POLL_EVERY_UNHEALTHY
                }
            };
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(LIFT_EVERY_POLLS) {
                super::sweep::lift_suspensions(&pool).await;
            }
            if polls.is_multiple_of(SWEEP_EVERY_POLLS) {
                self.forget_expired();
                super::sweep::sweep(&pool, self.keep_ms).await;
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn forget_expired(&self) {
        let now = now_ms();
        self.sessions.retain(|_, until_ms| *until_ms > now);
        self.standings.retain(|_, until_ms| *until_ms > now);
    }
}

const PAGE_FIRST: &str = "
    SELECT pg_current_snapshot()::text AS snapshot, r.id, r.profile_id, r.session_id
    FROM (SELECT 1) AS always LEFT JOIN (
        SELECT id, profile_id, session_id FROM revocations
        WHERE at > now() - make_interval(secs => $1::bigint / 1000.0) AND id > $2 ORDER BY id LIMIT $3) AS r ON true
    ORDER BY r.id";

const PAGE_SINCE: &str = "
    SELECT pg_current_snapshot()::text AS snapshot, r.id, r.profile_id, r.session_id
    FROM (SELECT 1) AS always LEFT JOIN (
        SELECT n.id, n.profile_id, n.session_id FROM (
            SELECT id, profile_id, session_id, at FROM revocations
            WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($4::text::pg_snapshot)))
            UNION ALL
            SELECT id, profile_id, session_id, at FROM revocations
            WHERE xid >= pg_snapshot_xmax($4::text::pg_snapshot) AND xid < pg_snapshot_xmax(pg_current_snapshot())) AS n
        WHERE n.at > now() - make_interval(secs => $1::bigint / 1000.0) AND n.id > $2 ORDER BY n.id LIMIT $3) AS r ON true
    ORDER BY r.id";

/// The first transaction number after a snapshot written `xmin:xmax:list`.
fn xmax(snapshot: &str) -> u64 {
    snapshot.split(':').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}
