//! Messages of a thread as one member may see them: pages, `thread.open`, and snapshots. Rows and `seq` always come from
//! one database snapshot on the primary.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::db;
use super::members::{MEMBERS, member};
use super::people::{ThreadPosition, people};
use super::render_log::{media_type, message_type, time};
use super::rows::{Membership, membership, select_from};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::size::{PAGE_BYTES, fitting, fitting_threads, json_bytes};
use crate::protocol::types::{Message, ThreadMember, ThreadRow};
use crate::saboteur::{self, Bug, STALE_MS};

/// Most messages of one page.
pub const PAGE_MESSAGES: i64 = 100;
/// Messages in a snapshot.
pub const SNAPSHOT_MESSAGES: i64 = 50;
/// Members in `thread.open` and snapshots; the rest over REST.
pub const OPEN_MEMBERS: i32 = 100;
/// What these may take of [`PAGE_BYTES`]; the messages get what is left.
pub const OPEN_MEMBERS_BYTES: usize = 32 << 10;

/// Which part of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest messages below this number; `i64::MAX` for the newest of all.
    Before(i64),
    /// The oldest messages above this number.
    After(i64),
    /// As many on either side of this number, itself included.
    Around(i64),
}

impl Range {
    /// What the three numbers of a request say, of which one may stand.
    ///
    /// # Errors
    /// `invalid` names the field.
    pub fn of(before: Option<i64>, after: Option<i64>, around: Option<i64>) -> Result<Self, Refusal> {
        let invalid = |text: String| Err(Refusal::new(ErrorCode::Invalid, text));
        for (name, no) in [("before", before), ("after", after), ("around", around)] {
            if no.is_some_and(|no| no < 0) {
                return invalid(format!("{name}: a message number, 0 or more"));
            }
        }
        match (before, after, around) {
            (None, None, None) => Ok(Self::Before(i64::MAX)),
            (Some(no), None, None) => Ok(Self::Before(no)),
            (None, Some(no), None) => Ok(Self::After(no)),
            (None, None, Some(no)) => Ok(Self::Around(no)),
            _ => invalid("before: only one of before, after and around".to_owned()),
        }
    }
}

/// One page of history.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Ascending by `no`.
    pub messages: Vec<Message>,
    /// More lies in the direction asked (`around`: on either side). A page ends where `limit` messages are, or
    /// [`PAGE_BYTES`]; at least one message is in it.
    pub has_more: bool,
    /// Position in the stream that the page is as of.
    pub seq: i64,
}

/// `ok` of `thread.open`. Presence, receipts and typing are empty here: the node that asks knows them.
#[derive(Debug, Clone, Serialize)]
pub struct Opened {
    pub thread: ThreadRow,
    pub seq: i64,
    pub no: i64,
    pub messages: Vec<Message>,
    pub members: Vec<ThreadMember>,
    pub presence: serde_json::Value,
    pub receipts: serde_json::Value,
    pub typing: serde_json::Value,
}

/// `d` of the `snapshot` of a thread; `seq` stands in the frame.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadSnapshot {
    #[serde(skip)]
    pub seq: i64,
    pub thread: ThreadRow,
    pub messages: Vec<Message>,
    pub members: Vec<ThreadMember>,
    pub member_count: i32,
}

/// What a `snapshot` of a user stream says, and where every thread of the person stands in the same database snapshot.
#[derive(Debug, Clone)]
pub struct UserSnapshot {
    pub seq: i64,
    /// The first of these, as many as fit.
    pub threads: Vec<ThreadRow>,
    pub positions: Vec<ThreadPosition>,
    pub next: Option<String>,
    pub inbox: serde_json::Value,
    pub settings: serde_json::Value,
}

