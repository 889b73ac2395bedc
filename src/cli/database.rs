//! Which database a command works on: the one `DATABASE_URL` names, else the private one of the data folder, started
//! for the command or, where a node runs it, shared with that node.

use std::time::Duration;

use haus::identity::{Keys, binding};
use haus::store::admission::{self, START_PATIENCE};
use haus::store::embedded::{EmbeddedError, EmbeddedOptions, EmbeddedPostgres, Urls};
use haus::store::migrate::{self, Login, Target};
use haus::store::pools;
use haus::store::safety::SafetyState;
use sqlx::{Connection, PgPool};

use super::Settings;
use super::error::CliError;

/// Connections of a command that is not a node.
const COMMAND_POOL: u32 = 4;

/// The database of a command. Call [`Database::close`] at the end: the private one is stopped there.
pub struct Database {
    /// As the application role.
    pub url: String,
    /// The private Postgres where this process runs it.
    embedded: Option<EmbeddedPostgres>,
    /// Whether it is the private one, run by whomever.
    pub is_private: bool,
}

impl Database {
    /// The database of a command beside a node.
    pub async fn open(settings: &Settings) -> Result<Self, CliError> {
        if let Some(url) = given(settings)? {
            return Ok(Self { url, embedded: None, is_private: false });
        }
        match EmbeddedPostgres::attach(&settings.config.data_dir, &options(settings))? {
            Some(urls) => {
                migrate_private(&urls).await?;
                Ok(Self { url: urls.application, embedded: None, is_private: true })
            }
            None => Self::start(settings).await,
        }
    }

    /// The same, for commands that find nothing to do in an empty folder: no cluster is built there.
    pub async fn existing(settings: &Settings) -> Result<Self, CliError> {
        must_exist(settings)?;
        Self::open(settings).await
    }

    /// The database of a node: the private one must be its own.
    pub async fn open_for_node(settings: &Settings) -> Result<Self, CliError> {
        match given(settings)? {
            Some(url) => Ok(Self { url, embedded: None, is_private: false }),
            None => Self::start(settings).await,
        }
    }

    async fn start(settings: &Settings) -> Result<Self, CliError> {
        let embedded = EmbeddedPostgres::start(&settings.config.data_dir, options(settings)).await?;
        let urls = embedded.urls().clone();
        if let Err(error) = migrate_private(&urls).await {
            embedded.stop().await;
            return Err(error);
        }
        Ok(Self { url: urls.application, embedded: Some(embedded), is_private: true })
    }

    /// Refuses a database that is unreachable, unsafe or not at head; then a small pool.
    pub async fn admitted_pool(&self) -> Result<PgPool, CliError> {
        admission::admit(&self.url, START_PATIENCE).await?;
        Ok(pools::connect(&self.url, "command", COMMAND_POOL, &SafetyState::default())?)
    }

    /// The same, and the keys as this database knows them: the one door of every command that uses the root key.
    pub async fn bound(&self, keys: Keys) -> Result<(PgPool, Keys), CliError> {
        let pool = self.admitted_pool().await?;
        let bound = binding::bind(&pool, keys).await?;
        Ok((pool, bound.keys))
    }

    pub async fn close(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// Refuses an empty data folder where no other database is named.
pub fn must_exist(settings: &Settings) -> Result<(), CliError> {
    let folder = &settings.config.data_dir;
    if given(settings)?.is_some() || EmbeddedPostgres::exists(folder)? {
        return Ok(());
    }
    Err(CliError::setting(format!(
        "HAUS_DATA_DIR: there is no database in {}: go to the folder where `haus serve` was started, or run it here \
         first, or set DATABASE_URL",
        folder.display()
    )))
}

/// Options of the private Postgres.
pub fn options(settings: &Settings) -> EmbeddedOptions {
    EmbeddedOptions { bin: settings.pg_bin.clone(), settings: Vec::new() }
}

fn given(settings: &Settings) -> Result<Option<String>, CliError> {
    let config = &settings.config;
    match (&config.database_url, &config.database_owner_url) {
        (None, Some(_)) => Err(CliError::setting("DATABASE_URL: needed where DATABASE_OWNER_URL is set")),
        (url, _) => Ok(url.clone()),
    }
}

/// The private database needs no `haus migrate`: it follows the program.
async fn migrate_private(urls: &Urls) -> Result<(), CliError> {
    let mut owner = admission::connect(&urls.owner, Duration::from_secs(5)).await?;
    let login = Login::from_url(&urls.application)?;
    migrate::run(&mut owner, Some(&login), Target::Head, |name, direction| {
        tracing::info!("migration {name} {direction}")
    })
    .await?;
    owner.close().await?;
    Ok(())
}

/// The doors of the private database for `haus migrate`, and what must be stopped afterwards.
pub async fn private_urls(settings: &Settings) -> Result<(Urls, Option<EmbeddedPostgres>), CliError> {
    match EmbeddedPostgres::start(&settings.config.data_dir, options(settings)).await {
        Ok(embedded) => Ok((embedded.urls().clone(), Some(embedded))),
        Err(EmbeddedError::InUse(folder)) => {
            let urls = EmbeddedPostgres::attach(&settings.config.data_dir, &options(settings))?;
            Ok((urls.ok_or(EmbeddedError::InUse(folder))?, None))
        }
        Err(error) => Err(error.into()),
    }
}
