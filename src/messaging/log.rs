//! Reading the log: pages of streams as ready updates, heads, and the snapshot poll that misses no late committer and
//! reads nothing twice.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::db;
use super::memberships::present;
use super::render_log::{UserData, kind_of, log_row, user_update};

use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::frame;
use crate::protocol::time::Timestamp;
use crate::updates::{StreamId, Update, UpdateKind};

/// Most updates of one page of one stream.
pub const PAGE_UPDATES: i64 = 1000;
/// About the most bytes of one page of one stream: what may wait for one socket.
pub const PAGE_BYTES: i64 = 64 << 10;

/// How far a poll came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollState {
    /// Up to the present.
    Whole,
    /// There is more: to be called again at once.
    More,
    /// This database has not written what the position knows: it is another one, or an older state of it.
    Lost,
}

/// What moved since the poll before.
#[derive(Debug)]
pub struct Poll {
    /// To be given to the next poll.
    pub position: String,
    pub state: PollState,
    /// Streams with newly visible rows, and the highest seq among these.
    pub moved: Vec<(StreamId, u64)>,
}

/// Answer of `GET …/updates`: the log itself, as one person may see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct VisibleUpdates {
    /// Frames as on the socket, in the order of `seq`.
    #[schema(value_type = Vec<Object>)]
    pub updates: Vec<Box<RawValue>>,
    /// Newest position the person may see.
    pub head: i64,
    pub epoch: String,
}

/// Part of [`VisibleUpdates`].
#[derive(Debug)]
pub struct VisiblePiece {
    pub updates: Vec<Box<RawValue>>,
    /// Position of the last of them; where to go on from.
    pub last: i64,
    pub head: i64,
}

/// Columns of a row of the log; what a reader adds comes behind them.
const LOG_COLUMNS: usize = 24;

macro_rules! select_log {
    ($call:literal) => {
        select_log!($call, "")
    };
    ($call:literal, $more:literal) => {
        concat!(
            "SELECT thread_id, seq, kind, actor_id, no, at, data, message_id, message_gone, sender_id, content, media_url, ",
            "media_type, type, reply_to_id, mentions, nonce, is_edited, is_deleted, is_pinned, rev, sent_at, edited_at, ",
            "deleted_at",
            $more,
            " FROM engine.",
            $call
        )
    };
}

/// For each (thread, since) the updates after `since`, at most `limit` and about [`PAGE_BYTES`] each but one at least where
/// there is one, in the order asked. Visibility is the caller's: it asks only within stays it has checked.
///
/// # Errors
/// `unavailable`.
pub async fn thread_pages(pool: &PgPool, asked: &[(Uuid, i64)], limit: i64) -> Result<Vec<Vec<Update>>, Refusal> {
    let (ids, since): (Vec<Uuid>, Vec<i64>) = asked.iter().copied().unzip();
    let limit = limit.clamp(1, PAGE_UPDATES);
    let statement = sqlx::query(select_log!("log_pages($1, $2, $3, $4)", ", ord"));
    let statement = statement.bind(ids).bind(since).bind(limit as i32).bind(PAGE_BYTES);
    let rows = db::fetch(pool, "log_pages", statement).await?;
    let read = || {
        let mut pages = Pages::of(asked.len());
        for row in &rows {
            pages.add(row.try_get(LOG_COLUMNS)?, log_row(row)?);
        }
        Ok(pages.0)
    };
    read().map_err(|error| db::refusal("log_pages", &error))
}

/// For each (profile, since) the updates of the user stream after `since`, at most `limit` each, in the order asked.
///
/// # Errors
/// `unavailable`.
pub async fn user_pages(pool: &PgPool, asked: &[(Uuid, i64)], limit: i64) -> Result<Vec<Vec<Update>>, Refusal> {
    let (ids, since): (Vec<Uuid>, Vec<i64>) = asked.iter().copied().unzip();
    let limit = limit.clamp(1, PAGE_UPDATES);
    let statement = sqlx::query("SELECT profile_id, seq, kind, at, data, ord FROM engine.user_pages($1, $2, $3)")
        .bind(ids)
        .bind(since)
        .bind(limit as i32);
    let rows = db::fetch(pool, "user_pages", statement).await?;
    let mut parsed = Vec::with_capacity(rows.len());
    for row in &rows {
        let one = || {
            let at: DateTime<Utc> = row.try_get(3)?;
            let Json(data): Json<UserData> = row.try_get(4)?;
            let seq = row.try_get::<i64, _>(1)? as u64;
            Ok((row.try_get::<i32, _>(5)?, row.try_get::<Uuid, _>(0)?, seq, kind_of(row.try_get(2)?)?, at, data))
        };
        parsed.push(one().map_err(|error| db::refusal("user_pages", &error))?);
    }
    // The present state of every thread named, read once.
    let pairs: HashSet<(Uuid, Uuid)> = parsed
        .iter()
        .filter(|(_, _, _, kind, ..)| !matches!(kind, UpdateKind::ThreadRemoved | UpdateKind::SettingsChanged))
        .map(|(_, profile, _, _, _, data)| (*profile, data.thread_id))
        .collect();
    let found = present(pool, &pairs.into_iter().collect::<Vec<_>>()).await?;
    let mut pages = Pages::of(asked.len());
    for (ord, profile, seq, kind, at, data) in parsed {
        let membership = found.get(&(profile, data.thread_id));
        pages.add(ord, user_update(profile, seq, kind, Timestamp(at), &data, membership));
    }
    Ok(pages.0)
}

