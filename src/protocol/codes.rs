//! Error codes of replies and problems, close codes of sockets. One list for socket and REST.

use serde::{Deserialize, Serialize};

/// Why a command or request was refused (protocol, section 4). The names are the wire names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    Unauthenticated,
    Forbidden,
    NotFound,
    Invalid,
    TooLarge,
    Conflict,
    NonceConflict,
    RateLimited,
    SlowMode,
    ThreadArchived,
    ReadOnly,
    Blocked,
    Unavailable,
    UnknownCmd,
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the protocol.
    pub const ALL: [Self; 15] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Invalid,
        Self::TooLarge,
        Self::Conflict,
        Self::NonceConflict,
        Self::RateLimited,
        Self::SlowMode,
        Self::ThreadArchived,
        Self::ReadOnly,
        Self::Blocked,
        Self::Unavailable,
        Self::UnknownCmd,
        Self::Internal,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::NonceConflict => "nonce_conflict",
            Self::RateLimited => "rate_limited",
            Self::SlowMode => "slow_mode",
            Self::ThreadArchived => "thread_archived",
            Self::ReadOnly => "read_only",
            Self::Blocked => "blocked",
            Self::Unavailable => "unavailable",
            Self::UnknownCmd => "unknown_cmd",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed later without a change.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::SlowMode | Self::Unavailable | Self::Internal)
    }

    /// The HTTP status of a problem with this code (protocol, section 7).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid | Self::UnknownCmd => 422,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::Blocked | Self::ReadOnly => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::NonceConflict | Self::ThreadArchived => 409,
            Self::TooLarge => 413,
            Self::RateLimited | Self::SlowMode => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// Parses a code as the database functions return it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

/// A refusal as it is told to the client: stable code, a sentence for people, when to try again.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: ErrorCode,
    /// Public text; never a cause from inside.
    pub message: String,
    /// 0 when the code is not retryable or no time is known.
    pub retry_after_ms: u32,
    /// JSON of `details`, where the code has some (`conflict`: the present row).
    pub details: Option<Box<serde_json::value::RawValue>>,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0, details: None }
    }

    /// The same refusal with a time after which a retry makes sense, in milliseconds.
    pub fn retry_after(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }

    /// The database cannot be reached, or did not answer in time. What was sent may or may not have happened.
    pub fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, "the database cannot be reached; try again").retry_after(1000)
    }
}

/// Why the server closed a socket (protocol, section 6): 40xx reconnect and resume, 44xx stop until something changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    Normal = 1000,
    /// RFC 6455, 7.4.1.
    ProtocolViolation = 1002,
    UnsupportedData = 1003,
    InvalidUtf8 = 1007,
    MessageTooBig = 1009,
    Drain = 4000,
    NoPong = 4008,
    EpochChanged = 4010,
    Slow = 4013,
    TooMany = 4029,
    Protocol = 4400,
    Unauthenticated = 4401,
    Revoked = 4403,
    Replaced = 4409,
    Version = 4426,
}

impl CloseCode {
    /// Every code, ascending.
    pub const ALL: [Self; 15] = [
        Self::Normal,
        Self::ProtocolViolation,
        Self::UnsupportedData,
        Self::InvalidUtf8,
        Self::MessageTooBig,
        Self::Drain,
        Self::NoPong,
        Self::EpochChanged,
        Self::Slow,
        Self::TooMany,
        Self::Protocol,
        Self::Unauthenticated,
        Self::Revoked,
        Self::Replaced,
        Self::Version,
    ];

    /// The number in the close frame.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The short name in the close reason, `{"c":"drain"}`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ProtocolViolation => "protocol",
            Self::UnsupportedData => "unsupported",
            Self::InvalidUtf8 => "utf8",
            Self::MessageTooBig => "too_large",
            Self::Drain => "drain",
            Self::NoPong => "no_pong",
            Self::EpochChanged => "epoch",
            Self::Slow => "slow",
            Self::TooMany => "too_many",
            Self::Protocol => "protocol",
            Self::Unauthenticated => "unauthenticated",
            Self::Revoked => "revoked",
            Self::Replaced => "replaced",
            Self::Version => "version",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn names_round_trip() {
        for name in ["unauthenticated", "nonce_conflict", "unknown_cmd", "internal", "read_only"] {
            assert_eq!(ErrorCode::parse(name).map(ErrorCode::as_str), Some(name));
        }
        assert_eq!(ErrorCode::parse("nope"), None);
    }
}
