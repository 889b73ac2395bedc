//! What ends a command, with its exit code: 1 failed, 2 wrong setting or usage, 3 unsafe database, 4 schema not at
//! head, 5 database unreachable (protocol, section 7).

use std::process::ExitCode;

use haus::identity::binding::BindError;
use haus::store::DbError;
use haus::store::admission::Refused;
use haus::store::embedded::EmbeddedError;
use haus::store::migrate::MigrateError;

use super::stderr;

#[derive(Debug)]
pub struct CliError {
    code: u8,
    text: String,
}

impl CliError {
    /// The command could not do its work (exit 1).
    pub fn failed(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// A wrong setting or usage, named in the text (exit 2).
    pub fn setting(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }

    pub fn with_code(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Says it on stderr and gives the exit code.
    pub fn report(&self) -> ExitCode {
        stderr::say(format_args!("haus: {}", self.text));
        ExitCode::from(self.code)
    }
}

impl From<EmbeddedError> for CliError {
    fn from(error: EmbeddedError) -> Self {
        Self { code: if error.is_setting() { 2 } else { 1 }, text: error.to_string() }
    }
}

impl From<Refused> for CliError {
    fn from(error: Refused) -> Self {
        Self { code: error.exit_code(), text: error.to_string() }
    }
}

impl From<BindError> for CliError {
    fn from(error: BindError) -> Self {
        Self { code: error.exit_code(), text: error.to_string() }
    }
}

impl From<MigrateError> for CliError {
    fn from(error: MigrateError) -> Self {
        let code = match error {
            MigrateError::NoSuchVersion(_) | MigrateError::Login(_) => 2,
            MigrateError::Drift(_) | MigrateError::Newer { .. } => 4,
            MigrateError::Failed { .. }
            | MigrateError::Locked
            | MigrateError::Prepare(_)
            | MigrateError::Database(_) => 1,
        };
        Self { code, text: error.to_string() }
    }
}

impl From<DbError> for CliError {
    fn from(error: DbError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<sqlx::Error> for CliError {
    fn from(error: sqlx::Error) -> Self {
        Self::failed(format!("the database: {error}"))
    }
}

impl From<haus::identity::IdentityError> for CliError {
    fn from(error: haus::identity::IdentityError) -> Self {
        Self::failed(error.to_string())
    }
}
