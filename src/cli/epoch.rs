//! `haus epoch new` after a restore; `haus epoch keep` where failover is synchronous and loses nothing.

use clap::{Args, Subcommand};
use haus::store::{epoch, restored};

use super::database::Database;
use super::error::CliError;
use super::{Settings, print_line};

#[derive(Args)]
pub struct EpochArgs {
    #[command(subcommand)]
    choice: Choice,
}

#[derive(Subcommand, Clone, Copy)]
enum Choice {
    /// Committed history was lost: every client starts its streams anew
    New,
    /// Nothing was lost: keep the epoch, now and across later failovers
    Keep,
}

pub async fn run(settings: Settings, args: EpochArgs) -> Result<(), CliError> {
    let database = Database::existing(&settings).await?;
    let done = change(&database, args.choice).await;
    database.close().await;
    print_line(&serde_json::json!({"epoch": done?}).to_string())
}

async fn change(database: &Database, choice: Choice) -> Result<uuid::Uuid, CliError> {
    let pool = database.admitted_pool().await?;
    Ok(match choice {
        Choice::New => {
            let renewed = epoch::renew(&pool).await?;
            // After a restore from a dump the rows bear transaction numbers of another cluster.
            let rows = restored::renumber(&pool).await?;
            if rows > 0 {
                tracing::info!(rows, "renumbered what was written in another cluster");
            }
            renewed
        }
        Choice::Keep => epoch::keep(&pool).await?,
    })
}