/// A page of history, those nearest to where it begins. `limit` is cut to 1…[`PAGE_MESSAGES`].
///
/// # Errors
/// `not_found` for who never was a member; `unavailable`.
pub async fn history(pool: &PgPool, actor: Uuid, thread: Uuid, range: Range, limit: i64) -> Result<History, Refusal> {
    let limit = limit.clamp(1, PAGE_MESSAGES);
    let (Range::Before(anchor) | Range::After(anchor) | Range::Around(anchor)) = range;
    let (page, below, above) = match range {
        Range::Before(no) => (Page { actor, thread, before: no, below: limit + 1, after: 0, above: 0 }, limit, 0),
        Range::After(no) => (Page { actor, thread, before: 0, below: 0, after: no, above: limit + 1 }, 0, limit),
        Range::Around(no) => {
            // `no` itself belongs to the lower part.
            let (below, above) = (limit - limit / 2, limit / 2);
            let before = no.saturating_add(1);
            (Page { actor, thread, before, below: below + 1, after: no, above: above + 1 }, below, above)
        }
    };
    let rows = db::fetch(pool, "history", page.statement()).await?;
    let read = || {
        let Some((head, rest)) = rows.split_first() else { return Ok(None) };
        let mut messages: Vec<Message> = rest.iter().map(|row| message(row, thread)).collect::<Result<_, _>>()?;
        // Planted: the page comes from a copy that is behind.
        if saboteur::plants(Bug::StaleHistory) {
            let copied = Utc::now() - chrono::TimeDelta::milliseconds(STALE_MS);
            messages.retain(|message| message.sent_at.0 < copied);
        }
        messages.sort_unstable_by_key(|message| message.no);
        let split = messages.partition_point(|message| message.no < page.before);
        let (lower, upper) = (split as i64, (messages.len() - split) as i64);
        messages.truncate(split + above.min(upper) as usize);
        messages.drain(..(lower - below).max(0) as usize);
        let is_cut = cut(&mut messages, anchor, PAGE_BYTES);
        Ok(Some(History { messages, has_more: is_cut || lower > below || upper > above, seq: head.try_get(2)? }))
    };
    read().map_err(|error| db::refusal("history", &error))?.ok_or_else(not_found)
}

/// Keeps of `messages`, ascending, those nearest to `anchor` that fit into `bytes`; true where some did not.
fn cut(messages: &mut Vec<Message>, anchor: i64, bytes: usize) -> bool {
    let distance = |message: &Message| (message.no.abs_diff(anchor), message.no);
    let mut nearest: Vec<&Message> = messages.iter().collect();
    nearest.sort_unstable_by_key(|message| distance(message));
    let count = fitting(nearest.iter().copied(), bytes);
    if count == nearest.len() {
        return false;
    }
    let beyond = distance(nearest[count]);
    messages.retain(|message| distance(message) < beyond);
    true
}

/// What a screen shows of a thread that is opened: its row, its newest messages and its first members, in one snapshot.
///
/// # Errors
/// `not_found` for who is no member now; `unavailable`.
pub async fn open(pool: &PgPool, actor: Uuid, thread: Uuid, limit: i64) -> Result<Opened, Refusal> {
    let whole = whole(pool, actor, thread, limit.clamp(1, PAGE_MESSAGES)).await?;
    Ok(Opened {
        seq: whole.thread.seq,
        no: whole.thread.no,
        thread: whole.thread,
        messages: whole.messages,
        members: whole.members,
        presence: json!({"threadId": thread, "online": [], "viewing": [], "count": 0}),
        receipts: json!({"threadId": thread, "reads": []}),
        typing: json!({"threadId": thread, "profileIds": []}),
    })
}

/// What replaces a thread at a client that is too far behind.
///
/// # Errors
/// `not_found` for who is no member now; `unavailable`.
pub async fn snapshot(pool: &PgPool, actor: Uuid, thread: Uuid) -> Result<ThreadSnapshot, Refusal> {
    whole(pool, actor, thread, SNAPSHOT_MESSAGES).await
}

/// What replaces the user stream at a client that is too far behind.
///
/// # Errors
/// `not_found` for an unknown profile; `unavailable`.
pub async fn user_snapshot(pool: &PgPool, profile: Uuid) -> Result<UserSnapshot, Refusal> {
    let person = people(pool, &[profile]).await?.pop().ok_or_else(not_found)?;
    // Settings are read after the position: a change in between comes again as an update, which does no harm.
    let statement = sqlx::query(
        "SELECT jsonb_build_object('theme', theme, 'language', language, 'timezone', timezone, \
         'notifications', notifications, 'privacy', privacy, 'contentFilters', content_filters) \
         FROM user_settings WHERE user_id = $1",
    )
    .bind(profile);
    let rows = db::fetch(pool, "user_snapshot", statement).await?;
    let settings = match rows.first() {
        Some(row) => row.try_get(0).map_err(|error| db::refusal("user_snapshot", &error))?,
        None => json!({}),
    };
    let positions: Vec<ThreadPosition> = person.positions().collect();
    let first = person.threads.iter().map(|thread| &thread.row);
    let count = fitting_threads(first, PAGE_BYTES - json_bytes(&settings).min(PAGE_BYTES));
    let more = positions.len() > count;
    let threads: Vec<ThreadRow> = person.threads.into_iter().take(count).map(|thread| thread.row).collect();
    let next = threads.last().filter(|_| more).map(super::rows::cursor_after);
    let inbox = json!({"unseen": 0, "unread": 0});
    Ok(UserSnapshot { seq: person.user_seq, threads, positions, next, inbox, settings })
}

