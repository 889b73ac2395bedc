//! Numbered migrations, up and down, embedded in the binary. Applied one transaction each, under an advisory lock, by
//! the owner; before them the roles (`roles`) and the runner's own tables, after them what needs no way back
//! (`functions`). What the tables mean is in the SQL files.

pub mod functions;
mod list;
mod losses;
mod roles;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use tokio::time::{Instant, sleep};

pub use list::{MIGRATIONS, Migration};
pub use losses::would_lose;
pub use roles::Login;

/// Key of the advisory lock: `haus` in ASCII.
const LOCK_KEY: i64 = 0x6861_7573;
/// Longest wait for another `haus migrate`.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// The runner's own tables; every database has them before its first migration, and no way back drops them: without
/// `root_keys` nothing that was sealed could be read again.
const BOOKKEEPING: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS schema_reverted (
    version integer PRIMARY KEY,
    reverted_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS stream_epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch uuid NOT NULL,
    system_identifier bigint NOT NULL,
    timeline integer NOT NULL,
    keep boolean NOT NULL DEFAULT false,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    database_oid oid NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO deployment (database_oid) SELECT oid FROM pg_database WHERE datname = current_database()
ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS root_keys (
    key_id bytea PRIMARY KEY,
    check_value bytea NOT NULL,
    message_mac bytea NOT NULL,
    bound_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON schema_migrations TO haus_app;
GRANT SELECT, UPDATE ON deployment TO haus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON root_keys TO haus_app;
GRANT SELECT, INSERT, UPDATE ON stream_epoch TO haus_app;
";

/// Why the schema was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("migration {name} {direction}: {cause}")]
    Failed { name: &'static str, direction: &'static str, cause: sqlx::Error },
    #[error("migration {0} was changed after it was applied: its checksum differs")]
    Drift(String),
    #[error("the database is at version {found}, this program knows {head}")]
    Newer { found: i32, head: i32 },
    #[error("--to: there is no version {0}")]
    NoSuchVersion(i32),
    #[error("{0}")]
    Login(String),
    #[error("another migration has been running for 120 s")]
    Locked,
    #[error("roles and bookkeeping: {0}")]
    Prepare(#[source] sqlx::Error),
    #[error("the database is unavailable: {0}")]
    Database(#[from] sqlx::Error),
}

/// Where to move the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Head,
    Version(i32),
    /// So many steps back.
    Down(u32),
}

/// One line of `haus migrate --status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// None: a file of `sql/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    pub name: String,
    pub applied: bool,
    pub applied_at: Option<DateTime<Utc>>,
    /// The file's content is not what was applied.
    pub drift: bool,
}

/// How the schema of a database stands against this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    AtHead,
    /// Behind or ahead: the version found.
    Version(i32),
    /// Names of migrations changed after they were applied.
    Drift(Vec<String>),
    /// Files of `sql/` that are missing in the database or another there.
    Functions(Vec<String>),
}

/// The version this program is written for.
pub fn head() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// How the schema stands; a database that was never migrated is at version 0. Works as the application role.
pub async fn state(pool: &PgPool) -> Result<SchemaState, sqlx::Error> {
    state_on(&mut *pool.acquire().await?).await
}

/// [`state`] on a connection of the caller's.
pub async fn state_on(connection: &mut PgConnection) -> Result<SchemaState, sqlx::Error> {
    let applied = applied(&mut *connection).await?;
    let drift: Vec<String> = applied.iter().filter(|row| row.has_drifted()).map(|row| row.name.clone()).collect();
    let version = applied.last().map_or(0, |row| row.version);
    Ok(match version == head() && applied.len() == MIGRATIONS.len() {
        _ if !drift.is_empty() => SchemaState::Drift(drift),
        true => {
            let states = functions::states(connection).await?;
            let stale: Vec<String> =
                states.into_iter().filter(|state| !state.is_current()).map(|state| state.name).collect();
            if stale.is_empty() { SchemaState::AtHead } else { SchemaState::Functions(stale) }
        }
        false => SchemaState::Version(version),
    })
}

/// Every migration known here or there, oldest first.
pub async fn status(owner: &mut PgConnection) -> Result<Vec<Status>, MigrateError> {
    let applied = applied(owner).await?;
    let mut lines: Vec<Status> = applied
        .iter()
        .map(|row| Status {
            version: Some(row.version),
            name: row.name.clone(),
            applied: true,
            applied_at: Some(row.applied_at),
            drift: row.has_drifted(),
        })
        .collect();
    let missing = MIGRATIONS.iter().filter(|migration| applied.iter().all(|row| row.version != migration.version));
    lines.extend(missing.map(|migration| Status {
        version: Some(migration.version),
        name: migration.name.to_owned(),
        applied: false,
        applied_at: None,
        drift: false,
    }));
    lines.sort_by_key(|line| line.version);
    lines.extend(functions::states(owner).await?.into_iter().map(|state| Status {
        version: None,
        applied: state.applied_at.is_some(),
        applied_at: state.applied_at,
        drift: state.drift,
        name: state.name,
    }));
    Ok(lines)
}

