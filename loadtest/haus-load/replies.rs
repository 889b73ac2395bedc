//! The few answers that are read as JSON, once per socket or rarer: `auth`, `threads.list`, `resumed`, and errors.

use serde::Deserialize;
use std::collections::HashMap;

/// A thread's row in `auth` or `threads.list`.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Position from which the socket is live in it.
    pub seq: u64,
}

/// The part of the `auth` and `threads.list` replies that matters here.
#[derive(Debug, Default, Deserialize)]
pub struct Listed {
    /// Threads of this page.
    #[serde(default)]
    pub threads: Vec<Row>,
    /// Cursor of the next page.
    #[serde(default)]
    pub next: Option<serde_json::Value>,
    /// Epoch of the positions.
    #[serde(default)]
    pub epoch: Option<String>,
    /// Position of the user stream.
    #[serde(default)]
    pub streams: HashMap<String, u64>,
}

/// What `resumed` says.
#[derive(Debug, Default, Deserialize)]
pub struct Resumed {
    /// Heads reached.
    #[serde(default)]
    pub streams: HashMap<String, u64>,
    /// Streams not caught up.
    #[serde(default)]
    pub reset: Vec<String>,
    /// Streams refused.
    #[serde(default)]
    pub denied: Vec<String>,
}

#[derive(Deserialize)]
struct Reply<T> {
    #[serde(default)]
    ok: Option<T>,
}

#[derive(Deserialize)]
struct Update<T> {
    d: T,
}

/// Reads the `ok` of a reply.
pub fn listed(payload: &[u8]) -> Option<Listed> {
    serde_json::from_slice::<Reply<Listed>>(payload).ok()?.ok
}

/// Reads a `resumed` update.
pub fn resumed(payload: &[u8]) -> Option<Resumed> {
    serde_json::from_slice::<Update<Resumed>>(payload).ok().map(|update| update.d)
}

/// The code of an error reply, `?` where there is none.
pub fn error_code(payload: &[u8]) -> &[u8] {
    const BEFORE: &[u8] = b"\"code\":\"";
    let code = crate::scan::find(payload, BEFORE).map(|at| &payload[at + BEFORE.len()..]);
    code.and_then(|rest| rest.split(|byte| *byte == b'"').next()).unwrap_or(b"?")
}

#[cfg(test)]
mod tests {
    use super::{error_code, listed, resumed};

    #[test]
    fn replies_are_read_with_members_we_do_not_know() {
        let auth = listed(
            br#"{"id":1,"ok":{"epoch":"e","streams":{"user":19},"threads":[{"id":"t","seq":57,"no":1}],"next":null}}"#,
        );
        let auth = auth.unwrap_or_default();
        assert_eq!((auth.threads[0].seq, auth.streams["user"], auth.next.is_none()), (57, 19, true));
        assert!(listed(br#"{"id":1,"err":{"code":"unauthenticated"}}"#).is_none());
        let done =
            resumed(br#"{"up":"resumed","d":{"streams":{"t":58},"reset":["x"],"denied":[]}}"#).unwrap_or_default();
        assert_eq!((done.streams["t"], done.reset.len()), (58, 1));
        assert_eq!(error_code(br#"{"id":1,"err":{"code":"rate_limited"}}"#), b"rate_limited");
        assert_eq!(error_code(b"{}"), b"?");
    }
}
