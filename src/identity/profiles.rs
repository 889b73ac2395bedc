//! Profiles: how one reads oneself and others, and what one may change of oneself. Follows, houses and search are not
//! here.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Identity, IdentityError, Subject, reading};
use crate::protocol::types::{Profile, UserRole, UserStatus};

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
    /// `privacy.profile` of the settings; `public` where there are none.
    privacy: String,
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
            status: self.status,
            house_id: self.house_id,
            social_links: self.social_links.and_then(|text| RawValue::from_string(text).ok()),
            created_at: self.created_at.into(),
        }
    }

    /// As `reader` may see it.
    fn seen_by(self, reader: &Subject) -> Profile {
        if is_open(reader, self.id, &self.privacy) { self.whole() } else { self.closed() }
    }

    /// What somebody sees for whom the profile is closed: who it is, nothing about them.
    fn closed(self) -> Profile {
        Profile { pronouns: None, bio: None, cover_image: None, house_id: None, social_links: None, ..self.whole() }
    }
}

impl Identity {
    /// The profile `id` as `reader` may see it: `privacy.profile` is `public`, `members` (ACTIVE people) or narrower.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn profile(&self, reader: &Subject, id: Uuid) -> Result<Profile, IdentityError> {
        let row = reading(self.profile_row(id)).await?.ok_or(IdentityError::NotFound("no such profile"))?;
        Ok(row.seen_by(reader))
    }

    /// The profiles of these ids as `reader` may see them, in this order; those that do not exist are left out.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn profiles_in_order(&self, reader: &Subject, ids: &[Uuid]) -> Result<Vec<Profile>, IdentityError> {
        let statement = sqlx::query_as::<_, ProfileRow>(PROFILES).bind(ids);
        let rows = reading(statement.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(|row| row.seen_by(reader)).collect())
    }

    /// Changes one's own profile and returns it.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn change_profile(&self, id: Uuid, change: ProfileChange) -> Result<Profile, IdentityError> {
        let pool = self.pool.clone();
        self.shielded(async move {
            sqlx::query(
                "UPDATE profiles SET
                     display_name = coalesce($2, display_name),
                     pronouns = CASE WHEN $3 THEN $4 ELSE pronouns END,
                     bio = CASE WHEN $5 THEN $6 ELSE bio END,
                     ballroom_name = CASE WHEN $7 THEN $8 ELSE ballroom_name END,
                     social_links = CASE WHEN $9 THEN $10::text::jsonb ELSE social_links END
                 WHERE id = $1",
            )
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
            .execute(&pool)
            .await?;
            Ok(())
        })
        .await?;
        self.people.forget_profile(id);
        reading(self.profile_row(id)).await?.map(ProfileRow::whole).ok_or(IdentityError::NotFound("no such profile"))
    }

    pub(super) async fn profile_row(&self, id: Uuid) -> Result<Option<ProfileRow>, sqlx::Error> {
        sqlx::query_as(PROFILE).bind(id).fetch_optional(&self.pool).await
    }
}

/// Whether `reader` sees the whole of the profile `id` with this `privacy.profile`.
pub(super) fn is_open(reader: &Subject, id: Uuid, privacy: &str) -> bool {
    reader.profile_id == id
        || reader.standing.role == UserRole::Admin
        || match privacy {
            "public" => true,
            "members" => reader.standing.status == UserStatus::Active,
            _ => false,
        }
}

macro_rules! profile_rows {
    ($from:literal) => {
        concat!(
            "SELECT p.id, p.display_name, p.pronouns, p.bio, p.avatar, p.cover_image, p.ballroom_name, p.role, p.status,
                    p.house_id, p.social_links::text AS social_links, p.created_at,
                    coalesce(s.privacy ->> 'profile', 'public') AS privacy
             FROM profiles p LEFT JOIN user_settings s ON s.user_id = p.id ",
            $from
        )
    };
}

const PROFILE: &str = profile_rows!("WHERE p.id = $1");
const PROFILES: &str =
    profile_rows!("JOIN unnest($1::uuid[]) WITH ORDINALITY AS w (id, place) ON w.id = p.id ORDER BY w.place");
