//! Threads: make, look at, change. Members are in `members`, messages in `send` and `history`.

use serde::{Deserialize, Deserializer, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::changes::{Outcome, run, select_changes};
use super::db::Stop;
use super::memberships::{thread_row, thread_row_in};
use super::rows::MemberThread;
use super::{Committed, schemas};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{ThreadRow, ThreadType};
use crate::text;

/// Longest name, characters.
pub const NAME_CHARS: usize = 100;
/// Longest description, characters.
pub const DESCRIPTION_CHARS: usize = 500;
/// Longest avatar address, bytes.
pub const AVATAR_BYTES: usize = 2048;
/// Most people one call lets in.
pub const MEMBERS_PER_CALL: usize = 256;
/// Slowest slow mode, seconds.
pub const SLOW_MODE_S: i32 = 21_600;

/// Body of `POST /v1/threads`; its schema is in `schemas`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewThread {
    #[serde(rename = "type")]
    pub kind: ThreadType,
    /// Besides the creator; for DIRECT exactly one other person.
    #[serde(default)]
    pub member_ids: Vec<Uuid>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub house_id: Option<Uuid>,
}

/// Body of `PATCH /v1/threads/{id}`: only what is named changes; null clears `description` and `avatar`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThreadPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::thread_name_or_null)]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::thread_description)]
    pub description: Option<Option<String>>,
    #[serde(default, deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::avatar)]
    pub avatar: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_muted: Option<bool>,
    /// 0 ends slow mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::slow_mode)]
    pub slow_mode_s: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_for_newcomers: Option<bool>,
}

/// A field that is there, null or not; `default` stands for one that is not.
pub(super) fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(input).map(Some)
}

/// Answer of [`create`].
#[derive(Debug, Clone)]
pub struct CreatedThread {
    pub thread: ThreadRow,
    /// `false`: the DIRECT thread of this pair was there already.
    pub is_new: bool,
}

/// Makes a thread; the creator becomes its ADMIN (in a DIRECT thread nobody is). Two people have one DIRECT thread for
/// ever, however many ask at once. Nobody comes to be in more than `most_threads`. Runs inside the caller's transaction.
///
/// # Errors
/// `invalid` names the field; `forbidden` where status or role do not allow this type; `blocked` where somebody's
/// `privacy.messages` does not; `too_large` where somebody is in too many threads; `conflict` for a second HOUSE thread
/// of a house.
pub async fn create(
    connection: &mut PgConnection,
    actor: Uuid,
    new: NewThread,
    most_threads: i32,
) -> Result<Committed<CreatedThread>, Stop> {
    let members = checked_members(actor, &new)?;
    let name = match new.kind {
        ThreadType::Direct => None,
        _ => Some(checked_name(new.name.as_deref().unwrap_or_default())?),
    };
    let description = new.description.as_deref().map(checked_description).transpose()?;
    match (new.kind, new.house_id) {
        (ThreadType::House, None) => return Ok(invalid("houseId: a HOUSE thread belongs to a house")?),
        (ThreadType::Direct | ThreadType::Group, Some(_)) => {
            return Ok(invalid("houseId: only for HOUSE and ANNOUNCE")?);
        }
        _ => {}
    }
    let direct_key = match (new.kind, members.iter().find(|member| **member != actor)) {
        (ThreadType::Direct, Some(other)) => Some(direct_key(actor, *other)),
        _ => None,
    };
    let id = Uuid::now_v7();
    let statement = sqlx::query(select_changes!("create_thread($1, $2, $3, $4, $5, $6, $7, $8, $9)"))
        .bind(id)
        .bind(new.kind.as_str())
        .bind(name)
        .bind(description)
        .bind(new.house_id)
        .bind(actor)
        .bind(members)
        .bind(direct_key)
        .bind(most_threads);
    match run(connection, id, statement, "memberIds").await? {
        Outcome::Done(updates) => {
            let thread = get_in(connection, actor, id).await?.row;
            Ok(Committed { value: CreatedThread { thread, is_new: true }, updates })
        }
        Outcome::Exists(found) => {
            let thread = get_in(connection, actor, found).await?.row;
            Ok(Committed { value: CreatedThread { thread, is_new: false }, updates: Vec::new() })
        }
        Outcome::Noop => Err(Refusal::new(ErrorCode::Internal, "nothing was made").into()),
    }
}

/// One thread as its member sees it.
///
/// # Errors
/// `not_found` for everybody else; `unavailable`.
pub async fn get(pool: &PgPool, actor: Uuid, thread: Uuid) -> Result<MemberThread, Refusal> {
    thread_row(pool, actor, thread).await?.ok_or_else(unknown)
}

