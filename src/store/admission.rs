//! The questions a node asks a database before it serves from it: is it there, does it keep what it acknowledges, is our
//! role weak enough, is the schema the one this program knows.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::error::patiently;
use super::migrate::{self, SchemaState};
use super::safety::{SafetyState, Unsafe, check_role, check_settings};

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
    Failed(#[from] sqlx::Error),
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
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| Refused::BadUrl(error.to_string()))?;
    let options = options.application_name("haus/start").options([("client_min_messages", "warning")]);
    let options = options.disable_statement_logging();
    patiently(patience, || options.connect()).await.map_err(Refused::Unreachable)
}

/// Asks everything; the first bad answer is the refusal.
pub async fn admit(url: &str, patience: Duration) -> Result<(), Refused> {
    let mut connection = connect(url, patience).await?;
    check_settings(&mut connection, &SafetyState::default()).await??;
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
