//! Members of threads: let in, end a stay, change role or nickname. Who may is judged in the database, under the thread's
//! row lock.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::Committed;
use super::changes::{Outcome, run, select_changes};
use super::db;
use super::threads::{MEMBERS_PER_CALL, get, named};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{ThreadMember, ThreadRole, ThreadRow};
use crate::text;
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
    #[schema(value_type = Option<String>)]
    pub nickname: Option<Option<String>>,
}

/// Answer of [`add`].
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MembersAdded {
    /// Who was let in; those already in are not named.
    pub added: Vec<Uuid>,
    pub thread: ThreadRow,
}

/// Lets people into a GROUP or ANNOUNCE thread (its ADMINs). Each gets `thread.added` in the user stream.
///
/// # Errors
/// `invalid` names the field; `too_large` above [`MOST_MEMBERS`]; `not_found`, `forbidden`, `thread_archived`,
/// `unavailable`.
pub async fn add(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    profiles: Vec<Uuid>,
) -> Result<Committed<MembersAdded>, Refusal> {
    if profiles.is_empty() || profiles.len() > MEMBERS_PER_CALL {
        return Err(Refusal::new(
            ErrorCode::Invalid,
            format!("profileIds: 1 to {MEMBERS_PER_CALL} people in one call"),
        ));
    }
    let statement = sqlx::query(select_changes!("add_members($1, $2, $3, $4)"))
        .bind(thread)
        .bind(actor)
        .bind(profiles)
        .bind(MOST_MEMBERS);
    let updates = done(run(pool, "members_add", thread, statement, "profileIds").await?);
    let added = updates
        .iter()
        .filter(|update| update.kind == UpdateKind::ThreadAdded)
        .map(|update| update.stream.uuid())
        .collect();
    let thread = get(pool, actor, thread).await?.row;
    Ok(Committed { value: MembersAdded { added, thread }, updates })
}

/// Ends a stay: oneself leaves, an ADMIN removes another. Where the last ADMIN goes, another member becomes one first.
///
/// # Errors
/// `not_found`, `forbidden` (DIRECT and HOUSE threads, others' stays), `unavailable`.
pub async fn remove(pool: &PgPool, actor: Uuid, thread: Uuid, profile: Uuid) -> Result<Committed<()>, Refusal> {
    let statement = sqlx::query(select_changes!("remove_member($1, $2, $3)")).bind(thread).bind(actor).bind(profile);
    let updates = done(run(pool, "member_remove", thread, statement, "profileId").await?);
    Ok(Committed { value: (), updates })
}

/// Changes the role (ADMINs, not their own) or the nickname (oneself or ADMINs) of a member.
///
/// # Errors
/// `invalid` names the field; `not_found`, `forbidden`, `unavailable`.
pub async fn change(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    profile: Uuid,
    patch: MemberPatch,
) -> Result<Committed<ThreadMember>, Refusal> {
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
    let updates = done(run(pool, "member_change", thread, statement, "profileId").await?);
    let value = one(pool, actor, thread, profile).await?;
    Ok(Committed { value, updates })
}

/// One member, for another one of the same thread.
///
/// # Errors
/// `not_found`, `unavailable`.
pub async fn one(pool: &PgPool, actor: Uuid, thread: Uuid, profile: Uuid) -> Result<ThreadMember, Refusal> {
    let statement = sqlx::query(MEMBERS).bind(actor).bind(thread).bind(Some(profile)).bind(1_i32);
    let rows = db::fetch(pool, "member", statement).await?;
    let Some(row) = rows.first() else { return Err(Refusal::new(ErrorCode::NotFound, "no such thread or member")) };
    member(row).map_err(|error| db::refusal("member", &error))
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
