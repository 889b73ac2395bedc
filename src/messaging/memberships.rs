//! Memberships by pair of person and thread, on a connection of their own or inside a transaction.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::db;
use super::rows::{MemberThread, Membership, membership, select_from};
use crate::protocol::codes::Refusal;

/// One thread as an active member sees it; `None` for everybody else.
///
/// # Errors
/// `unavailable`.
pub async fn thread_row(pool: &PgPool, profile: Uuid, thread: Uuid) -> Result<Option<MemberThread>, Refusal> {
    let rows = db::fetch(pool, "memberships", memberships_of(&[(profile, thread)])).await?;
    parsed(&rows).map(present_one).map_err(|error| db::refusal("memberships", &error))
}

/// [`thread_row`] inside a transaction.
///
/// # Errors
/// Those of the database.
pub(super) async fn thread_row_in(
    connection: &mut PgConnection,
    profile: Uuid,
    thread: Uuid,
) -> Result<Option<MemberThread>, sqlx::Error> {
    let rows = memberships_of(&[(profile, thread)]).fetch_all(connection).await?;
    parsed(&rows).map(present_one)
}

fn present_one(found: Vec<Membership>) -> Option<MemberThread> {
    found.into_iter().find(|membership| !membership.has_left).map(|membership| membership.thread)
}

/// Memberships of pairs (profile, thread), ended ones included; pairs that never were one are left out.
///
/// # Errors
/// `unavailable`.
pub async fn memberships(pool: &PgPool, pairs: &[(Uuid, Uuid)]) -> Result<Vec<Membership>, Refusal> {
    let rows = db::fetch(pool, "memberships", memberships_of(pairs)).await?;
    parsed(&rows).map_err(|error| db::refusal("memberships", &error))
}

/// [`memberships`] inside a transaction.
///
/// # Errors
/// Those of the database.
pub(super) async fn memberships_in(
    connection: &mut PgConnection,
    pairs: &[(Uuid, Uuid)],
) -> Result<Vec<Membership>, sqlx::Error> {
    parsed(&memberships_of(pairs).fetch_all(connection).await?)
}

fn memberships_of(pairs: &[(Uuid, Uuid)]) -> db::Statement {
    let (profiles, threads): (Vec<Uuid>, Vec<Uuid>) = pairs.iter().copied().unzip();
    sqlx::query(select_from!("member_rows($1, $2)")).bind(profiles).bind(threads)
}

fn parsed(rows: &[PgRow]) -> Result<Vec<Membership>, sqlx::Error> {
    rows.iter().map(membership).collect()
}

/// Memberships by pair; no call where there is nothing to ask.
pub(super) async fn present(
    pool: &PgPool,
    pairs: &[(Uuid, Uuid)],
) -> Result<HashMap<(Uuid, Uuid), Membership>, Refusal> {
    if pairs.is_empty() {
        return Ok(HashMap::new());
    }
    Ok(by_pair(memberships(pool, pairs).await?))
}

/// [`present`] inside a transaction.
pub(super) async fn present_in(
    connection: &mut PgConnection,
    pairs: &[(Uuid, Uuid)],
) -> Result<HashMap<(Uuid, Uuid), Membership>, sqlx::Error> {
    match pairs.is_empty() {
        true => Ok(HashMap::new()),
        false => Ok(by_pair(memberships_in(connection, pairs).await?)),
    }
}

fn by_pair(found: Vec<Membership>) -> HashMap<(Uuid, Uuid), Membership> {
    found.into_iter().map(|membership| ((membership.profile_id, membership.thread.row.id), membership)).collect()
}
