//! Threads as their members see them: rows of the `auth` reply, of `threads.list` and of `thread.added`. Reads only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use uuid::Uuid;

use super::db;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::size::{PAGE_BYTES, fitting_threads};
use crate::protocol::time::Timestamp;
use crate::protocol::types::{Peer, ThreadRole, ThreadRow, ThreadType, UserRole, UserStatus};

/// Most rows of one page of [`list`].
pub const LIST_ROWS: i64 = 200;

/// What a cursor of [`list`] looks like: base64url of 24 bytes, a time that is not negative and an id.
pub fn cursor_schema() -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-f][A-Za-z0-9_-]{31}$")).build()
}

/// The columns of `engine.person_thread`, flat. The readers below name them by their place.
macro_rules! select_from {
    ($call:literal) => {
        concat!(
            "SELECT profile_id, display_name, profile_role, status, user_seq, thread_id, type, name, description, avatar, ",
            "house_id, is_archived, is_muted, member_count, seq, no, created_at, last_message_at, role, mark_no, mark_rev, ",
            "muted_until, join_seq, mentions, peer_id, peer_name, peer_avatar, has_left, moved_at FROM engine.",
            $call
        )
    };
}
pub(super) use select_from;

/// A thread as one member sees it, and where its present stay begins.
#[derive(Debug, Clone)]
pub struct MemberThread {
    pub row: ThreadRow,
    pub join_seq: i64,
}

/// A membership, present or past, of one pair.
#[derive(Debug, Clone)]
pub struct Membership {
    pub profile_id: Uuid,
    pub thread: MemberThread,
    /// The stay has ended: the thread is as it was then.
    pub has_left: bool,
}

/// One page of [`list`].
#[derive(Debug)]
pub struct ThreadPage {
    pub threads: Vec<MemberThread>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// A page of one person's threads, newest first. `limit` is cut to 1…[`LIST_ROWS`].
///
/// # Errors
/// `invalid` for a cursor this server did not make; `unavailable`.
pub async fn list(pool: &PgPool, profile: Uuid, cursor: Option<&str>, limit: i64) -> Result<ThreadPage, Refusal> {
    let place = cursor.map(decode_cursor).transpose()?;
    let limit = limit.clamp(1, LIST_ROWS);
    let statement = sqlx::query(select_from!("thread_list($1, $2, $3, $4)"))
        .bind(profile)
        .bind(place.map(|(at, _)| at))
        .bind(place.map(|(_, id)| id))
        .bind(limit as i32 + 1);
    let rows = db::fetch(pool, "threads_list", statement).await?;
    page(&rows, limit as usize).map_err(|error| db::refusal("threads_list", &error))
}

/// Cuts rows to `limit`, and to [`PAGE_BYTES`], and makes the cursor of what follows.
pub(super) fn page(rows: &[PgRow], limit: usize) -> Result<ThreadPage, sqlx::Error> {
    let mut threads: Vec<MemberThread> =
        rows.iter().take(limit).map(|row| Ok(membership(row)?.thread)).collect::<Result<_, sqlx::Error>>()?;
    let limit = limit.min(fitting_threads(threads.iter().map(|thread| &thread.row), PAGE_BYTES));
    threads.truncate(limit);
    let next = match (rows.len() > limit, rows.get(limit.saturating_sub(1))) {
        (true, Some(last)) => Some(encode_cursor(last.try_get(28)?, last.try_get(5)?)),
        _ => None,
    };
    Ok(ThreadPage { threads, next })
}

/// The cursor that continues after `thread` in the order of [`list`], for pages cut from [`people`].
pub fn cursor_after(thread: &ThreadRow) -> String {
    encode_cursor(thread.last_message_at.unwrap_or(thread.created_at).0, thread.id)
}

fn encode_cursor(at: DateTime<Utc>, id: Uuid) -> String {
    let mut raw = [0; 24];
    raw[..8].copy_from_slice(&at.timestamp_micros().to_be_bytes());
    raw[8..].copy_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(raw)
}

fn decode_cursor(cursor: &str) -> Result<(DateTime<Utc>, Uuid), Refusal> {
    let parse = || {
        let raw: [u8; 24] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (at, id) = raw.split_at(8);
        let at_us = Some(i64::from_be_bytes(at.try_into().ok()?)).filter(|at_us| *at_us >= 0)?;
        // Beyond what a time can be: before all threads, as the document promises for every cursor of its form.
        let at = DateTime::from_timestamp_micros(at_us).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Some((at, Uuid::from_slice(id).ok()?))
    };
    parse().ok_or_else(|| Refusal::new(ErrorCode::Invalid, "cursor: not one of this server"))
}

pub(super) fn membership(row: &PgRow) -> Result<Membership, sqlx::Error> {
    let status = user_status(row)?;
    Ok(Membership {
        profile_id: row.try_get(0)?,
        thread: member_thread(row, status)?,
        has_left: row.try_get::<Option<bool>, _>(27)?.unwrap_or(true),
    })
}

pub(super) fn user_role(row: &PgRow) -> Result<UserRole, sqlx::Error> {
    let text: &str = row.try_get(2)?;
    UserRole::parse(text).ok_or_else(|| db::unknown("role", text))
}

pub(super) fn user_status(row: &PgRow) -> Result<UserStatus, sqlx::Error> {
    let text: &str = row.try_get(3)?;
    UserStatus::parse(text).ok_or_else(|| db::unknown("status", text))
}

/// A row of `engine.person_thread`.
fn member_thread(row: &PgRow, status: UserStatus) -> Result<MemberThread, sqlx::Error> {
    let peer = match row.try_get::<Option<Uuid>, _>(24)? {
        Some(id) => Some(Peer { id, display_name: row.try_get(25)?, avatar: row.try_get(26)? }),
        None => None,
    };
    Parts {
        id: row.try_get(5)?,
        kind: row.try_get(6)?,
        name: row.try_get(7)?,
        description: row.try_get(8)?,
        avatar: row.try_get(9)?,
        house_id: row.try_get(10)?,
        is_archived: row.try_get(11)?,
        is_muted: row.try_get(12)?,
        member_count: row.try_get(13)?,
        seq: row.try_get(14)?,
        no: row.try_get(15)?,
        created_at: row.try_get(16)?,
        last_message_at: row.try_get(17)?,
        role: row.try_get(18)?,
        mark_no: row.try_get(19)?,
        mark_rev: row.try_get(20)?,
        muted_until: row.try_get(21)?,
        join_seq: row.try_get(22)?,
        mentions: row.try_get(23)?,
        peer,
    }
    .thread(status)
}

/// What the database says of a person's thread.
pub(super) struct Parts<'a> {
    pub id: Uuid,
    pub kind: &'a str,
    pub name: Option<String>,
    pub description: Option<String>,
    pub avatar: Option<String>,
    pub house_id: Option<Uuid>,
    pub is_archived: bool,
    pub is_muted: bool,
    pub member_count: i32,
    pub seq: i64,
    pub no: i64,
    pub created_at: DateTime<Utc>,
    pub last_message_at: Option<DateTime<Utc>>,
    pub role: &'a str,
    pub mark_no: i64,
    pub mark_rev: i32,
    pub muted_until: Option<DateTime<Utc>>,
    pub join_seq: i64,
    pub mentions: i64,
    pub peer: Option<Peer>,
}