async fn whole(pool: &PgPool, actor: Uuid, thread: Uuid, limit: i64) -> Result<ThreadSnapshot, Refusal> {
    let found =
        db::in_snapshot(pool, "thread_open", move |connection| Box::pin(read_whole(connection, actor, thread, limit)));
    found.await?.ok_or_else(not_found)
}

async fn read_whole(
    connection: &mut PgConnection,
    actor: Uuid,
    thread: Uuid,
    limit: i64,
) -> Result<Option<ThreadSnapshot>, sqlx::Error> {
    let rows = sqlx::query(select_from!("member_rows($1, $2)"))
        .bind(vec![actor])
        .bind(vec![thread])
        .fetch_all(&mut *connection)
        .await?;
    let own = rows.first().map(membership).transpose()?;
    let Some(Membership { thread: own, has_left: false, .. }) = own else { return Ok(None) };
    let rows = sqlx::query(MEMBERS)
        .bind(actor)
        .bind(thread)
        .bind(None::<Uuid>)
        .bind(OPEN_MEMBERS)
        .fetch_all(&mut *connection)
        .await?;
    let mut members: Vec<ThreadMember> = rows.iter().map(member).collect::<Result<_, _>>()?;
    members.truncate(fitting(&members, OPEN_MEMBERS_BYTES));
    let page = Page { actor, thread, before: i64::MAX, below: limit, after: 0, above: 0 };
    let rows = page.statement().fetch_all(&mut *connection).await?;
    let mut messages: Vec<Message> = rows.iter().skip(1).map(|row| message(row, thread)).collect::<Result<_, _>>()?;
    messages.reverse();
    let taken = json_bytes(&members) + json_bytes(&own.row);
    cut(&mut messages, i64::MAX, PAGE_BYTES.saturating_sub(taken));
    let (seq, member_count) = (own.row.seq, own.row.member_count);
    Ok(Some(ThreadSnapshot { seq, thread: own.row, messages, members, member_count }))
}

/// Arguments of `engine.history`.
struct Page {
    actor: Uuid,
    thread: Uuid,
    before: i64,
    below: i64,
    after: i64,
    above: i64,
}

impl Page {
    fn statement(&self) -> db::Statement {
        sqlx::query(
            "SELECT id, no, seq, sender_id, content, media_url, media_type, type, reply_to_id, mentions, nonce, is_edited, \
             is_deleted, is_pinned, rev, sent_at, edited_at FROM engine.history($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.actor)
        .bind(self.thread)
        .bind(self.before)
        .bind(self.below as i32)
        .bind(self.after)
        .bind(self.above as i32)
        .bind(PAGE_BYTES as i32)
    }
}

fn message(row: &PgRow, thread_id: Uuid) -> Result<Message, sqlx::Error> {
    let is_deleted: bool = row.try_get(12)?;
    Ok(Message {
        id: row.try_get(0)?,
        thread_id,
        no: row.try_get(1)?,
        seq: row.try_get(2)?,
        sender_id: row.try_get(3)?,
        kind: message_type(row.try_get(7)?)?,
        content: if is_deleted { None } else { row.try_get(4)? },
        media_url: if is_deleted { None } else { row.try_get(5)? },
        media_type: if is_deleted { None } else { media_type(row.try_get(6)?)? },
        reply_to_id: row.try_get(8)?,
        mentions: if is_deleted { Vec::new() } else { row.try_get::<Option<_>, _>(9)?.unwrap_or_default() },
        nonce: row.try_get(10)?,
        is_edited: row.try_get(11)?,
        is_deleted,
        is_pinned: row.try_get(13)?,
        rev: row.try_get(14)?,
        sent_at: row.try_get::<DateTime<Utc>, _>(15)?.into(),
        edited_at: time(row, 16)?,
        reactions: Vec::new(),
    })
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "no such thread")
}
