//! What a change of threads or members did (`engine.change_row`): its outcome, and its updates rendered once.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::db;
use super::db::Stop;
use super::memberships::present_in;
use super::render_log::{UserData, kind_of, thread_update, user_update};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::time::Timestamp;
use crate::updates::{StreamId, Update, UpdateKind};

/// Runs a function that returns `engine.change_row`s.
macro_rules! select_changes {
    ($call:literal) => {
        concat!("SELECT code, stream, profile_id, seq, at, kind, data FROM engine.", $call)
    };
}
pub(super) use select_changes;

/// Outcome of a change.
#[derive(Debug)]
pub enum Outcome {
    /// Committed; updates in the order of their commit, thread stream before user streams.
    Done(Vec<Update>),
    /// All was already so.
    Noop,
    /// The DIRECT thread of this pair is this one.
    Exists(Uuid),
}

struct Change {
    stream: StreamId,
    seq: u64,
    at: Timestamp,
    kind: UpdateKind,
    data: serde_json::Value,
}

/// Runs a change inside the caller's transaction and renders what it will have done, so that nothing is left to read after
/// the commit.
///
/// # Errors
/// What the database function refused, in the words of `subject` (`invalid` names the field); those of the database.
pub async fn run(
    connection: &mut PgConnection,
    thread: Uuid,
    statement: db::Statement,
    subject: &'static str,
) -> Result<Outcome, Stop> {
    let rows = statement.fetch_all(&mut *connection).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        match row.try_get(0)? {
            "ok" => changes.push(parse(row, thread)?),
            "noop" => return Ok(Outcome::Noop),
            "exists" => return Ok(existing(row)?),
            refused => return Err(refusal(refused, subject, row.try_get(2)?).into()),
        }
    }
    Ok(Outcome::Done(render(connection, changes).await?))
}

async fn render(connection: &mut PgConnection, changes: Vec<Change>) -> Result<Vec<Update>, sqlx::Error> {
    let data_of = |change: &Change| {
        serde_json::from_value::<UserData>(change.data.clone()).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    let mut pairs = Vec::new();
    for change in changes.iter().filter(|change| change.kind == UpdateKind::ThreadAdded) {
        pairs.push((change.stream.uuid(), data_of(change)?.thread_id));
    }
    // One call for all who were let in.
    let found = present_in(connection, &pairs).await?;
    let mut updates = Vec::with_capacity(changes.len());
    for change in changes {
        let update = match change.stream {
            StreamId::User(profile) => {
                let data = data_of(&change)?;
                let membership = found.get(&(profile, data.thread_id));
                user_update(profile, change.seq, change.kind, change.at, &data, membership)
            }
            stream => thread_update(stream, change.seq, change.kind, change.at, change.data)?,
        };
        updates.push(update);
    }
    Ok(updates)
}

fn parse(row: &PgRow, thread: Uuid) -> Result<Change, sqlx::Error> {
    let stream = match row.try_get::<Option<Uuid>, _>(2)? {
        Some(profile) => StreamId::User(profile),
        None => StreamId::Thread(thread),
    };
    Ok(Change {
        stream,
        seq: row.try_get::<i64, _>(3)? as u64,
        at: Timestamp(row.try_get::<DateTime<Utc>, _>(4)?),
        kind: kind_of(row.try_get(5)?)?,
        data: row.try_get(6)?,
    })
}

fn existing(row: &PgRow) -> Result<Outcome, sqlx::Error> {
    let sqlx::types::Json(data): sqlx::types::Json<UserData> = row.try_get(6)?;
    Ok(Outcome::Exists(data.thread_id))
}

/// `profile`: whom it is about, where it is about one person.
fn refusal(code: &str, subject: &'static str, profile: Option<Uuid>) -> Refusal {
    let who = profile.map(|id| id.to_string()).unwrap_or_default();
    match code {
        "not_found" => Refusal::new(ErrorCode::NotFound, "no such thread or member"),
        "forbidden" => Refusal::new(ErrorCode::Forbidden, "this account may not do that here"),
        "thread_archived" => Refusal::new(ErrorCode::ThreadArchived, "the thread is archived"),
        "too_large" => Refusal::new(ErrorCode::TooLarge, format!("{subject}: the thread would have too many members")),
        "invalid" => Refusal::new(ErrorCode::NotFound, format!("{subject}: no such person")),
        "blocked" => Refusal::new(ErrorCode::Blocked, format!("{who} does not take messages from this account")),
        "many_threads" => Refusal::new(
            ErrorCode::TooLarge,
            format!("{subject}: {who} is in as many threads as a person may be in (HAUS_THREADS_PER_PROFILE)"),
        ),
        "invalid_house" => Refusal::new(ErrorCode::NotFound, "houseId: no such house"),
        "conflict" => Refusal::new(ErrorCode::Conflict, "this house has its thread already"),
        other => {
            tracing::error!(code = other, "a code of the database that nothing here knows");
            Refusal::new(ErrorCode::Internal, "the change was refused")
        }
    }
}
