//! `/v1/settings`: one's own.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::extract::{Actor, JsonBody};
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use crate::identity::Action;
use crate::identity::settings::{PrivacyPatch, Settings};

/// A change of one's own settings: absent fields stay.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    #[serde(default)]
    privacy: PrivacyPatch,
}

/// Own settings
#[utoipa::path(get, path = "/v1/settings", tag = "profiles",
    responses((status = 200, body = Settings), (status = 401, body = ProblemBody)))]
pub async fn read(State(state): State<AppState>, actor: Actor) -> Result<Json<Settings>, Problem> {
    actor.may(Action::Read)?;
    Ok(Json(state.identity.settings(actor.profile_id()).await?))
}

/// Change who may see the own profile and write to oneself
#[utoipa::path(patch, path = "/v1/settings", tag = "profiles", request_body = SettingsPatch,
    responses((status = 200, body = Settings), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
pub async fn change(
    State(state): State<AppState>,
    actor: Actor,
    JsonBody { value: patch, .. }: JsonBody<SettingsPatch>,
) -> Result<Json<Settings>, Problem> {
    actor.may(Action::EditOwnSettings)?;
    Ok(Json(state.identity.change_privacy(actor.profile_id(), patch.privacy).await?))
}
