//! What can go wrong in this layer, and what the client is told about it. The cause stays inside and is logged once,
//! where the error becomes a [`Refusal`].

use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;

/// A failure of an identity use case.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such account, or the password is wrong: one answer for both.
    #[error("e-mail or password is wrong")]
    BadCredentials,
    /// The token, ticket or session is unknown, expired, used or revoked.
    #[error("{0}")]
    Unauthenticated(&'static str),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("{0}")]
    NotFound(&'static str),
    #[error("an account with this e-mail exists")]
    EmailTaken,
    /// A bounded queue is full; try again after so many milliseconds.
    #[error("too much is waiting here; try again")]
    Busy { retry_after_ms: u32 },
    /// The database did not answer in time, or cannot be reached.
    #[error("the database cannot be reached")]
    Unavailable,
    #[error("database: {0}")]
    Database(sqlx::Error),
    /// Keys, hashes or sealed data do not fit; never the client's fault.
    #[error("cryptography: {0}")]
    Crypto(&'static str),
    #[error("a task ended early")]
    Task,
}

impl From<sqlx::Error> for IdentityError {
    /// Connection trouble, time-outs and a database that is starting or stopping are `Unavailable`; all else is a defect.
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            tracing::warn!(%error, "database unavailable");
            return Self::Unavailable;
        }
        Self::Database(error)
    }
}

/// Whether `error` says that the database cannot serve now, rather than that the statement is wrong.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // 08 connection, 53 resources, 57 operator intervention, 40 rolled back, 55P03 lock not available,
        // 25006 read only (a standby), 25P03 idle in transaction.
        sqlx::Error::Database(cause) => cause.code().is_some_and(|code| {
            ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
                || ["55P03", "25006", "25P03"].contains(&code.as_ref())
        }),
        _ => false,
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        let text = error.to_string();
        match error {
            IdentityError::BadCredentials | IdentityError::Unauthenticated(_) => {
                Refusal::new(ErrorCode::Unauthenticated, text)
            }
            IdentityError::Forbidden(_) => Refusal::new(ErrorCode::Forbidden, text),
            IdentityError::NotFound(_) => Refusal::new(ErrorCode::NotFound, text),
            IdentityError::EmailTaken => Refusal::new(ErrorCode::Conflict, text),
            IdentityError::Busy { retry_after_ms } => {
                Refusal::new(ErrorCode::Unavailable, text).retry_after(retry_after_ms)
            }
            IdentityError::Unavailable => Refusal::unavailable(),
            IdentityError::Database(_) | IdentityError::Crypto(_) | IdentityError::Task => {
                tracing::error!(error = %text, "identity failed");
                Refusal::new(ErrorCode::Internal, "something went wrong here")
            }
        }
    }
}
