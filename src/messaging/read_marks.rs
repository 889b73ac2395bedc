//! The own read mark of a thread. It never moves back here, and a revision below the stored one changes nothing.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::render::update;
use super::render_log::{ThreadState, make};
use super::{Committed, db};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::time::Timestamp;
use crate::updates::{StreamId, Touch, Update, UpdateKind};

/// `ok` of `read`: the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadOk {
    pub last_read_no: i64,
    pub read_rev: i32,
    pub unread: i64,
    pub mentions: i64,
}

/// Moves the mark of `profile` forward to message number `no` (cut to the newest). Where it moved, the person's own
/// devices are told by `thread.state`.
///
/// # Errors
/// `not_found` for who is no member; `forbidden` for suspended accounts; `invalid` for a negative number; `unavailable`.
pub async fn read(
    pool: &PgPool,
    profile: Uuid,
    thread: Uuid,
    no: i64,
    rev: Option<i32>,
) -> Result<Committed<ReadOk>, Refusal> {
    if no < 0 {
        return Err(Refusal::new(ErrorCode::Invalid, "no: a message number, 0 or more"));
    }
    let statement = sqlx::query(
        "SELECT code, last_read_no, read_rev, thread_no, mentions, muted_until, user_seq, at \
         FROM engine.mark_read($1, $2, $3, $4)",
    )
    .bind(thread)
    .bind(profile)
    .bind(no)
    .bind(rev);
    let rows = db::change(pool, "read", statement).await?;
    let Some(row) = rows.first() else { return Err(Refusal::new(ErrorCode::Internal, "no answer")) };
    parse(row, profile, thread).map_err(|error| db::refusal("read", &error))?
}

fn parse(row: &PgRow, profile: Uuid, thread: Uuid) -> Result<Result<Committed<ReadOk>, Refusal>, sqlx::Error> {
    match row.try_get(0)? {
        "ok" => {}
        "not_found" => return Ok(Err(Refusal::new(ErrorCode::NotFound, "no such thread"))),
        _ => return Ok(Err(Refusal::new(ErrorCode::Forbidden, "this account may not do that"))),
    }
    let thread_no: i64 = row.try_get(3)?;
    let last_read_no: i64 = row.try_get(1)?;
    let value = ReadOk {
        last_read_no,
        read_rev: row.try_get(2)?,
        unread: (thread_no - last_read_no).max(0),
        mentions: row.try_get(4)?,
    };
    let mut updates = Vec::new();
    if let (Some(seq), Some(at)) = (row.try_get::<Option<i64>, _>(6)?, row.try_get::<Option<DateTime<Utc>>, _>(7)?) {
        let state = ThreadState {
            thread_id: thread,
            last_read_no,
            read_rev: value.read_rev,
            mentions: value.mentions,
            at_no: thread_no,
            muted_until: row.try_get::<Option<DateTime<Utc>>, _>(5)?.map(Timestamp),
        };
        updates.push(state_update(profile, seq as u64, at.into(), &state));
    }
    Ok(Ok(Committed { value, updates }))
}

fn state_update(profile: Uuid, seq: u64, at: Timestamp, state: &ThreadState) -> Update {
    let (stream, kind) = (StreamId::User(profile), UpdateKind::ThreadState);
    make(stream, seq, kind, Touch::None, update(kind, stream, seq, at, state))
}
