//! Rows of the log as updates: a message at its present revision, everything else from what the log keeps. The same row
//! gives the same frame that was sent live, but for what was edited or deleted since.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::db;
use super::render::{Created, LeanMessage, update};
use super::rows::Membership;
use crate::protocol::time::Timestamp;
use crate::protocol::types::{MediaType, MessageType, ThreadRow, ThreadType};
use crate::telemetry::metrics;
use crate::updates::{StreamId, Touch, Update, UpdateKind};

/// `data` of `member.joined` and `member.left`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Membered {
    profile_ids: Vec<Uuid>,
    by_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `data` of the user stream's rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserData {
    /// Nil where it is about no thread.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub thread_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Settings that were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<serde_json::Value>,
}

/// `d` of `message.edited`, at the present revision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Edited<'a> {
    message_id: Uuid,
    no: i64,
    rev: i32,
    content: Option<&'a str>,
    mentions: Vec<Uuid>,
    edited_at: Option<Timestamp>,
}

/// `d` of `message.deleted`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    message_id: Uuid,
    no: i64,
    rev: i32,
    by_id: Uuid,
    deleted_at: Option<Timestamp>,
}

/// `d` of `thread.added`; a stay that has ended since tells no more than the thread's name.
#[derive(Serialize)]
struct Added<'a> {
    thread: AddedThread<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AddedThread<'a> {
    Full(&'a ThreadRow),
    Past(PastThread<'a>),
}

#[derive(Serialize)]
struct PastThread<'a> {
    id: Uuid,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<ThreadType>,
    name: Option<&'a str>,
    seq: u64,
}

/// `d` of `thread.state`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadState {
    pub thread_id: Uuid,
    pub last_read_no: i64,
    pub read_rev: i32,
    pub mentions: i64,
    /// Newest message that `mentions` counts.
    pub at_no: i64,
    pub muted_until: Option<Timestamp>,
}

/// An update made of its parts; counted as encoded.
pub fn make(stream: StreamId, seq: u64, kind: UpdateKind, touch: Touch, frame: Bytes) -> Update {
    metrics().updates_encoded.inc();
    Update { stream, seq, kind, touch, frame }
}

/// One row of a thread's log, columns in the order of `engine.log_rows`.
pub fn log_row(row: &PgRow) -> Result<Update, sqlx::Error> {
    let stream = StreamId::Thread(row.try_get(0)?);
    let seq = row.try_get::<i64, _>(1)? as u64;
    let kind = kind_of(row.try_get(2)?)?;
    let at = Timestamp(row.try_get(5)?);
    match kind {
        UpdateKind::MessageCreated => Ok(make(stream, seq, kind, Touch::None, message_frame(row, stream, seq, at)?)),
        UpdateKind::MessageEdited => {
            let edited = Edited {
                message_id: row.try_get(7)?,
                no: row.try_get(4)?,
                rev: row.try_get::<Option<i32>, _>(20)?.unwrap_or(1),
                content: row.try_get(10)?,
                mentions: row.try_get::<Option<Vec<Uuid>>, _>(15)?.unwrap_or_default(),
                edited_at: time(row, 22)?,
            };
            Ok(make(stream, seq, kind, Touch::None, update(kind, stream, seq, at, &edited)))
        }
        UpdateKind::MessageDeleted => {
            let deleted = Deleted {
                message_id: row.try_get(7)?,
                no: row.try_get(4)?,
                rev: row.try_get::<Option<i32>, _>(20)?.unwrap_or(1),
                by_id: row.try_get(3)?,
                deleted_at: time(row, 23)?,
            };
            Ok(make(stream, seq, kind, Touch::None, update(kind, stream, seq, at, &deleted)))
        }
        _ => {
            let data: Option<serde_json::Value> = row.try_get(6)?;
            thread_update(stream, seq, kind, at, data.unwrap_or_else(|| serde_json::json!({})))
        }
    }
}

/// An update of a thread that is all in its `data`: what the log keeps of it, or what a change just wrote there.
pub fn thread_update(
    stream: StreamId,
    seq: u64,
    kind: UpdateKind,
    at: Timestamp,
    data: serde_json::Value,
) -> Result<Update, sqlx::Error> {
    if !matches!(kind, UpdateKind::MemberJoined | UpdateKind::MemberLeft) {
        return Ok(make(stream, seq, kind, Touch::None, update(kind, stream, seq, at, &data)));
    }
    let data: Membered = serde_json::from_value(data).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let touch = match kind {
        UpdateKind::MemberLeft => Touch::Left(Arc::from(data.profile_ids.as_slice())),
        _ => Touch::None,
    };
    Ok(make(stream, seq, kind, touch, update(kind, stream, seq, at, &data)))
}

/// The update that tells a person's own devices of changed settings.
pub fn settings_changed(profile: Uuid, seq: u64, at: Timestamp, changed: serde_json::Value) -> Update {
    let data = UserData { thread_id: Uuid::nil(), seq: None, reason: None, changed: Some(changed) };
    user_update(profile, seq, UpdateKind::SettingsChanged, at, &data, None)
}

