//! The questions a node asks a database before it serves from it: is it there, does it keep what it acknowledges, is our
//! role weak enough, is the schema the one this program knows.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use super::error::patiently;
use super::migrate::{self, SchemaState};
use super::safety::{Unsafe, check_role, look};
use super::{pooler, pools};

/// How long a start waits for a database that cannot be reached.
pub const START_PATIENCE: Duration = Duration::from_secs(30);

/// Why a node does not start on this database.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("DATABASE_URL: {0}")]
    BadUrl(String),
    #[error("the database could not be reached for 30 s: {0}")]
    Unreachable(#[source] sqlx::Error),
    #[error("{0}")]
    Unsafe(#[from] Unsafe),
    #[error("the schema is at version {found}, this program needs {head}: run `haus migrate`")]
    NotAtHead { found: i32, head: i32 },
    #[error("migrations were changed after they were applied: {}", .0.join(", "))]
    Drift(Vec<String>),
    #[error("functions of the database are not those of this program ({}): run `haus migrate`", few(.0))]
    Functions(Vec<String>),
    #[error("the database could not be examined: {0}")]
    Failed(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    /// Whichever statement meets a pooler's limits first, they are named.
    fn from(error: sqlx::Error) -> Self {
        pooler::sign_of(&error).map_or_else(|| Self::Failed(error), Self::Unsafe)
    }
}

impl Refused {
    /// The exit code of the process (protocol, section 7).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadUrl(_) => 2,
            Self::Unsafe(_) => 3,
            Self::NotAtHead { .. } | Self::Drift(_) | Self::Functions(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Failed(_) => 1,
        }
    }
}

/// Connects to `url`, waiting up to `patience`.
///
/// # Errors
/// [`Refused::BadUrl`] at once, [`Refused::Unreachable`] after `patience`.
pub async fn connect(url: &str, patience: Duration) -> Result<PgConnection, Refused> {
    let options = pools::options(url, "start").map_err(|error| Refused::BadUrl(error.to_string()))?;
    let mut connection = patiently(patience, || options.connect()).await.map_err(Refused::Unreachable)?;
    sqlx::raw_sql("SET client_min_messages = warning").execute(&mut connection).await?;
    Ok(connection)
}

/// Asks everything; the first bad answer is the refusal. A database that is read-only is given `patience` to be promoted.
pub async fn admit(url: &str, patience: Duration) -> Result<(), Refused> {
    let mut connection = connect(url, patience).await?;
    let mut second = connect(url, patience).await?;
    pooler::probe(&mut connection, &mut second).await??;
    second.close().await?;
    let start = Instant::now();
    loop {
        match look(&mut connection).await?.verdict {
            Ok(()) => break,
            Err(Unsafe::ReadOnly(_)) if start.elapsed() < patience => sleep(Duration::from_millis(250)).await,
            Err(reason) => return Err(reason.into()),
        }
    }
    check_role(&mut connection).await??;
    match migrate::state_on(&mut connection).await? {
        SchemaState::AtHead => {}
        SchemaState::Version(found) => return Err(Refused::NotAtHead { found, head: migrate::head() }),
        SchemaState::Drift(names) => return Err(Refused::Drift(names)),
        SchemaState::Functions(names) => return Err(Refused::Functions(names)),
    }
    connection.close().await?;
    Ok(())
}

/// The first names of a list, and how many more there are.
pub fn few(names: &[String]) -> String {
    match names {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}
