//! Profiles: how one reads oneself and others, and what one may change of oneself. Follows, houses and search are not
//! here.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Identity, IdentityError, reading};
use crate::protocol::types::{Profile, UserRole, UserStatus};

/// Most profiles of one `profiles.get`.
pub const PROFILES: usize = 100;

/// A change of one's own profile: the outer `None` leaves a field, the inner one clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileChange {
    pub display_name: Option<String>,
    pub pronouns: Option<Option<String>>,
    pub bio: Option<Option<String>>,
    pub ballroom_name: Option<Option<String>>,
    /// JSON object of network name → address, as text.
    pub social_links: Option<Option<String>>,
}

/// A profile as the database holds it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ProfileRow {
    id: Uuid,
    display_name: String,
    pronouns: Option<String>,
    bio: Option<String>,
    avatar: Option<String>,
    cover_image: Option<String>,
    ballroom_name: Option<String>,
    role: UserRole,
    status: UserStatus,
    house_id: Option<Uuid>,
    social_links: Option<String>,
    created_at: DateTime<Utc>,
    /// What `engine.is_open` says for the reader.
    is_open: bool,
}

impl ProfileRow {
    /// Everything, as its owner sees it.
    pub(super) fn whole(self) -> Profile {
        Profile {
            id: self.id,
            display_name: self.display_name,
            pronouns: self.pronouns,
            bio: self.bio,
            avatar: self.avatar,
            cover_image: self.cover_image,
            ballroom_name: self.ballroom_name,
            role: self.role,
            status: Some(self.status),
            house_id: self.house_id,
            social_links: self.social_links.and_then(|text| RawValue::from_string(text).ok()),
            created_at: self.created_at.into(),
        }
    }

    /// What somebody sees for whom the profile is closed: who it is, nothing about them.
    fn closed(self) -> Profile {
        Profile {
            pronouns: None,
            bio: None,
            cover_image: None,
            house_id: None,
            social_links: None,
            status: None,
            ..self.whole()
        }
    }

    /// As far as the reader named in the query may see it.
    fn seen(self) -> Profile {
        if self.is_open { self.whole() } else { self.closed() }
    }
}

impl Identity {
    /// The profiles `ids` as `reader` may see them, in this order; unknown ids are left out. The one reader of profiles, for
    /// requests and sockets.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn profiles(&self, reader: Uuid, ids: &[Uuid]) -> Result<Vec<Profile>, IdentityError> {
        let query = sqlx::query_as(PROFILE_ROWS).bind(reader).bind(ids).fetch_all(&self.pool);
        let rows: Vec<ProfileRow> = reading(query).await?;
        Ok(rows.into_iter().map(ProfileRow::seen).collect())
    }

    /// [`Identity::profiles`] of one.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn profile(&self, reader: Uuid, id: Uuid) -> Result<Profile, IdentityError> {
        self.profiles(reader, &[id]).await?.pop().ok_or(IdentityError::NotFound("no such profile"))
    }

    /// Changes one's own profile and returns it.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn change_profile(&self, id: Uuid, change: ProfileChange) -> Result<Profile, IdentityError> {
        let pool = self.pool.clone();
        let row: Option<ProfileRow> = self
            .shielded(async move {
                let query = sqlx::query_as(CHANGE_PROFILE)
                    .bind(id)
                    .bind(change.display_name)
                    .bind(change.pronouns.is_some())
                    .bind(change.pronouns.flatten())
                    .bind(change.bio.is_some())
                    .bind(change.bio.flatten())
                    .bind(change.ballroom_name.is_some())
                    .bind(change.ballroom_name.flatten())
                    .bind(change.social_links.is_some())
                    .bind(change.social_links.flatten())
                    .fetch_optional(&pool);
                Ok(query.await?)
            })
            .await?;
        self.people.forget_profile(id);
        row.map(ProfileRow::whole).ok_or(IdentityError::NotFound("no such profile"))
    }
}

/// One's own profile inside a transaction.
pub(super) async fn own(connection: &mut PgConnection, id: Uuid) -> Result<Profile, IdentityError> {
    let row: Option<ProfileRow> =
        sqlx::query_as(PROFILE_ROWS).bind(id).bind(vec![id]).fetch_optional(connection).await?;
    row.map(ProfileRow::whole).ok_or(IdentityError::NotFound("no such profile"))
}

/// Columns of [`ProfileRow`] of a profile `p` for a reader, `$1`.
macro_rules! select_profile {
    ($from:literal) => {
        concat!(
            "SELECT p.id, p.display_name, p.pronouns, p.bio, p.avatar, p.cover_image, p.ballroom_name, p.role,
                    engine.standing(p.status, p.role, p.suspended_until) AS status,
                    p.house_id, p.social_links::text AS social_links, p.created_at,
                    engine.is_open($1, r.role, engine.standing(r.status, r.role, r.suspended_until), p.id, s.privacy,
                                   engine.are_apart($1, o.blocked_users, p.id, s.blocked_users)) AS is_open
             FROM ",
            $from,
            " p LEFT JOIN user_settings s ON s.user_id = p.id
              LEFT JOIN profiles r ON r.id = $1 LEFT JOIN user_settings o ON o.user_id = $1"
        )
    };
}

const PROFILE_ROWS: &str = concat!(
    select_profile!("profiles"),
    " JOIN unnest($2::uuid[]) WITH ORDINALITY AS w (id, place) ON w.id = p.id ORDER BY w.place"
);

/// The change and what it made, in one statement: nothing is read after the commit.
const CHANGE_PROFILE: &str = concat!(
    "WITH changed AS (
         UPDATE profiles SET
             display_name = coalesce($2, display_name),
             pronouns = CASE WHEN $3 THEN $4 ELSE pronouns END,
             bio = CASE WHEN $5 THEN $6 ELSE bio END,
             ballroom_name = CASE WHEN $7 THEN $8 ELSE ballroom_name END,
             social_links = CASE WHEN $9 THEN $10::text::jsonb ELSE social_links END
         WHERE id = $1 RETURNING *) ",
    select_profile!("changed")
);
