//! Threads as their members see them: rows of the `auth` reply, of `threads.list` and of `thread.added`. Reads only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::db;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::time::Timestamp;
use crate::protocol::types::{Peer, ThreadRole, ThreadRow, ThreadType, UserRole, UserStatus};

/// Most profiles in one call of [`people`].
pub const PEOPLE: usize = 64;
/// Most rows of one page of [`list`].
pub const LIST_ROWS: i64 = 200;

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

/// A person and every thread it is an active member of, newest first, as of one database snapshot.
#[derive(Debug, Clone)]
pub struct Person {
    pub profile_id: Uuid,
    pub display_name: String,
    pub role: UserRole,
    pub status: UserStatus,
    /// Head of the user stream.
    pub user_seq: i64,
    pub threads: Vec<MemberThread>,
}

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
    /// The stay has ended: nothing of the thread but its name may be told.
    pub has_left: bool,
}

/// One page of [`list`].
#[derive(Debug)]
pub struct ThreadPage {
    pub threads: Vec<MemberThread>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// People with all their threads, in one call and one snapshot for up to [`PEOPLE`] profiles, in the order
/// of their ids. Unknown ids are left out.
///
/// # Errors
/// `unavailable`; `invalid` above [`PEOPLE`].
pub async fn people(pool: &PgPool, profiles: &[Uuid]) -> Result<Vec<Person>, Refusal> {
    if profiles.len() > PEOPLE {
        return Err(Refusal::new(ErrorCode::Invalid, "too many profiles in one call"));
    }
    let mut ids = profiles.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let statement = sqlx::query(select_from!("thread_rows($1)")).bind(ids);
    let rows = db::fetch(pool, "people", statement).await?;
    gather(&rows).map_err(|error| db::refusal("people", &error))
}

/// One thread as an active member sees it; `None` for everybody else.
///
/// # Errors
/// `unavailable`.
pub async fn thread_row(pool: &PgPool, profile: Uuid, thread: Uuid) -> Result<Option<MemberThread>, Refusal> {
    let found = memberships(pool, &[(profile, thread)]).await?;
    Ok(found.into_iter().find(|membership| !membership.has_left).map(|membership| membership.thread))
}

/// Memberships of pairs (profile, thread), ended ones included; pairs that never were one are left out.
///
/// # Errors
/// `unavailable`.
pub async fn memberships(pool: &PgPool, pairs: &[(Uuid, Uuid)]) -> Result<Vec<Membership>, Refusal> {
    let (profiles, threads): (Vec<Uuid>, Vec<Uuid>) = pairs.iter().copied().unzip();
    let statement = sqlx::query(select_from!("member_rows($1, $2)")).bind(profiles).bind(threads);
    let rows = db::fetch(pool, "memberships", statement).await?;
    rows.iter().map(membership).collect::<Result<_, _>>().map_err(|error| db::refusal("memberships", &error))
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

/// Cuts rows to `limit` and makes the cursor of what follows.
pub(super) fn page(rows: &[PgRow], limit: usize) -> Result<ThreadPage, sqlx::Error> {
    let threads: Vec<MemberThread> =
        rows.iter().take(limit).map(|row| Ok(membership(row)?.thread)).collect::<Result<_, sqlx::Error>>()?;
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
        Some((DateTime::from_timestamp_micros(at_us)?, Uuid::from_slice(id).ok()?))
    };
    parse().ok_or_else(|| Refusal::new(ErrorCode::Invalid, "cursor: not one of this server"))
}

fn gather(rows: &[PgRow]) -> Result<Vec<Person>, sqlx::Error> {
    let mut people: Vec<Person> = Vec::new();
    for row in rows {
        let profile_id: Uuid = row.try_get(0)?;
        if people.last().is_none_or(|person| person.profile_id != profile_id) {
            people.push(Person {
                profile_id,
                display_name: row.try_get(1)?,
                role: user_role(row)?,
                status: user_status(row)?,
                user_seq: row.try_get(4)?,
                threads: Vec::new(),
            });
        }
        let Some(person) = people.last_mut() else { continue };
        if row.try_get::<Option<Uuid>, _>(5)?.is_some() {
            let thread = member_thread(row, person.status)?;
            person.threads.push(thread);
        }
    }
    Ok(people)
}

pub(super) fn membership(row: &PgRow) -> Result<Membership, sqlx::Error> {
    let status = user_status(row)?;
    Ok(Membership {
        profile_id: row.try_get(0)?,
        thread: member_thread(row, status)?,
        has_left: row.try_get::<Option<bool>, _>(27)?.unwrap_or(true),
    })
}

fn user_role(row: &PgRow) -> Result<UserRole, sqlx::Error> {
    let text: &str = row.try_get(2)?;
    UserRole::parse(text).ok_or_else(|| db::unknown("role", text))
}

fn user_status(row: &PgRow) -> Result<UserStatus, sqlx::Error> {
    let text: &str = row.try_get(3)?;
    UserStatus::parse(text).ok_or_else(|| db::unknown("status", text))
}

fn member_thread(row: &PgRow, status: UserStatus) -> Result<MemberThread, sqlx::Error> {
    let kind: &str = row.try_get(6)?;
    let kind = ThreadType::parse(kind).ok_or_else(|| db::unknown("type", kind))?;
    let role: &str = row.try_get(18)?;
    let role = ThreadRole::parse(role).ok_or_else(|| db::unknown("role", role))?;
    let peer = match row.try_get::<Option<Uuid>, _>(24)? {
        Some(id) => Some(Peer { id, display_name: row.try_get(25)?, avatar: row.try_get(26)? }),
        None => None,
    };
    let time = |index: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<DateTime<Utc>>, _>(index)?.map(Timestamp));
    let is_archived: bool = row.try_get(11)?;
    let no: i64 = row.try_get(15)?;
    let last_read_no: i64 = row.try_get(19)?;
    let thread = ThreadRow {
        id: row.try_get(5)?,
        kind,
        name: row.try_get(7)?,
        peer,
        role,
        can_send: !is_archived
            && (kind != ThreadType::Announce || role >= ThreadRole::Moderator)
            && matches!(status, UserStatus::Active | UserStatus::Pending),
        is_archived,
        member_count: row.try_get(13)?,
        seq: row.try_get(14)?,
        no,
        last_read_no,
        read_rev: row.try_get(20)?,
        unread: (no - last_read_no).max(0),
        mentions: row.try_get(23)?,
        muted_until: time(21)?,
        last_message_at: time(17)?,
        description: row.try_get(8)?,
        avatar: row.try_get(9)?,
        is_muted: row.try_get(12)?,
        house_id: row.try_get(10)?,
        created_at: row.try_get::<DateTime<Utc>, _>(16)?.into(),
    };
    Ok(MemberThread { row: thread, join_seq: row.try_get(22)? })
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
        for bad in ["", "x", "AAAA", &"A".repeat(33), &"_".repeat(32)] {
            assert!(decode_cursor(bad).is_err(), "{bad}");
        }
    }
}
