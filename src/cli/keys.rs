//! `haus keys`: which root keys a database knows, and the last step of changing them (docs/operations.md).

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use haus::identity::Keys;
use haus::identity::reseal::{ResealError, reseal};
use serde::Serialize;
use sqlx::PgPool;

use super::database::Database;
use super::error::CliError;
use super::{Settings, print_line, secret};

#[derive(Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    choice: Choice,
}

#[derive(Subcommand, Clone, Copy)]
enum Choice {
    /// One JSON line for each root key the database knows
    Status,
    /// Seal and index everything with HAUS_SECRET_KEY, then forget the old root keys; safe beside running nodes
    Reseal {
        /// Wait so many seconds for nodes of an old key to end
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
        wait: u64,
    },
}

#[derive(Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
struct KeyLine {
    key_id: String,
    bound_at: DateTime<Utc>,
    /// When a node last said that it seals with it.
    used_at: DateTime<Utc>,
    /// Rows with something sealed with it.
    users: i64,
    sessions: i64,
    #[sqlx(skip)]
    is_present: bool,
}

pub async fn run(mut settings: Settings, args: KeysArgs) -> Result<(), CliError> {
    let database = Database::existing(&settings).await?;
    let keys = secret::load(&mut settings.config);
    let done = match keys {
        Ok(keys) => work(&database, keys, args.choice).await,
        Err(error) => Err(error),
    };
    database.close().await;
    done
}

async fn work(database: &Database, keys: Keys, choice: Choice) -> Result<(), CliError> {
    let (pool, keys) = database.bound(keys).await?;
    match choice {
        Choice::Status => status(&pool, &keys).await,
        Choice::Reseal { wait } => {
            let done = reseal(&pool, &keys, Duration::from_secs(wait)).await.map_err(|error| match error {
                ResealError::Unreadable(_) => CliError::setting(error.to_string()),
                ResealError::InUse(_) | ResealError::Identity(_) => CliError::failed(error.to_string()),
            })?;
            let line = serde_json::json!({"users": done.users, "sessions": done.sessions, "retired": done.retired});
            print_line(&line.to_string())
        }
    }
}

async fn status(pool: &PgPool, keys: &Keys) -> Result<(), CliError> {
    let lines: Vec<KeyLine> = sqlx::query_as(
        "SELECT encode(k.key_id, 'hex') AS key_id, k.bound_at, k.used_at,
                (SELECT count(*) FROM users WHERE substring(email FROM 2 FOR 4) = k.key_id) AS users,
                (SELECT count(*) FROM sessions
                 WHERE k.key_id IN (substring(user_agent FROM 2 FOR 4), substring(ip FROM 2 FOR 4))) AS sessions
         FROM root_keys k ORDER BY k.bound_at, k.key_id",
    )
    .fetch_all(pool)
    .await?;
    for line in lines {
        let line = KeyLine { is_present: line.key_id == hex::encode(keys.id), ..line };
        print_line(&serde_json::to_string(&line).map_err(|error| CliError::failed(error.to_string()))?)?;
    }
    Ok(())
}
