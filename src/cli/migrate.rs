//! `haus migrate`: roles, login and schema, as the owner. One JSON line for each step or migration.

use clap::Args;
use haus::store::admission::{self, START_PATIENCE};
use haus::store::migrate::{self, Login, Target};
use sqlx::PgConnection;

use super::error::CliError;
use super::{Settings, database, print_line, stderr};

#[derive(Args)]
pub struct MigrateArgs {
    /// Go so many steps back
    #[arg(long, value_name = "N", conflicts_with_all = ["to", "status"])]
    down: Option<u32>,
    /// Go to this version, up or down; 0 is the empty schema
    #[arg(long, value_name = "V", conflicts_with = "status")]
    to: Option<i32>,
    /// Let --down and --to drop tables and columns that hold rows: accounts, messages, everything in them
    #[arg(long)]
    destroy_data: bool,
    /// Change nothing; print what is applied
    #[arg(long)]
    status: bool,
}

pub async fn run(settings: Settings, args: MigrateArgs) -> Result<(), CliError> {
    let config = &settings.config;
    if let Some(owner_url) = &config.database_owner_url {
        let login = config.database_url.as_deref().map(Login::from_url).transpose()?;
        if login.is_none() && !args.status {
            tracing::warn!("DATABASE_URL is not set: no login is made for nodes");
        }
        return work(owner_url, login, &args).await;
    }
    if config.database_url.is_some() {
        return Err(CliError::setting("DATABASE_OWNER_URL: needed to migrate the database of DATABASE_URL"));
    }
    if args.status {
        database::must_exist(&settings)?;
    }
    let (urls, embedded) = database::private_urls(&settings).await?;
    let login = Login::from_url(&urls.application)?;
    let done = work(&urls.owner, Some(login), &args).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    done
}

async fn work(owner_url: &str, login: Option<Login>, args: &MigrateArgs) -> Result<(), CliError> {
    let named = |error: admission::Refused| {
        CliError::with_code(error.exit_code(), error.to_string().replacen("DATABASE_URL", "DATABASE_OWNER_URL", 1))
    };
    let mut owner = admission::connect(owner_url, START_PATIENCE).await.map_err(named)?;
    if !args.status {
        let target = match (args.down, args.to) {
            (Some(steps), _) => Target::Down(steps),
            (_, Some(version)) => Target::Version(version),
            _ => Target::Head,
        };
        let lost = migrate::would_lose(&mut owner, target).await?;
        if !lost.is_empty() && !args.destroy_data {
            return Err(CliError::setting(format!(
                "--destroy-data: needed, as this way back drops what {} hold; take a dump first",
                lost.join(", ")
            )));
        }
        let told =
            |name: &'static str, direction: &'static str| stderr::say(format_args!("migration {name} {direction}"));
        migrate::run(&mut owner, login.as_ref(), target, told).await?;
    }
    print_status(&mut owner).await
}

async fn print_status(owner: &mut PgConnection) -> Result<(), CliError> {
    for line in migrate::status(owner).await? {
        print_line(&serde_json::to_string(&line).map_err(|error| CliError::failed(error.to_string()))?)?;
    }
    Ok(())
}
