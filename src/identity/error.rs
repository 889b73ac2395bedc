//! What can go wrong in this layer, and what the client is told about it. The cause stays inside and is logged once,
//! where the error becomes a [`Refusal`].

use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;
use crate::store::is_unavailable;

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
