//! `/v1/system-settings`: what anybody may know of this deployment, without a login.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::state::AppState;
use crate::config::Registration;

/// What this site is called.
const SITE_NAME: &str = "Haus of Basquiat";

/// One setting.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemSetting {
    #[schema(example = "registration.mode")]
    key: &'static str,
    /// `registration.mode`: `open` (anybody registers) or `closed`; `site.name`: a text
    #[schema(example = "open")]
    value: &'static str,
    is_public: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemSettingList {
    items: Vec<SystemSetting>,
    #[schema(value_type = Option<String>)]
    next_cursor: Option<()>,
}

/// Public settings of this deployment
#[utoipa::path(get, operation_id = "listSystemSettings", path = "/v1/system-settings", tag = "documents", security(()),
    responses((status = 200, body = SystemSettingList)))]
pub async fn list(State(state): State<AppState>) -> Json<SystemSettingList> {
    let mode = match state.config.registration {
        Registration::Open => "open",
        Registration::Closed => "closed",
    };
    let setting = |key, value| SystemSetting { key, value, is_public: true };
    Json(SystemSettingList {
        items: vec![setting("registration.mode", mode), setting("site.name", SITE_NAME)],
        next_cursor: None,
    })
}