/// One page an ask, filled by the number of the ask.
struct Pages(Vec<Vec<Update>>);

impl Pages {
    fn of(asks: usize) -> Self {
        Self((0..asks).map(|_| Vec::new()).collect())
    }

    /// `ord` counts from 1.
    fn add(&mut self, ord: i32, update: Update) {
        let page = usize::try_from(ord).ok().and_then(|ord| self.0.get_mut(ord.checked_sub(1)?));
        if let Some(page) = page {
            page.push(update);
        }
    }
}

/// Committed heads. Streams that do not exist are left out; a user stream without updates is one of these.
///
/// # Errors
/// `unavailable`.
pub async fn heads(pool: &PgPool, threads: &[Uuid], profiles: &[Uuid]) -> Result<Vec<(StreamId, u64)>, Refusal> {
    let statement = sqlx::query("SELECT stream, is_user, seq FROM engine.heads($1, $2)")
        .bind(threads.to_vec())
        .bind(profiles.to_vec());
    let rows = db::fetch(pool, "heads", statement).await?;
    rows.iter()
        .map(|row| Ok((stream_id(row.try_get(0)?, row.try_get(1)?), row.try_get::<i64, _>(2)? as u64)))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| db::refusal("heads", &error))
}

/// Streams with rows that became visible since `position`, however late their transactions committed; about `rows` rows
/// are read at most. The first poll, without a position, only takes one.
///
/// # Errors
/// `unavailable`.
pub async fn poll(pool: &PgPool, position: Option<String>, rows: i32) -> Result<Poll, Refusal> {
    let statement =
        sqlx::query("SELECT pos, state, stream, is_user, seq FROM engine.poll($1, $2)").bind(position).bind(rows);
    let rows = db::fetch(pool, "poll", statement).await?;
    let parse = || {
        let (first, rest) = rows.split_first().ok_or(sqlx::Error::RowNotFound)?;
        let state = match first.try_get(1)? {
            "whole" => PollState::Whole,
            "more" => PollState::More,
            "lost" => PollState::Lost,
            other => return Err(db::unknown("state", other)),
        };
        let moved = rest
            .iter()
            .map(|row| Ok((stream_id(row.try_get(2)?, row.try_get(3)?), row.try_get::<i64, _>(4)? as u64)))
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(Poll { position: first.try_get(0)?, state, moved })
    };
    parse().map_err(|error| db::refusal("poll", &error))
}

/// A piece of the log of a thread as `actor` may see it, after `since`: at most `limit` updates and about `bytes` bytes,
/// one update at least where there is one.
///
/// # Errors
/// `not_found` for who never was a member; `unavailable`.
pub async fn visible_updates(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    since: i64,
    limit: i64,
    bytes: i64,
) -> Result<VisiblePiece, Refusal> {
    let statement = sqlx::query(select_log!("visible_updates($1, $2, $3, $4, $5)"))
        .bind(actor)
        .bind(thread)
        .bind(since)
        .bind(limit.clamp(1, PAGE_UPDATES) as i32)
        .bind(bytes);
    let rows = db::fetch(pool, "visible_updates", statement).await?;
    let Some((first, rest)) = rows.split_first() else {
        return Err(Refusal::new(ErrorCode::NotFound, "no such thread"));
    };
    let read = || {
        let head = first.try_get(1)?;
        let mut updates = Vec::with_capacity(rest.len());
        let mut last = since;
        for row in rest {
            let json = frame::payload(&log_row(row)?.frame).to_vec();
            let text = String::from_utf8(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
            updates.push(RawValue::from_string(text).map_err(|error| sqlx::Error::Decode(error.into()))?);
            last = row.try_get(1)?;
        }
        Ok(VisiblePiece { updates, last, head })
    };
    read().map_err(|error| db::refusal("visible_updates", &error))
}

fn stream_id(id: Uuid, is_user: bool) -> StreamId {
    if is_user { StreamId::User(id) } else { StreamId::Thread(id) }
}
