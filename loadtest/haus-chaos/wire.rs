//! What the driver reads of `haus.v1` and of the REST answers: only the fields it needs, borrowed where it can.
//! Written from the protocol page, on purpose without the server's own types: a slip there must not hide here.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::checker::record::{PageMessage, Positions, StreamId};
use crate::recorder::body_hash;

/// One frame from the server: an update (`up`) or a reply (`id` with `ok` or `err`).
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    pub id: Option<u64>,
    #[serde(borrow)]
    pub up: Option<&'a str>,
    #[serde(borrow)]
    pub s: Option<&'a str>,
    pub seq: Option<u64>,
    #[serde(borrow)]
    pub d: Option<&'a RawValue>,
    #[serde(borrow)]
    pub ok: Option<&'a RawValue>,
    pub err: Option<Refusal>,
}

/// The error of a reply.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub code: String,
    #[serde(default)]
    pub retryable: bool,
}

/// The frames of one websocket message: one, or a batch.
///
/// # Errors
/// The text is neither.
pub fn frames(text: &str) -> Result<Vec<Frame<'_>>, serde_json::Error> {
    if text.starts_with('[') { serde_json::from_str(text) } else { Ok(vec![serde_json::from_str(text)?]) }
}

/// `ok` of `auth`.
#[derive(Debug, Deserialize)]
pub struct AuthOk {
    pub epoch: String,
    pub streams: Positions,
    pub threads: Vec<ThreadRow>,
}

/// A row of the thread list, and `thread.added`'s `thread`.
#[derive(Debug, Deserialize)]
pub struct ThreadRow {
    pub id: Uuid,
    pub seq: u64,
}

/// `d` of `thread.added`.
#[derive(Debug, Deserialize)]
pub struct ThreadAdded {
    pub thread: ThreadRow,
}

/// `d` of the user stream's `snapshot`.
#[derive(Debug, Deserialize)]
pub struct UserSnapshot {
    #[serde(default)]
    pub threads: Vec<ThreadRow>,
}

/// `d` of `thread.removed`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadRemoved {
    pub thread_id: Uuid,
    pub seq: u64,
}

/// `d` of `resumed`.
#[derive(Debug, Deserialize)]
pub struct Resumed {
    #[serde(default)]
    pub streams: Positions,
    #[serde(default)]
    pub reset: Vec<StreamId>,
    #[serde(default)]
    pub denied: Vec<StreamId>,
}

/// `ok` of `message.send`, and the answer of the same call over REST.
#[derive(Debug, Deserialize)]
pub struct SendOk {
    pub seq: u64,
    #[serde(default)]
    pub dup: bool,
}

/// Messages of a snapshot, of `history` and of the REST page.
#[derive(Debug, Deserialize)]
pub struct Page<'a> {
    #[serde(default, borrow)]
    pub messages: Vec<Message<'a>>,
    #[serde(default)]
    pub seq: u64,
}

/// A message, in an update or on a page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    #[serde(default)]
    pub no: u64,
    #[serde(default)]
    pub seq: u64,
    pub sender_id: Option<Uuid>,
    #[serde(default, borrow)]
    pub content: Option<Cow<'a, str>>,
    pub nonce: Option<Uuid>,
}

impl Message<'_> {
    /// Hash of sender and content.
    pub fn hash(&self) -> u64 {
        body_hash(&self.sender_id.unwrap_or_default(), self.content.as_deref().unwrap_or_default())
    }

    /// As a history page records it.
    pub fn on_page(&self) -> PageMessage {
        PageMessage { seq: self.seq, no: self.no, nonce: self.nonce, hash: self.hash() }
    }
}

/// `d` of `message.created`.
#[derive(Debug, Deserialize)]
pub struct Created<'a> {
    #[serde(borrow)]
    pub message: Message<'a>,
}

/// `d` of `member.joined` and `member.left`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    #[serde(default)]
    pub profile_ids: Vec<Uuid>,
}

/// A page of the log over REST.
#[derive(Debug, Deserialize)]
pub struct LogPage<'a> {
    #[serde(borrow)]
    pub updates: Vec<&'a RawValue>,
    pub head: u64,
}

/// A line of `haus seed --out`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    pub profile_id: Uuid,
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::{Created, frames};
    use crate::recorder::body_hash;
    use uuid::Uuid;

    #[test]
    fn reads_single_frames_and_batches() {
        let one = r#"{"up":"message.created","s":"user","seq":58,"at":"x","d":{"message":{"no":4,"senderId":"00000000-0000-0000-0000-000000000001","content":"a \"b\"","nonce":"00000000-0000-0000-0000-000000000009"}}}"#;
        let batch =
            format!("[{one},{{\"id\":3,\"err\":{{\"code\":\"invalid\",\"message\":\"m\",\"retryable\":false}}}}]");
        let parsed = frames(&batch).unwrap();
        assert_eq!((parsed.len(), parsed[0].seq, parsed[1].id), (2, Some(58), Some(3)));
        assert_eq!(parsed[1].err.as_ref().unwrap().code, "invalid");
        let created: Created<'_> = serde_json::from_str(parsed[0].d.unwrap().get()).unwrap();
        assert_eq!(created.message.hash(), body_hash(&Uuid::from_u128(1), "a \"b\""));
        assert_eq!(frames(one).unwrap().len(), 1);
        assert!(frames("{").is_err());
    }
}
