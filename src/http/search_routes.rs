//! `/v1/search`: finding people.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::Object;

use super::extract::{Actor, LIST_LIMIT, QueryOf};
use super::parameters;
use super::problem::{Problem, ProblemBody};
use super::rate_limit::Limit;
use super::state::AppState;
use crate::identity::Action;
use crate::identity::search::{self, Place};
use crate::protocol::size::{PAGE_BYTES, fitting};
use crate::protocol::types::Profile;
use crate::text::schema;

/// Characters of a search.
const QUERY_CHARS_MAX: usize = 64;

/// What is looked for, and where the list goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchQuery {
    q: String,
    limit: Option<i64>,
    cursor: Option<String>,
}

impl IntoParams for SearchQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "The beginnings of words of a display or ballroom name, such as `cel ele`";
        vec![
            parameters::required("q", about, schema::words(QUERY_CHARS_MAX)),
            parameters::limit(LIST_LIMIT),
            parameters::optional("cursor", "`nextCursor` of the page before", search::cursor_schema()),
        ]
    }
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileList {
    items: Vec<Profile>,
    #[schema(schema_with = next_cursor)]
    next_cursor: Option<String>,
}

fn next_cursor() -> Object {
    schema::clearable(search::cursor_schema())
}

/// Find people by name
///
/// ACTIVE and PENDING people whose profile one may see, in order of their names. At most 500 are looked at: a search that
/// finds so many is narrowed by more letters.
#[utoipa::path(get, operation_id = "searchProfiles", path = "/v1/search/profiles", tag = "profiles", params(SearchQuery),
    responses((status = 200, body = ProfileList), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 429, body = ProblemBody)))]
pub async fn profiles(
    State(state): State<AppState>,
    actor: Actor,
    QueryOf(query): QueryOf<SearchQuery>,
) -> Result<Json<ProfileList>, Problem> {
    actor.may(Action::Read)?;
    let SearchQuery { q, limit, cursor } = query;
    let limit = usize::try_from(parameters::limit_of(limit, LIST_LIMIT)?).unwrap_or(1);
    let words = q.trim();
    if words.is_empty() || q.chars().count() > QUERY_CHARS_MAX || q.contains('\0') {
        return Err(Problem::malformed(format!("q must have 1 to {QUERY_CHARS_MAX} characters")));
    }
    let wrong = || Problem::malformed("cursor: not one of this server");
    let after = cursor.map(|cursor| Place::parse(&cursor).ok_or_else(wrong)).transpose()?;
    state.rate_limits.take(Limit::Search, actor.profile_id().to_string(), Instant::now())?;
    let mut found = state.identity.search_profiles(&actor.person.subject(), words, after, limit).await?;
    let fits = fitting(&found.profiles, PAGE_BYTES);
    found.more |= fits < found.profiles.len();
    found.profiles.truncate(fits);
    let next_cursor = found.profiles.last().filter(|_| found.more).and_then(|profile| found.place_of(profile.id));
    Ok(Json(ProfileList { items: found.profiles, next_cursor }))
}
