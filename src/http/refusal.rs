//! Answers made below the routes: by the accept loop, which has no room, and in the place of those that hyper gives
//! itself to what is no HTTP. They carry the headers and the body that all answers carry.

use axum::http::HeaderName;
use bytes::Bytes;
use uuid::Uuid;

use super::middleware::{REQUEST_ID, security_headers};
use super::problem;
use crate::config::Config;
use crate::protocol::ErrorCode;

/// Makes such answers for one listener.
pub struct Refusals {
    headers: Vec<(HeaderName, &'static str)>,
}

impl Refusals {
    pub fn new(config: &Config) -> Self {
        Self { headers: security_headers(config) }
    }

    /// 503: no room for another connection.
    pub fn full(&self) -> Bytes {
        self.answer(503, "Service Unavailable", ErrorCode::Unavailable, "no room for another connection; try again")
    }

    /// What to send where `head` begins an error of hyper's own: all others name their request.
    pub fn instead_of(&self, head: &[u8]) -> Option<Bytes> {
        let line = head.strip_prefix(b"HTTP/1.1 4")?;
        if head.windows(REQUEST_ID.as_str().len()).any(|part| part.eq_ignore_ascii_case(REQUEST_ID.as_str().as_bytes()))
        {
            return None;
        }
        let text = std::str::from_utf8(line.get(..2)?).ok()?;
        let status = 400 + text.parse::<u16>().ok()?;
        Some(match status {
            414 => self.answer(414, "URI Too Long", ErrorCode::TooLarge, "the address of the request is too long"),
            431 => self.answer(
                431,
                "Request Header Fields Too Large",
                ErrorCode::TooLarge,
                "the header of the request is too large",
            ),
            408 => self.answer(408, "Request Timeout", ErrorCode::Unavailable, "the request did not arrive in time"),
            _ => self.answer(400, "Bad Request", ErrorCode::Invalid, "this is no HTTP/1.1 request"),
        })
    }

    fn answer(&self, status: u16, reason: &str, code: ErrorCode, detail: &str) -> Bytes {
        let id = Uuid::now_v7().to_string();
        let body = problem::body(code, status, detail, &id);
        let mut head = format!(
            "HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
             content-length: {}\r\n{REQUEST_ID}: {id}\r\n",
            body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if status == 503 {
            head.push_str("retry-after: 5\r\n");
        }
        head.push_str("\r\n");
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&body);
        answer.into()
    }
}