impl Parts<'_> {
    pub fn thread(self, status: UserStatus) -> Result<MemberThread, sqlx::Error> {
        let kind = ThreadType::parse(self.kind).ok_or_else(|| db::unknown("type", self.kind))?;
        let role = ThreadRole::parse(self.role).ok_or_else(|| db::unknown("role", self.role))?;
        let row = ThreadRow {
            id: self.id,
            kind,
            name: self.name,
            peer: self.peer,
            role,
            can_send: !self.is_archived
                && (kind != ThreadType::Announce || role >= ThreadRole::Moderator)
                && matches!(status, UserStatus::Active | UserStatus::Pending),
            is_archived: self.is_archived,
            member_count: self.member_count,
            seq: self.seq,
            no: self.no,
            last_read_no: self.mark_no,
            read_rev: self.mark_rev,
            unread: (self.no - self.mark_no).max(0),
            mentions: self.mentions,
            muted_until: self.muted_until.map(Timestamp),
            last_message_at: self.last_message_at.map(Timestamp),
            description: self.description,
            avatar: self.avatar,
            is_muted: self.is_muted,
            house_id: self.house_id,
            created_at: self.created_at.into(),
        };
        Ok(MemberThread { row, join_seq: self.join_seq })
    }
}

#[cfg(test)]
mod tests {
    use super::{decode_cursor, encode_cursor};
    use chrono::{DateTime, Utc};
    use uuid::Uuid;

    #[test]
    fn cursors_round_trip_and_foreign_ones_are_refused() {
        let (at, id) = (DateTime::<Utc>::from_timestamp_micros(1_767_225_600_123_456).expect("a time"), Uuid::now_v7());
        assert_eq!(decode_cursor(&encode_cursor(at, id)).expect("own cursor"), (at, id));
        assert!(decode_cursor(&format!("f{}", "_".repeat(31))).is_ok(), "the last place there is");
        for bad in ["", "x", "AAAA", &"A".repeat(33), &"_".repeat(32)] {
            assert!(decode_cursor(bad).is_err(), "{bad}");
        }
    }
}