/// [`get`] inside a transaction.
pub(super) async fn get_in(connection: &mut PgConnection, actor: Uuid, thread: Uuid) -> Result<MemberThread, Stop> {
    Ok(thread_row_in(connection, actor, thread).await?.ok_or_else(unknown)?)
}

fn unknown() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "no such thread")
}

/// Changes a thread (its ADMINs; never a DIRECT one). A patch that changes nothing makes no update.
/// Runs inside the caller's transaction.
///
/// # Errors
/// `invalid` names the field; `not_found`, `forbidden`.
pub async fn patch(
    connection: &mut PgConnection,
    actor: Uuid,
    thread: Uuid,
    mut patch: ThreadPatch,
) -> Result<Committed<ThreadRow>, Stop> {
    if let Some(name) = &patch.name {
        patch.name = Some(checked_name(name)?);
    }
    if let Some(Some(text)) = &patch.description {
        patch.description = Some(Some(checked_description(text)?));
    }
    if let Some(Some(url)) = &patch.avatar {
        patch.avatar = Some(Some(text::link(url, AVATAR_BYTES).map_err(|fault| fault.of("avatar"))?));
    }
    if patch.slow_mode_s.is_some_and(|seconds| !(0..=SLOW_MODE_S).contains(&seconds)) {
        return Ok(invalid("slowModeS: 0 to 21600")?);
    }
    let statement = sqlx::query(select_changes!("change_thread($1, $2, $3)"))
        .bind(thread)
        .bind(actor)
        .bind(sqlx::types::Json(patch));
    let updates = match run(connection, thread, statement, "thread").await? {
        Outcome::Done(updates) => updates,
        Outcome::Noop | Outcome::Exists(_) => Vec::new(),
    };
    Ok(Committed { value: get_in(connection, actor, thread).await?.row, updates })
}

/// The creator and the others, each once.
fn checked_members(actor: Uuid, new: &NewThread) -> Result<Vec<Uuid>, Refusal> {
    let mut others: Vec<Uuid> = new.member_ids.iter().copied().filter(|id| *id != actor).collect();
    others.sort_unstable();
    others.dedup();
    if new.kind == ThreadType::Direct && others.len() != 1 {
        return invalid("memberIds: a DIRECT thread has exactly one other person");
    }
    if others.len() >= MEMBERS_PER_CALL {
        return invalid("memberIds: at most 256 members in one call, the creator included");
    }
    others.insert(0, actor);
    Ok(others)
}

/// What makes a pair find its one thread again: the smaller id first.
fn direct_key(one: Uuid, other: Uuid) -> String {
    format!("{}:{}", one.min(other), one.max(other))
}

fn checked_name(name: &str) -> Result<String, Refusal> {
    text::name(name, NAME_CHARS).map_err(|fault| fault.of("name"))
}

fn checked_description(description: &str) -> Result<String, Refusal> {
    text::paragraph(description, DESCRIPTION_CHARS).map_err(|fault| fault.of("description"))
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(ErrorCode::Invalid, text))
}

#[cfg(test)]
mod tests {
    use super::{NewThread, ThreadPatch, checked_members, checked_name, direct_key};
    use crate::protocol::types::ThreadType;
    use uuid::Uuid;

    fn new(kind: ThreadType, member_ids: Vec<Uuid>) -> NewThread {
        NewThread { kind, member_ids, name: None, description: None, house_id: None }
    }

    #[test]
    fn a_pair_has_one_key() {
        let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
        assert_eq!(direct_key(a, b), direct_key(b, a));
    }

    #[test]
    fn members_are_counted_once() {
        let (me, other) = (Uuid::now_v7(), Uuid::now_v7());
        let direct = |ids| checked_members(me, &new(ThreadType::Direct, ids));
        assert_eq!(direct(vec![other, me, other]).expect("a pair"), vec![me, other]);
        assert!(direct(vec![me]).is_err());
        assert!(direct(vec![other, Uuid::now_v7()]).is_err());
        let many = (0..256).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
        assert!(checked_members(me, &new(ThreadType::Group, many[..255].to_vec())).is_ok());
        assert!(checked_members(me, &new(ThreadType::Group, many)).is_err());
    }

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(checked_name("  x ").expect("a name"), "x");
        assert!(checked_name("   ").is_err());
        assert!(checked_name(&"ü".repeat(100)).is_ok());
        assert!(checked_name(&"ü".repeat(101)).is_err());
    }

    #[test]
    fn a_patch_tells_null_from_absent() {
        let patch: ThreadPatch = serde_json::from_str(r#"{"description":null,"slowModeS":3}"#).expect("a patch");
        let json = serde_json::to_string(&patch).expect("serialises");
        assert_eq!(json, r#"{"description":null,"slowModeS":3}"#);
    }
}
