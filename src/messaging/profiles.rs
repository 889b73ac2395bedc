//! People as others see them (`profiles.get`). Privacy by setting comes with the profile pages; nothing here is private.

use chrono::{DateTime, Utc};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::db;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{Profile, UserRole, UserStatus};

/// Most profiles of one call.
pub const PROFILES: usize = 100;

/// Profiles by id, in no order; unknown ids are left out.
///
/// # Errors
/// `invalid` above [`PROFILES`]; `unavailable`.
pub async fn profiles(pool: &PgPool, ids: &[Uuid]) -> Result<Vec<Profile>, Refusal> {
    if ids.len() > PROFILES {
        return Err(Refusal::new(ErrorCode::Invalid, format!("ids: at most {PROFILES}")));
    }
    let statement = sqlx::query(
        "SELECT id, display_name, pronouns, bio, avatar, cover_image, ballroom_name, role::text, status::text, house_id, \
         social_links, created_at FROM profiles WHERE id = ANY ($1)",
    )
    .bind(ids.to_vec());
    let rows = db::fetch(pool, "profiles", statement).await?;
    rows.iter().map(profile).collect::<Result<_, _>>().map_err(|error| db::refusal("profiles", &error))
}

fn profile(row: &PgRow) -> Result<Profile, sqlx::Error> {
    let (role, status): (&str, &str) = (row.try_get(7)?, row.try_get(8)?);
    Ok(Profile {
        id: row.try_get(0)?,
        display_name: row.try_get(1)?,
        pronouns: row.try_get(2)?,
        bio: row.try_get(3)?,
        avatar: row.try_get(4)?,
        cover_image: row.try_get(5)?,
        ballroom_name: row.try_get(6)?,
        role: UserRole::parse(role).ok_or_else(|| db::unknown("role", role))?,
        status: UserStatus::parse(status).ok_or_else(|| db::unknown("status", status))?,
        house_id: row.try_get(9)?,
        social_links: compact(row.try_get(10)?)?,
        created_at: row.try_get::<DateTime<Utc>, _>(11)?.into(),
    })
}

/// The database writes JSON with spaces; the wire has none.
fn compact(value: Option<serde_json::Value>) -> Result<Option<Box<RawValue>>, sqlx::Error> {
    value.map(|value| to_raw_value(&value)).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}
