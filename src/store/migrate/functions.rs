//! The functions, views and types of the database: one file each in `sql/`, applied together whenever the text of one
//! changed. They hold no data, so there is no way back of their own: the previous release's `haus migrate` applies its
//! files in the same way.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Row};

use super::MigrateError;

/// A file of `sql/`.
pub struct SqlFile {
    pub name: &'static str,
    text: &'static str,
}

macro_rules! sql_files {
    ($($name:literal),+ $(,)?) => {
        &[$(SqlFile { name: concat!("sql/", $name), text: include_str!(concat!("../../../sql/", $name)) }),+]
    };
}

/// Every file, in the order it is run: `clear`, types and views before the functions that return them, what is inlined
/// into others, functions by name, `finish`. A test compares this list with the folder.
pub const SQL_FILES: &[SqlFile] = sql_files![
    "clear.sql",
    "engine/change_row.sql",
    "engine/log_rows.sql",
    "engine/member_threads.sql",
    "engine/person_thread.sql",
    "engine/person_threads.sql",
    "engine/standing.sql",
    "engine/may_act.sql",
    "engine/are_apart.sql",
    "engine/is_open.sql",
    "engine/add_members.sql",
    "engine/append_messages.sql",
    "engine/append_update.sql",
    "engine/append_user_updates.sql",
    "engine/apply_member_change.sql",
    "engine/change_member.sql",
    "engine/change_thread.sql",
    "engine/consents.sql",
    "engine/create_thread.sql",
    "engine/ensure_message_partitions.sql",
    "engine/find_sends.sql",
    "engine/heads.sql",
    "engine/history.sql",
    "engine/judge_newcomers.sql",
    "engine/let_in.sql",
    "engine/lock_for.sql",
    "engine/log_pages.sql",
    "engine/mark_read.sql",
    "engine/may_see.sql",
    "engine/member_rows.sql",
    "engine/members.sql",
    "engine/people_threads.sql",
    "engine/poll.sql",
    "engine/positions.sql",
    "engine/refused.sql",
    "engine/refused_for.sql",
    "engine/remove_member.sql",
    "engine/renumber.sql",
    "engine/tell_settings.sql",
    "engine/thread_list.sql",
    "engine/user_pages.sql",
    "engine/uuid_of_ms.sql",
    "engine/visible_ranges.sql",
    "engine/visible_updates.sql",
    "finish.sql",
];

/// Part of the runner's own tables.
pub(super) const BOOKKEEPING: &str = "
CREATE TABLE IF NOT EXISTS schema_functions (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON schema_functions TO haus_app;
";

/// How one file of `sql/` stands in a database.
pub(super) struct State {
    pub name: String,
    pub applied_at: Option<DateTime<Utc>>,
    pub drift: bool,
}

impl State {
    pub(super) fn is_current(&self) -> bool {
        self.applied_at.is_some() && !self.drift
    }
}

/// Every file known here or there, by name.
pub(super) async fn states(connection: &mut PgConnection) -> Result<Vec<State>, sqlx::Error> {
    let mut applied = applied(connection).await?;
    let mut states: Vec<State> = SQL_FILES
        .iter()
        .map(|file| {
            let found = applied.remove(file.name);
            State {
                name: file.name.to_owned(),
                drift: found.as_ref().is_some_and(|(sum, _)| *sum != checksum(file)),
                applied_at: found.map(|(_, at)| at),
            }
        })
        .collect();
    states.extend(applied.into_iter().map(|(name, (_, at))| State { name, applied_at: Some(at), drift: true }));
    Ok(states)
}

/// Runs all files in one transaction where one is missing, changed or no longer there; tells whether it did.
pub(super) async fn apply(owner: &mut PgConnection) -> Result<bool, MigrateError> {
    let before = applied(owner).await?;
    let current = before.len() == SQL_FILES.len()
        && SQL_FILES.iter().all(|file| before.get(file.name).is_some_and(|(sum, _)| *sum == checksum(file)));
    if current {
        return Ok(false);
    }
    let mut transaction = owner.begin().await?;
    // Functions may name each other in any order.
    sqlx::raw_sql("SET LOCAL check_function_bodies = off").execute(&mut *transaction).await?;
    for file in SQL_FILES {
        let failed = |cause| MigrateError::Failed { name: file.name, direction: "up", cause };
        sqlx::raw_sql(file.text).execute(&mut *transaction).await.map_err(failed)?;
        sqlx::query(
            "INSERT INTO schema_functions AS f (name, checksum) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET checksum = $2, applied_at = now() WHERE f.checksum <> $2",
        )
        .bind(file.name)
        .bind(checksum(file))
        .execute(&mut *transaction)
        .await?;
    }
    let names: Vec<&str> = SQL_FILES.iter().map(|file| file.name).collect();
    sqlx::query("DELETE FROM schema_functions WHERE name <> ALL ($1)").bind(&names).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Takes all of it away, before tables go that it stands on.
pub(super) async fn clear(owner: &mut PgConnection) -> Result<(), MigrateError> {
    let failed = |cause| MigrateError::Failed { name: SQL_FILES[0].name, direction: "down", cause };
    let mut transaction = owner.begin().await?;
    sqlx::raw_sql(SQL_FILES[0].text).execute(&mut *transaction).await.map_err(failed)?;
    sqlx::raw_sql("DELETE FROM schema_functions").execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

async fn applied(connection: &mut PgConnection) -> Result<BTreeMap<String, (String, DateTime<Utc>)>, sqlx::Error> {
    let known: bool =
        sqlx::query_scalar("SELECT to_regclass('schema_functions') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !known {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query("SELECT name, checksum, applied_at FROM schema_functions").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, (row.try_get("checksum")?, row.try_get("applied_at")?)))).collect()
}

fn checksum(file: &SqlFile) -> String {
    hex::encode(digest(&SHA256, file.text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::SQL_FILES;

    #[test]
    fn the_list_equals_the_folder() {
        fn walk(folder: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).expect("folder") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("inside");
                    found.insert(name.to_str().expect("utf-8").to_owned());
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sql"), &mut found);
        let listed: BTreeSet<String> = SQL_FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), SQL_FILES.len());
    }
}
