//! Updates as ready frames: the one place where their JSON is made. `up` comes first; null, false and empty fields of a
//! message are left out (protocol, section 2).

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::protocol::frame;
use crate::protocol::time::Timestamp;
use crate::protocol::types::{MediaType, MessageType};
use crate::updates::{StreamId, UpdateKind};

#[derive(Serialize)]
struct Frame<'a, D> {
    up: &'static str,
    s: StreamName,
    seq: u64,
    at: Timestamp,
    d: &'a D,
}

struct StreamName(StreamId);

impl Serialize for StreamName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            StreamId::User(_) => serializer.serialize_str("user"),
            StreamId::Thread(id) => id.serialize(serializer),
        }
    }
}

/// The websocket text frame of an update: `{"up":…,"s":…,"seq":…,"at":…,"d":…}`. A user stream is called `user`.
pub fn update<D: Serialize>(kind: UpdateKind, stream: StreamId, seq: u64, at: Timestamp, d: &D) -> Bytes {
    let frame = Frame { up: kind.name(), s: StreamName(stream), seq, at, d };
    let mut json = Vec::with_capacity(512);
    if let Err(error) = serde_json::to_writer(&mut json, &frame) {
        // Types of this crate serialise; a map with other than text keys would be the only way here.
        tracing::error!(%error, kind = kind.name(), "an update could not be rendered");
    }
    frame::text(&json)
}

/// `d` of `message.created`.
#[derive(Debug, Serialize)]
pub struct Created<'a> {
    pub message: LeanMessage<'a>,
}

/// A message in an update: absent means null, false or empty; `threadId` and `seq` stand in the frame around it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeanMessage<'a> {
    pub id: Uuid,
    pub no: u64,
    pub sender_id: Uuid,
    #[serde(rename = "type")]
    pub kind: MessageType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<Uuid>,
    #[serde(skip_serializing_if = "<[Uuid]>::is_empty")]
    pub mentions: &'a [Uuid],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Uuid>,
    #[serde(skip_serializing_if = "is_false")]
    pub is_edited: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub is_deleted: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub is_pinned: bool,
    pub rev: i32,
    pub sent_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<Timestamp>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::{Created, LeanMessage, update};
    use crate::protocol::frame::payload;
    use crate::protocol::time::Timestamp;
    use crate::protocol::types::MessageType;
    use crate::updates::{StreamId, UpdateKind};
    use uuid::Uuid;

    #[test]
    fn a_created_message_is_lean() {
        let (thread, id, sender) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let message = LeanMessage {
            id,
            no: 3,
            sender_id: sender,
            kind: MessageType::Text,
            content: Some("hi \"you\""),
            media_url: None,
            media_type: None,
            reply_to_id: None,
            mentions: &[],
            nonce: None,
            is_edited: false,
            is_deleted: false,
            is_pinned: false,
            rev: 1,
            sent_at: Timestamp::from_unix_ms(1_767_225_600_001),
            edited_at: None,
        };
        let at = Timestamp::from_unix_ms(1_767_225_600_001);
        let frame = update(UpdateKind::MessageCreated, StreamId::Thread(thread), 9, at, &Created { message });
        assert_eq!(
            std::str::from_utf8(payload(&frame)).expect("utf-8"),
            format!(
                r#"{{"up":"message.created","s":"{thread}","seq":9,"at":"2026-01-01T00:00:00.001Z","d":{{"message":{{"id":"{id}","no":3,"senderId":"{sender}","type":"TEXT","content":"hi \"you\"","rev":1,"sentAt":"2026-01-01T00:00:00.001Z"}}}}}}"#
            )
        );
    }
}