/// Makes roles and login where missing, then moves the schema to `target`. `told` hears of each step done.
///
/// # Errors
/// Stops at the first failure; steps before it stay.
pub async fn run(
    owner: &mut PgConnection,
    login: Option<&Login>,
    target: Target,
    mut told: impl FnMut(&'static str, &'static str),
) -> Result<(), MigrateError> {
    acquire_lock(owner).await?;
    let result = run_locked(owner, login, target, &mut told).await;
    // The lock also ends with the connection.
    let _ = sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK_KEY).execute(owner).await;
    result
}

async fn run_locked(
    owner: &mut PgConnection,
    login: Option<&Login>,
    target: Target,
    told: &mut impl FnMut(&'static str, &'static str),
) -> Result<(), MigrateError> {
    roles::ensure(owner, login).await?;
    for tables in [BOOKKEEPING, functions::BOOKKEEPING] {
        sqlx::raw_sql(tables).execute(&mut *owner).await.map_err(MigrateError::Prepare)?;
    }
    let applied = applied(owner).await?;
    if let Some(row) = applied.iter().find(|row| row.has_drifted()) {
        return Err(MigrateError::Drift(row.name.clone()));
    }
    let found = applied.last().map_or(0, |row| row.version);
    if found > head() {
        return Err(MigrateError::Newer { found, head: head() });
    }
    let goal = goal_of(target, &applied)?;
    let is_applied = |version: i32| applied.iter().any(|row| row.version == version);
    for migration in MIGRATIONS.iter().filter(|m| m.version <= goal && !is_applied(m.version)) {
        step(owner, migration, "up").await?;
        told(migration.name, "up");
    }
    if MIGRATIONS.iter().any(|m| m.version > goal && is_applied(m.version)) {
        functions::clear(owner).await?;
    }
    for migration in MIGRATIONS.iter().rev().filter(|m| m.version > goal && is_applied(m.version)) {
        step(owner, migration, "down").await?;
        told(migration.name, "down");
    }
    if goal == head() {
        if functions::apply(owner).await? {
            told("sql", "up");
        }
        // Made well ahead, at every run of the command: `/readyz` fails where the next one is missing.
        sqlx::query(
            "SELECT engine.ensure_message_partitions(y, y + 3) FROM (SELECT extract(year FROM now())::integer) t (y)",
        )
        .execute(owner)
        .await?;
    }
    Ok(())
}

fn goal_of(target: Target, applied: &[Applied]) -> Result<i32, MigrateError> {
    match target {
        Target::Head => Ok(head()),
        Target::Version(version) if version == 0 || MIGRATIONS.iter().any(|m| m.version == version) => Ok(version),
        Target::Version(version) => Err(MigrateError::NoSuchVersion(version)),
        Target::Down(steps) => {
            let left = applied.len().saturating_sub(steps as usize);
            Ok(left.checked_sub(1).and_then(|index| applied.get(index)).map_or(0, |row| row.version))
        }
    }
}

/// Whether messages of the coming month have a partition to lie in. Works as the application role.
pub async fn next_partition_exists(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass('messages_' || extract(year FROM now() + interval '31 days')) IS NOT NULL")
        .fetch_one(pool)
        .await
}

async fn step(owner: &mut PgConnection, migration: &Migration, direction: &'static str) -> Result<(), MigrateError> {
    let failed = |cause| MigrateError::Failed { name: migration.name, direction, cause };
    let mut transaction = owner.begin().await?;
    if direction == "up" {
        sqlx::raw_sql(migration.up).execute(&mut *transaction).await.map_err(failed)?;
        sqlx::query("INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            .execute(&mut *transaction)
            .await?;
    } else {
        sqlx::raw_sql(migration.down).execute(&mut *transaction).await.map_err(failed)?;
        sqlx::query("DELETE FROM schema_migrations WHERE version = $1")
            .bind(migration.version)
            .execute(&mut *transaction)
            .await?;
        // A way up that changes what people have asks for it: it has no business with what it met before.
        sqlx::query(
            "INSERT INTO schema_reverted (version, reverted_at) VALUES ($1, clock_timestamp())
             ON CONFLICT (version) DO UPDATE SET reverted_at = excluded.reverted_at",
        )
        .bind(migration.version)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await.map_err(failed)
}

async fn acquire_lock(owner: &mut PgConnection) -> Result<(), MigrateError> {
    // A run that is ended in the middle of a statement must not go on in the server, holding locks. Not every server can
    // look after its clients.
    let _ = sqlx::raw_sql("SET client_connection_check_interval = '1s'").execute(&mut *owner).await;
    let start = Instant::now();
    loop {
        let got: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK_KEY).fetch_one(&mut *owner).await?;
        if got {
            return Ok(());
        }
        if start.elapsed() >= LOCK_PATIENCE {
            return Err(MigrateError::Locked);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

struct Applied {
    version: i32,
    name: String,
    checksum: String,
    applied_at: DateTime<Utc>,
}

impl Applied {
    fn has_drifted(&self) -> bool {
        MIGRATIONS.iter().any(|migration| migration.version == self.version && migration.checksum() != self.checksum)
    }
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    let known: bool =
        sqlx::query_scalar("SELECT to_regclass('schema_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !known {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                version: row.try_get(0)?,
                name: row.try_get(1)?,
                checksum: row.try_get(2)?,
                applied_at: row.try_get(3)?,
            })
        })
        .collect()
}

/// Runs a statement that was quoted by the server itself (`format('%I %L')`): role names and passwords cannot be bound.
async fn execute_quoted(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}
