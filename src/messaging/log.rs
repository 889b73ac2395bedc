//! Reading the log: pages of streams as ready updates, heads, and the snapshot poll that misses no late committer.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::db;
use super::render_log::{UserData, kind_of, log_row, user_update};
use super::rows::{Membership, memberships};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::frame;
use crate::protocol::time::Timestamp;
use crate::updates::{StreamId, Update, UpdateKind};

/// Most updates of one page of one stream.
pub const PAGE_UPDATES: i64 = 1000;

/// What moved since the poll before.
#[derive(Debug)]
pub struct Poll {
    /// To be given to the next poll.
    pub snapshot: String,
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

macro_rules! select_log {
    ($call:literal) => {
        concat!(
            "SELECT thread_id, seq, kind, actor_id, no, at, data, message_id, message_gone, sender_id, content, media_url, ",
            "media_type, type, reply_to_id, mentions, nonce, is_edited, is_deleted, is_pinned, rev, sent_at, edited_at, ",
            "deleted_at FROM engine.",
            $call
        )
    };
}

/// For each (thread, since) the updates after `since`, at most `limit` each, in the order asked. Visibility is the
/// caller's: it asks only within stays it has checked.
///
/// # Errors
/// `unavailable`.
pub async fn thread_pages(pool: &PgPool, asked: &[(Uuid, i64)], limit: i64) -> Result<Vec<Vec<Update>>, Refusal> {
    let (ids, since): (Vec<Uuid>, Vec<i64>) = asked.iter().copied().unzip();
    let limit = limit.clamp(1, PAGE_UPDATES);
    let statement = sqlx::query(select_log!("log_pages($1, $2, $3)")).bind(ids).bind(since).bind(limit as i32);
    let rows = db::fetch(pool, "log_pages", statement).await?;
    let updates: Vec<Update> =
        rows.iter().map(log_row).collect::<Result<_, _>>().map_err(|error| db::refusal("log_pages", &error))?;
    Ok(split(asked, updates, limit as usize))
}

/// For each (profile, since) the updates of the user stream after `since`, at most `limit` each, in the order asked.
///
/// # Errors
/// `unavailable`.
pub async fn user_pages(pool: &PgPool, asked: &[(Uuid, i64)], limit: i64) -> Result<Vec<Vec<Update>>, Refusal> {
    let (ids, since): (Vec<Uuid>, Vec<i64>) = asked.iter().copied().unzip();
    let limit = limit.clamp(1, PAGE_UPDATES);
    let statement = sqlx::query("SELECT profile_id, seq, kind, at, data FROM engine.user_pages($1, $2, $3)")
        .bind(ids)
        .bind(since)
        .bind(limit as i32);
    let rows = db::fetch(pool, "user_pages", statement).await?;
    let mut parsed = Vec::with_capacity(rows.len());
    for row in &rows {
        let one = || {
            let at: DateTime<Utc> = row.try_get(3)?;
            let Json(data): Json<UserData> = row.try_get(4)?;
            Ok((row.try_get::<Uuid, _>(0)?, row.try_get::<i64, _>(1)? as u64, kind_of(row.try_get(2)?)?, at, data))
        };
        parsed.push(one().map_err(|error| db::refusal("user_pages", &error))?);
    }
    // The present state of every thread named, read once.
    let pairs: HashSet<(Uuid, Uuid)> = parsed
        .iter()
        .filter(|(_, _, kind, ..)| *kind != UpdateKind::ThreadRemoved)
        .map(|(profile, _, _, _, data)| (*profile, data.thread_id))
        .collect();
    let found = present(pool, &pairs.into_iter().collect::<Vec<_>>()).await?;
    let updates = parsed
        .into_iter()
        .map(|(profile, seq, kind, at, data)| {
            user_update(profile, seq, kind, Timestamp(at), &data, found.get(&(profile, data.thread_id)))
        })
        .collect();
    Ok(split(asked, updates, limit as usize))
}

/// Memberships by pair; no call where there is nothing to ask.
pub(super) async fn present(
    pool: &PgPool,
    pairs: &[(Uuid, Uuid)],
) -> Result<HashMap<(Uuid, Uuid), Membership>, Refusal> {
    if pairs.is_empty() {
        return Ok(HashMap::new());
    }
    let found = memberships(pool, pairs).await?;
    Ok(found.into_iter().map(|membership| ((membership.profile_id, membership.thread.row.id), membership)).collect())
}

/// Updates in the order asked, cut into pages. A stream may be asked several times: within one snapshot a page that is not
/// full goes on to the head, so the next update in order belongs to it, and after a full page to the next ask.
fn split(asked: &[(Uuid, i64)], updates: Vec<Update>, limit: usize) -> Vec<Vec<Update>> {
    let mut pages: Vec<Vec<Update>> = asked.iter().map(|_| Vec::new()).collect();
    let mut place = 0;
    for update in updates {
        let goes_on = pages.get(place).is_some_and(|page: &Vec<Update>| {
            page.len() < limit && page.last().is_some_and(|last| last.stream == update.stream && last.seq < update.seq)
        });
        if !goes_on {
            // The log has no holes: a page begins right after its position; an ask at the head has none.
            let from = place + usize::from(pages.get(place).is_some_and(|page| !page.is_empty()));
            let is_asked = |(id, since): &(Uuid, i64)| *id == update.stream.uuid() && *since as u64 + 1 == update.seq;
            let Some(step) = asked.iter().skip(from).position(is_asked) else { continue };
            place = from + step;
        }
        if let Some(page) = pages.get_mut(place) {
            page.push(update);
        }
    }
    pages
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

/// Streams with rows that became visible since `previous` was taken, however late their transactions committed. The
/// first poll, without `previous`, only takes a snapshot.
///
/// # Errors
/// `unavailable`.
pub async fn poll(pool: &PgPool, previous: Option<String>) -> Result<Poll, Refusal> {
    let statement = sqlx::query("SELECT snapshot, stream, is_user, seq FROM engine.poll($1)").bind(previous);
    let rows = db::fetch(pool, "poll", statement).await?;
    let parse = || {
        let mut poll = Poll { snapshot: String::new(), moved: Vec::with_capacity(rows.len().saturating_sub(1)) };
        for row in &rows {
            match row.try_get::<Option<Uuid>, _>(1)? {
                None => poll.snapshot = row.try_get(0)?,
                Some(id) => poll.moved.push((stream_id(id, row.try_get(2)?), row.try_get::<i64, _>(3)? as u64)),
            }
        }
        Ok(poll)
    };
    parse().map_err(|error| db::refusal("poll", &error))
}

/// The log of a thread as `actor` may see it, after `since`.
///
/// # Errors
/// `not_found` for who never was a member; `unavailable`.
pub async fn visible_updates(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    since: i64,
    limit: i64,
    epoch: String,
) -> Result<VisibleUpdates, Refusal> {
    let statement = sqlx::query(select_log!("visible_updates($1, $2, $3, $4)"))
        .bind(actor)
        .bind(thread)
        .bind(since)
        .bind(limit.clamp(1, PAGE_UPDATES) as i32);
    let rows = db::fetch(pool, "visible_updates", statement).await?;
    let Some((first, rest)) = rows.split_first() else {
        return Err(Refusal::new(ErrorCode::NotFound, "no such thread"));
    };
    let read = || {
        let head = first.try_get(1)?;
        let mut updates = Vec::with_capacity(rest.len());
        for row in rest {
            let json = frame::payload(&log_row(row)?.frame).to_vec();
            let text = String::from_utf8(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
            updates.push(RawValue::from_string(text).map_err(|error| sqlx::Error::Decode(error.into()))?);
        }
        Ok(VisibleUpdates { updates, head, epoch })
    };
    read().map_err(|error| db::refusal("visible_updates", &error))
}

fn stream_id(id: Uuid, is_user: bool) -> StreamId {
    if is_user { StreamId::User(id) } else { StreamId::Thread(id) }
}

#[cfg(test)]
mod tests {
    use super::split;
    use crate::updates::{StreamId, Touch, Update, UpdateKind};
    use bytes::Bytes;
    use uuid::Uuid;

    const LIMIT: usize = 5;

    fn at(id: Uuid, seq: u64) -> Update {
        let kind = UpdateKind::MessageCreated;
        Update { stream: StreamId::Thread(id), seq, kind, touch: Touch::None, frame: Bytes::new() }
    }

    #[test]
    fn every_ask_gets_its_own_page_however_often_a_stream_is_asked() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let head = |id| if id == a { 24 } else { 7 };
        // All pairs of positions in one stream and some third ones, another stream before, between and after.
        for first in 0..=24 {
            for second in 0..=24 {
                for third in (0..=24).step_by(3) {
                    let asked = [(b, 3), (a, first), (a, second), (b, 6), (a, third), (b, 7)];
                    let pages: Vec<Vec<u64>> =
                        asked.iter().map(|(id, since)| (*since as u64 + 1..=head(*id)).take(LIMIT).collect()).collect();
                    let rows =
                        asked.iter().zip(&pages).flat_map(|((id, _), page)| page.iter().map(|seq| at(*id, *seq)));
                    let cut = split(&asked, rows.collect(), LIMIT);
                    let seqs: Vec<Vec<u64>> =
                        cut.iter().map(|page| page.iter().map(|update| update.seq).collect()).collect();
                    assert_eq!(seqs, pages, "{first} {second} {third}");
                }
            }
        }
    }
}
