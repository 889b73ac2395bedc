//! `/v1/settings`: one's own.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::changes::published;
use super::extract::{Actor, JsonBody};
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use crate::identity::Action;
use crate::identity::settings::{Changed, PrivacyPatch, Settings};
use crate::messaging::{Committed, settings_changed};

/// A change of one's own settings: absent fields stay.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    #[serde(default)]
    privacy: PrivacyPatch,
}

/// Own settings
#[utoipa::path(get, operation_id = "readSettings", path = "/v1/settings", tag = "profiles",
    responses((status = 200, body = Settings), (status = 401, body = ProblemBody)))]
pub async fn read(State(state): State<AppState>, actor: Actor) -> Result<Json<Settings>, Problem> {
    actor.may(Action::Read)?;
    Ok(Json(state.identity.settings(actor.profile_id()).await?))
}

/// Change who may see the own profile and write to oneself
#[utoipa::path(patch, operation_id = "changeSettings", path = "/v1/settings", tag = "profiles", request_body = SettingsPatch,
    responses((status = 200, body = Settings), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
pub async fn change(
    State(state): State<AppState>,
    actor: Actor,
    JsonBody { value: patch, .. }: JsonBody<SettingsPatch>,
) -> Result<Json<Settings>, Problem> {
    actor.may(Action::EditOwnSettings)?;
    let (identity, profile_id) = (state.identity.clone(), actor.profile_id());
    let settings = published(&state.ports.publisher, async move {
        let Changed { settings, told } = identity.change_privacy(profile_id, patch.privacy).await?;
        let changed = serde_json::json!({"privacy": settings.privacy});
        let update = told.map(|told| settings_changed(profile_id, told.seq as u64, told.at.into(), changed));
        Ok(Committed { value: settings, updates: update.into_iter().collect() })
    });
    Ok(Json(settings.await?))
}
