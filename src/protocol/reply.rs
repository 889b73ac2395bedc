//! Replies to commands and the server's own frames that are no updates: `hello`, `resumed`, `lag`, `hb`.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::codes::Refusal;
use super::frame;
use crate::telemetry::metrics;

#[derive(Serialize)]
struct ErrFrame<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<&'a str>,
    err: ErrBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrBody<'a> {
    code: &'static str,
    message: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "is_zero")]
    retry_after_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a RawValue>,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// `{"id":N,"ok":…}`; nothing where the command had no `id`.
pub fn ok<T: Serialize>(id: Option<u64>, value: &T) -> Bytes {
    #[derive(Serialize)]
    struct OkFrame<'a, T> {
        id: u64,
        ok: &'a T,
    }
    id.map_or_else(Bytes::new, |id| json(&OkFrame { id, ok: value }))
}

/// `{"id":N,"err":…}`; without an `id` the error repeats `cmd`.
pub fn err(id: Option<u64>, cmd: &str, refusal: &Refusal) -> Bytes {
    metrics().refusals.with_label_values(&["socket", refusal.code.as_str()]).inc();
    let body = ErrBody {
        code: refusal.code.as_str(),
        message: &refusal.message,
        retryable: refusal.code.retryable(),
        retry_after_ms: refusal.retry_after_ms,
        details: refusal.details.as_deref(),
    };
    let cmd = (id.is_none() && !cmd.is_empty()).then_some(cmd);
    json(&ErrFrame { id, cmd, err: body })
}

/// `{"up":…,"d":…}`: a frame of the server that belongs to no stream.
pub fn notice<T: Serialize>(up: &'static str, d: &T) -> Bytes {
    #[derive(Serialize)]
    struct Notice<'a, T> {
        up: &'static str,
        d: &'a T,
    }
    json(&Notice { up, d })
}

/// `{"up":"snapshot","s":…,"seq":…,"d":…}`: what replaces a stream, as of `seq`.
pub fn snapshot<T: Serialize>(s: &str, seq: u64, d: &T) -> Bytes {
    #[derive(Serialize)]
    struct Snapshot<'a, T> {
        up: &'static str,
        s: &'a str,
        seq: u64,
        d: &'a T,
    }
    json(&Snapshot { up: "snapshot", s, seq, d })
}

/// Any value as a text frame.
pub fn json<T: Serialize>(value: &T) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(json) => frame::text(&json),
        Err(error) => {
            tracing::error!(%error, "a frame could not be rendered");
            Bytes::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{err, ok};
    use crate::protocol::codes::Refusal;
    use crate::protocol::frame::payload;

    #[test]
    fn replies_name_their_command() {
        let text = |frame: &[u8]| String::from_utf8(payload(frame).to_vec()).expect("utf-8");
        assert_eq!(text(&ok(Some(4), &[1])), r#"{"id":4,"ok":[1]}"#);
        assert!(ok(None, &1).is_empty());
        let refusal = Refusal::unavailable();
        assert_eq!(
            text(&err(Some(4), "x", &refusal)),
            r#"{"id":4,"err":{"code":"unavailable","message":"the database cannot be reached; try again","retryable":true,"retryAfterMs":1000}}"#
        );
        assert!(text(&err(None, "x", &refusal)).starts_with(r#"{"cmd":"x","err""#));
    }
}
