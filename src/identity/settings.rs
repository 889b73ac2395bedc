//! Settings of a person: read whole; `privacy` is what one may change so far. What `privacy.messages` means is in
//! `engine.consents`, what `privacy.profile` means in `profiles`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Identity, IdentityError, reading};

/// Who sees a profile or its posts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    #[default]
    Public,
    Members,
    Followers,
    Private,
}

/// Who may open a DIRECT thread with one, or put one into a GROUP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessagesFrom {
    #[default]
    Public,
    /// Who shares a house
    Friends,
    /// Nobody can follow yet, so it is as `nobody`
    Followers,
    Nobody,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Privacy {
    pub profile: Audience,
    pub posts: Audience,
    pub messages: MessagesFrom,
}

/// A change of [`Privacy`]: absent fields stay.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Audience>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posts: Option<Audience>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<MessagesFrom>,
}

/// Settings of a person.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    #[schema(value_type = Object)]
    pub notifications: Value,
    pub privacy: Privacy,
    pub theme: String,
    pub language: String,
    pub timezone: String,
    #[schema(value_type = Option<Object>)]
    pub content_filters: Option<Value>,
}

#[derive(sqlx::FromRow)]
struct Row {
    notifications: Json<Value>,
    privacy: Json<Privacy>,
    theme: String,
    language: String,
    timezone: String,
    content_filters: Option<Json<Value>>,
}

/// What a change left, and the place in the own user stream that tells of it, where something was changed.
#[derive(Debug)]
pub struct Changed {
    pub settings: Settings,
    pub told: Option<Told>,
}

/// A place in the own user stream.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub seq: i64,
    pub at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct ChangedRow {
    #[sqlx(flatten)]
    row: Row,
    seq: Option<i64>,
    at: Option<DateTime<Utc>>,
}

impl PrivacyPatch {
    fn is_empty(&self) -> bool {
        self.profile.is_none() && self.posts.is_none() && self.messages.is_none()
    }
}

impl From<Row> for Settings {
    fn from(row: Row) -> Self {
        Self {
            notifications: row.notifications.0,
            privacy: row.privacy.0,
            theme: row.theme,
            language: row.language,
            timezone: row.timezone,
            content_filters: row.content_filters.map(|filters| filters.0),
        }
    }
}

impl Identity {
    /// Own settings.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn settings(&self, profile_id: Uuid) -> Result<Settings, IdentityError> {
        let row: Option<Row> = reading(
            sqlx::query_as(
                "SELECT notifications, privacy, theme, language, timezone, content_filters
                 FROM user_settings WHERE user_id = $1",
            )
            .bind(profile_id)
            .fetch_optional(&self.pool),
        )
        .await?;
        match row {
            Some(row) => Ok(row.into()),
            // An account of before settings: it gets the defaults.
            None => Ok(self.change_privacy(profile_id, PrivacyPatch::default()).await?.settings),
        }
    }

    /// Changes who may see and write to oneself, and tells the own devices, in one transaction; the caller publishes.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn change_privacy(&self, profile_id: Uuid, patch: PrivacyPatch) -> Result<Changed, IdentityError> {
        let pool = self.pool.clone();
        let row: Option<ChangedRow> = self
            .shielded(async move {
                let query = sqlx::query_as(CHANGE_PRIVACY)
                    .bind(profile_id)
                    .bind(Json(patch))
                    .bind(Uuid::now_v7())
                    .bind(!patch.is_empty())
                    .bind(Json(Privacy::default()));
                Ok(query.fetch_optional(&pool).await?)
            })
            .await?;
        let ChangedRow { row, seq, at } = row.ok_or(IdentityError::NotFound("no settings"))?;
        let told = seq.zip(at).map(|(seq, at)| Told { seq, at });
        Ok(Changed { settings: row.into(), told })
    }
}

/// The change and what is told of it, in the order of the row's lock.
const CHANGE_PRIVACY: &str = "
    WITH changed AS (
        INSERT INTO user_settings AS s (id, user_id, privacy) SELECT $3, p.id, $5 || $2 FROM profiles p WHERE p.id = $1
        ON CONFLICT (user_id) DO UPDATE SET privacy = $5 || s.privacy || $2
        RETURNING notifications, privacy, theme, language, timezone, content_filters)
    SELECT c.*, t.seq, t.at FROM changed c
    LEFT JOIN LATERAL engine.tell_settings($1, CASE WHEN $4 THEN jsonb_build_object('privacy', c.privacy) END) t ON true";
