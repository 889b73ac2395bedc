//! What every request must keep before a route sees it: headers of which there is one at most, one host, a body whose
//! length is beyond doubt (RFC 9110, 5.3; RFC 9112, 3.2 and 6.3). Two readers of one request that choose another of two
//! lines are how requests are smuggled and checks passed by.

use axum::http::{HeaderMap, HeaderName, StatusCode, Version, header};

use super::problem::Problem;
use crate::protocol::ErrorCode;

/// Headers that may stand in a request once.
const SINGLE: [HeaderName; 14] = [
    header::HOST,
    header::ORIGIN,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::EXPECT,
    header::IF_MATCH,
    header::RANGE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
];
/// Largest `Content-Length` that is a length at all (RFC 9110, 8.6: a recipient guards against overflow).
const LENGTH_MAX: u64 = i64::MAX as u64;

/// Refuses a request whose header cannot be read in one way alone.
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    for name in &SINGLE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Problem::malformed(format!("{name}: must stand once")));
        }
    }
    if version == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Err(Problem::malformed("host: missing"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Problem::malformed("content-length: must not stand beside transfer-encoding"));
    }
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(()) };
    match length.to_str().ok().and_then(|length| length.trim().parse::<u64>().ok()) {
        Some(length) if length <= LENGTH_MAX => Ok(()),
        Some(_) => Err(Problem::new(ErrorCode::TooLarge, "the body is too large")),
        None => Err(Problem::malformed("content-length: is no length")),
    }
}

/// Refuses a body that cannot be taken, before it is asked for (`Expect: 100-continue`): 413 above `bytes_max`, 415 with
/// an encoding.
pub fn check_body(headers: &HeaderMap, bytes_max: usize) -> Result<(), Problem> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or_default().trim());
    if encoding.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")) {
        let problem = Problem::new(ErrorCode::Invalid, "the body must come without a Content-Encoding");
        return Err(problem.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(Problem::new(ErrorCode::TooLarge, format!("the body is larger than {bytes_max} bytes")));
    }
    Ok(())
}
