//! What can end a run early, and the exit code of each. Failed checks (gaps, doubles) are no error: they are counted and judged in `report`.

use std::io;

/// Why a run could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An argument or the tokens file makes no sense; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The server or the machine refused; exit code 1.
    #[error("{0}")]
    Failed(String),
    /// A system call failed; exit code 1.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The database refused; exit code 1.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl LoadError {
    /// The process exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Io { .. } | Self::Database(_) => 1,
        }
    }
}

/// Attaches what was being done to an I/O error.
pub fn doing(what: &'static str) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::Io { doing: what, source }
}
