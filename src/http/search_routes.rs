//! `/v1/search`: finding people.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::extract::{Actor, Page, QueryOf};
use super::problem::{Problem, ProblemBody};
use super::rate_limit::Limit;
use super::state::AppState;
use crate::identity::{Action, IdentityError};
use crate::protocol::size::{PAGE_BYTES, fitting};
use crate::protocol::types::Profile;

/// Characters of a search.
const QUERY_CHARS_MAX: usize = 64;

/// What is looked for, and where the list goes on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// The beginnings of words of a display or ballroom name, 1 to 64 characters
    #[param(min_length = 1, max_length = 64, example = "cel ele")]
    q: String,
    /// 1…100
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<i64>,
    /// `nextCursor` of the page before
    cursor: Option<Uuid>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileList {
    items: Vec<Profile>,
    next_cursor: Option<Uuid>,
}

/// Find people by name
///
/// ACTIVE and PENDING people whose profile one may see, in order of their names. At most 500 are looked at: a search that
/// finds so many is narrowed by more letters.
#[utoipa::path(get, path = "/v1/search/profiles", tag = "profiles", params(SearchQuery),
    responses((status = 200, body = ProfileList), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 429, body = ProblemBody)))]
pub async fn profiles(
    State(state): State<AppState>,
    actor: Actor,
    QueryOf(query): QueryOf<SearchQuery>,
) -> Result<Json<ProfileList>, Problem> {
    actor.may(Action::Read)?;
    let SearchQuery { q, limit, cursor } = query;
    let limit = usize::try_from(Page { limit, cursor }.limit()?).unwrap_or(1);
    let words = q.trim();
    if !(1..=QUERY_CHARS_MAX).contains(&words.chars().count()) || words.contains('\0') {
        return Err(Problem::malformed(format!("q must have 1 to {QUERY_CHARS_MAX} characters")));
    }
    state.rate_limits.take(Limit::Search, actor.profile_id().to_string(), Instant::now())?;
    let found = state.identity.search_profiles(&actor.person.subject(), words, cursor, limit).await;
    let mut found = found.map_err(|error| match error {
        IdentityError::NotFound(_) => Problem::malformed("cursor is not one of this search"),
        other => other.into(),
    })?;
    let fits = fitting(&found.profiles, PAGE_BYTES);
    found.more |= fits < found.profiles.len();
    found.profiles.truncate(fits);
    let next_cursor = found.profiles.last().filter(|_| found.more).map(|profile| profile.id);
    Ok(Json(ProfileList { items: found.profiles, next_cursor }))
}
