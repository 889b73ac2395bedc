//! Members of threads: let in, end a stay, change role or nickname. Who may is judged in the database, under the thread's
//! row lock.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use utoipa::openapi::schema::Object;
use uuid::Uuid;

use super::Committed;
use super::changes::{Outcome, run, select_changes};
use super::db::{self, Stop};
use super::threads::{MEMBERS_PER_CALL, get_in, named};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{ThreadMember, ThreadRole, ThreadRow};
use crate::text::{self, schema};
use crate::updates::{Update, UpdateKind};

/// Most members of one thread (`threads.maxMembers`).
pub const MOST_MEMBERS: i32 = 10_000;
/// Longest nickname, characters.
pub const NICKNAME_CHARS: usize = 50;
/// Columns of [`member`], in its order.
pub(super) const MEMBERS: &str =
    "SELECT profile_id, display_name, avatar, role, nickname, joined_at FROM engine.members($1, $2, $3, $4)";

/// Body of `PATCH …/members/{profileId}`; null clears the nickname.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberPatch {
    pub role: Option<ThreadRole>,
    #[serde(default, deserialize_with = "named")]
    #[schema(schema_with = nickname)]
    pub nickname: Option<Option<String>>,
}

fn nickname() -> Object {
    schema::clearable(schema::line(NICKNAME_CHARS))
}

/// Answer of [`add`].
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MembersAdded {
    /// Who was let in; those already in are not named.
    pub added: Vec<Uuid>,
    pub thread: ThreadRow,
}

/// Lets people into a GROUP or ANNOUNCE thread (its ADMINs). Each gets `thread.added` in the user stream. Runs inside the
/// caller's transaction.
///
/// # Errors
/// `invalid` names the field; `too_large` above [`MOST_MEMBERS`], and where somebody would be in more than
/// `most_threads`; `blocked` where somebody's `privacy.messages` says no; `not_found`, `forbidden`, `thread_archived`.
pub async fn add(
    connection: &mut PgConnection,
    actor: Uuid,
    thread: Uuid,
    profiles: Vec<Uuid>,
    most_threads: i32,
) -> Result<Committed<MembersAdded>, Stop> {
    if profiles.is_empty() || profiles.len() > MEMBERS_PER_CALL {
        let text = format!("profileIds: 1 to {MEMBERS_PER_CALL} people in one call");
        return Err(Refusal::new(ErrorCode::Invalid, text).into());
    }
    let statement = sqlx::query(select_changes!("add_members($1, $2, $3, $4, $5)"))
        .bind(thread)
        .bind(actor)
        .bind(profiles)
        .bind(MOST_MEMBERS)
        .bind(most_threads);
    let updates = done(run(connection, thread, statement, "profileIds").await?);
    let added = updates
        .iter()
        .filter(|update| update.kind == UpdateKind::ThreadAdded)
        .map(|update| update.stream.uuid())
        .collect();
    let thread = get_in(connection, actor, thread).await?.row;
    Ok(Committed { value: MembersAdded { added, thread }, updates })
}

/// Ends a stay: oneself leaves, an ADMIN removes another. Where the last ADMIN goes, an ACTIVE member becomes one
/// first. Runs inside the caller's transaction.
///
/// # Errors
/// `not_found`, `forbidden` (DIRECT and HOUSE threads, others' stays).
pub async fn remove(
    connection: &mut PgConnection,
    actor: Uuid,
    thread: Uuid,
    profile: Uuid,
) -> Result<Committed<()>, Stop> {
    let statement = sqlx::query(select_changes!("remove_member($1, $2, $3)")).bind(thread).bind(actor).bind(profile);
    let updates = done(run(connection, thread, statement, "profileId").await?);
    Ok(Committed { value: (), updates })
}

/// Changes the role (ADMINs, not their own) or the nickname (oneself or ADMINs) of a member. Runs
/// inside the caller's transaction.
///
/// # Errors
/// `invalid` names the field; `not_found`, `forbidden`.
pub async fn change(
    connection: &mut PgConnection,
    actor: Uuid,
    thread: Uuid,
    profile: Uuid,
    patch: MemberPatch,
) -> Result<Committed<ThreadMember>, Stop> {
    let nickname = match patch.nickname {
        None => None,
        Some(None) => Some(String::new()),
        Some(Some(text)) => Some(checked_nickname(&text)?),
    };
    let statement = sqlx::query(select_changes!("change_member($1, $2, $3, $4, $5)"))
        .bind(thread)
        .bind(actor)
        .bind(profile)
        .bind(patch.role.map(ThreadRole::as_str))
        .bind(nickname);
    let updates = done(run(connection, thread, statement, "profileId").await?);
    let value = one(connection, actor, thread, profile).await?;
    Ok(Committed { value, updates })
}

/// One member, for another one of the same thread.
///
/// # Errors
/// `not_found`.
pub async fn one(
    connection: &mut PgConnection,
    actor: Uuid,
    thread: Uuid,
    profile: Uuid,
) -> Result<ThreadMember, Stop> {
    let statement = sqlx::query(MEMBERS).bind(actor).bind(thread).bind(Some(profile)).bind(1_i32);
    match statement.fetch_optional(connection).await? {
        Some(row) => Ok(member(&row)?),
        None => Err(Refusal::new(ErrorCode::NotFound, "no such thread or member").into()),
    }
}

pub(super) fn member(row: &PgRow) -> Result<ThreadMember, sqlx::Error> {
    let role: &str = row.try_get(3)?;
    Ok(ThreadMember {
        profile_id: row.try_get(0)?,
        display_name: row.try_get(1)?,
        avatar: row.try_get(2)?,
        role: ThreadRole::parse(role).ok_or_else(|| db::unknown("role", role))?,
        nickname: row.try_get(4)?,
        joined_at: row.try_get::<DateTime<Utc>, _>(5)?.into(),
    })
}

fn done(outcome: Outcome) -> Vec<Update> {
    match outcome {
        Outcome::Done(updates) => updates,
        Outcome::Noop | Outcome::Exists(_) => Vec::new(),
    }
}

fn checked_nickname(text: &str) -> Result<String, Refusal> {
    text::line(text, NICKNAME_CHARS).map_err(|fault| fault.of("nickname"))
}
