//! Settings of a person: read whole; `privacy` is what one may change so far. What `privacy.messages` means is in
//! `engine.consents`, what `privacy.profile` means in `profiles`.

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
            None => self.change_privacy(profile_id, PrivacyPatch::default()).await,
        }
    }

    /// Changes who may see and write to oneself; returns all settings as they are then.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn change_privacy(&self, profile_id: Uuid, patch: PrivacyPatch) -> Result<Settings, IdentityError> {
        let pool = self.pool.clone();
        let row: Option<Row> = self
            .shielded(async move {
                let query = sqlx::query_as(
                    "INSERT INTO user_settings AS s (id, user_id, privacy) SELECT $3, p.id, $2 FROM profiles p WHERE p.id = $1
                     ON CONFLICT (user_id) DO UPDATE SET privacy = s.privacy || excluded.privacy
                     RETURNING notifications, privacy, theme, language, timezone, content_filters",
                )
                .bind(profile_id)
                .bind(Json(patch))
                .bind(Uuid::now_v7());
                Ok(query.fetch_optional(&pool).await?)
            })
            .await?;
        row.map(Settings::from).ok_or(IdentityError::NotFound("no settings"))
    }
}