/// An update of a user stream; `membership` is the present one, `None` where there never was one.
pub fn user_update(
    profile: Uuid,
    seq: u64,
    kind: UpdateKind,
    at: Timestamp,
    data: &UserData,
    membership: Option<&Membership>,
) -> Update {
    let stream = StreamId::User(profile);
    let thread = data.thread_id;
    let at_seq = data.seq.unwrap_or_default();
    match kind {
        UpdateKind::ThreadAdded => {
            let frame = added_frame(stream, seq, at, data, membership);
            make(stream, seq, kind, Touch::Added { thread, seq: at_seq }, frame)
        }
        UpdateKind::ThreadRemoved => {
            let frame = update(kind, stream, seq, at, data);
            make(stream, seq, kind, Touch::Removed { thread, seq: at_seq }, frame)
        }
        UpdateKind::SettingsChanged => make(stream, seq, kind, Touch::None, update(kind, stream, seq, at, data)),
        _ => {
            let frame = match membership {
                Some(membership) => update(kind, stream, seq, at, &ThreadState::of(&membership.thread.row)),
                None => update(kind, stream, seq, at, data),
            };
            make(stream, seq, kind, Touch::None, frame)
        }
    }
}

impl ThreadState {
    /// The present state of a row.
    pub fn of(row: &ThreadRow) -> Self {
        Self {
            thread_id: row.id,
            last_read_no: row.last_read_no,
            read_rev: row.read_rev,
            mentions: row.mentions,
            at_no: row.no,
            muted_until: row.muted_until,
        }
    }
}

fn added_frame(stream: StreamId, seq: u64, at: Timestamp, data: &UserData, membership: Option<&Membership>) -> Bytes {
    let at_seq = data.seq.unwrap_or_default();
    let kind = UpdateKind::ThreadAdded;
    match membership {
        Some(Membership { thread, has_left: false, .. }) if thread.join_seq as u64 == at_seq => {
            // The row as of now, at the position of the join: what follows repeats a part of it, which is harmless.
            let row = ThreadRow { seq: thread.join_seq, ..thread.row.clone() };
            update(kind, stream, seq, at, &Added { thread: AddedThread::Full(&row) })
        }
        other => {
            let row = other.map(|membership| &membership.thread.row);
            let past = PastThread {
                id: data.thread_id,
                kind: row.map(|row| row.kind),
                name: row.and_then(|row| row.name.as_deref()),
                seq: at_seq,
            };
            update(kind, stream, seq, at, &Added { thread: AddedThread::Past(past) })
        }
    }
}

fn message_frame(row: &PgRow, stream: StreamId, seq: u64, at: Timestamp) -> Result<Bytes, sqlx::Error> {
    let gone: bool = row.try_get(8)?;
    let is_deleted = gone || row.try_get::<Option<bool>, _>(18)?.unwrap_or(false);
    let mentions: Vec<Uuid> = row.try_get::<Option<Vec<Uuid>>, _>(15)?.unwrap_or_default();
    let flag = |index: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<bool>, _>(index)?.unwrap_or(false));
    let message = LeanMessage {
        id: row.try_get(7)?,
        no: row.try_get::<i64, _>(4)? as u64,
        sender_id: row.try_get(3)?,
        kind: if gone { MessageType::Deleted } else { message_type(row.try_get(13)?)? },
        content: if is_deleted { None } else { row.try_get(10)? },
        media_url: if is_deleted { None } else { row.try_get(11)? },
        media_type: if is_deleted { None } else { media_type(row.try_get(12)?)? },
        reply_to_id: row.try_get(14)?,
        mentions: if is_deleted { &[] } else { &mentions },
        nonce: row.try_get(16)?,
        is_edited: flag(17)?,
        is_deleted,
        is_pinned: flag(19)?,
        rev: row.try_get::<Option<i32>, _>(20)?.unwrap_or(1),
        sent_at: time(row, 21)?.unwrap_or(at),
        edited_at: time(row, 22)?,
    };
    Ok(update(UpdateKind::MessageCreated, stream, seq, at, &Created { message }))
}

/// The kind behind a number of the log.
pub fn kind_of(code: i16) -> Result<UpdateKind, sqlx::Error> {
    u8::try_from(code)
        .ok()
        .and_then(UpdateKind::from_code)
        .ok_or_else(|| sqlx::Error::Decode(format!("kind: unknown value {code}").into()))
}

/// The enum behind a text column.
pub fn message_type(text: &str) -> Result<MessageType, sqlx::Error> {
    MessageType::parse(text).ok_or_else(|| db::unknown("type", text))
}

/// The enum behind a text column that may be null.
pub fn media_type(text: Option<&str>) -> Result<Option<MediaType>, sqlx::Error> {
    text.map(|text| MediaType::parse(text).ok_or_else(|| db::unknown("media_type", text))).transpose()
}

/// A time that may be null.
pub fn time(row: &PgRow, index: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<DateTime<Utc>>, _>(index)?.map(Timestamp))
}
