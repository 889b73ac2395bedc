//! `/v1/me` and `/v1/profiles/{id}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use uuid::Uuid;

use super::auth_routes::{self, DISPLAY_NAME_CHARS_MAX};
use super::extract::{Actor, JsonBody, PathOf, present};
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use super::validate::Checks;
use crate::identity::profiles::ProfileChange;
use crate::identity::{Action, Resource};
use crate::protocol::types::Profile;
use crate::text::schema;

const PRONOUNS_CHARS_MAX: usize = 40;
const BIO_CHARS_MAX: usize = 1_000;
const BALLROOM_NAME_CHARS_MAX: usize = 80;
const SOCIAL_LINKS_MAX: usize = 10;
const SOCIAL_NETWORK_BYTES_MAX: usize = 30;
const SOCIAL_LINK_BYTES_MAX: usize = 500;

/// A change of one's own profile: absent fields stay, `null` clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfilePatch {
    #[schema(schema_with = display_name)]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = pronouns)]
    pronouns: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = bio)]
    bio: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = ballroom_name)]
    ballroom_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = social_links_schema)]
    social_links: Option<Option<BTreeMap<String, String>>>,
}

fn display_name() -> Object {
    schema::clearable(auth_routes::display_name())
}

fn pronouns() -> Object {
    schema::clearable(schema::line(PRONOUNS_CHARS_MAX))
}

fn bio() -> Object {
    schema::clearable(schema::paragraph(BIO_CHARS_MAX))
}

fn ballroom_name() -> Object {
    schema::clearable(schema::line(BALLROOM_NAME_CHARS_MAX))
}

fn social_links_schema() -> Object {
    let network = ObjectBuilder::new().pattern(Some(format!("^[A-Za-z0-9_-]{{1,{SOCIAL_NETWORK_BYTES_MAX}}}$")));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Network → `https://` address or `@handle`"))
        .max_properties(Some(SOCIAL_LINKS_MAX))
        .property_names(Some(network.build()))
        .additional_properties(Some(Schema::from(schema::link_or_handle(SOCIAL_LINK_BYTES_MAX))))
        .build()
}

impl ProfilePatch {
    fn checked(self) -> Result<ProfileChange, Problem> {
        let mut checks = Checks::default();
        let display_name = self.display_name.map(|name| checks.name("displayName", &name, DISPLAY_NAME_CHARS_MAX));
        let pronouns = checks.clearable_line("pronouns", self.pronouns, PRONOUNS_CHARS_MAX);
        let bio = checks.clearable_paragraph("bio", self.bio, BIO_CHARS_MAX);
        let ballroom_name = checks.clearable_line("ballroomName", self.ballroom_name, BALLROOM_NAME_CHARS_MAX);
        let social_links = self.social_links.map(|links| links.map(|links| social_links(&mut checks, links)));
        checks.finish()?;
        Ok(ProfileChange { display_name, pronouns, bio, ballroom_name, social_links })
    }
}

/// The links as the text of a JSON object.
fn social_links(checks: &mut Checks, links: BTreeMap<String, String>) -> String {
    checks.require(links.len() <= SOCIAL_LINKS_MAX, "socialLinks", "length", "must have at most 10 entries");
    let mut kept = BTreeMap::new();
    for (network, address) in links {
        let known_shape = (1..=SOCIAL_NETWORK_BYTES_MAX).contains(&network.len())
            && network.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        checks.require(known_shape, "socialLinks", "format", "names must have 1 to 30 letters, digits, - or _");
        let address = checks.link_or_handle(&format!("socialLinks.{network}"), &address, SOCIAL_LINK_BYTES_MAX);
        kept.insert(network, address);
    }
    serde_json::json!(kept).to_string()
}

/// Own profile
#[utoipa::path(get, operation_id = "readMe", path = "/v1/me", tag = "profiles",
    responses((status = 200, body = Profile), (status = 401, body = ProblemBody)))]
pub async fn me(State(state): State<AppState>, actor: Actor) -> Result<Json<Profile>, Problem> {
    actor.may(Action::Read)?;
    Ok(Json(state.identity.profile(actor.profile_id(), actor.profile_id()).await?))
}

/// Change own profile
#[utoipa::path(patch, operation_id = "changeMe", path = "/v1/me", tag = "profiles", request_body = ProfilePatch,
    responses((status = 200, body = Profile), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
pub async fn change_me(
    State(state): State<AppState>,
    actor: Actor,
    JsonBody { value: patch, .. }: JsonBody<ProfilePatch>,
) -> Result<Json<Profile>, Problem> {
    actor.may(Action::EditOwnProfile)?;
    let change = patch.checked()?;
    Ok(Json(state.identity.change_profile(actor.profile_id(), change).await?))
}

/// A profile, as far as its privacy lets the reader see it
#[utoipa::path(get, operation_id = "readProfile", path = "/v1/profiles/{id}", tag = "profiles", params(("id" = Uuid, Path)),
    responses((status = 200, body = Profile), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn one(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Profile>, Problem> {
    actor.may_to(Action::Read, Resource::Profile(id))?;
    let profile = state.identity.profile(actor.profile_id(), id).await?;
    Ok(Json(profile))
}
