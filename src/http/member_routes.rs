//! `/v1/threads/{id}/members`: let in, change, take out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::openapi::schema::Array;
use uuid::Uuid;

use super::changes::changed;
use super::extract::{Actor, JsonBody, PathOf};
use super::idempotency::{IdempotencyKey, Once, once};
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use crate::identity::Action;
use crate::limits::Work;
use crate::messaging::members::{self, MemberPatch, MembersAdded};
use crate::messaging::schemas::uuids;
use crate::messaging::threads::MEMBERS_PER_CALL;
use crate::protocol::types::ThreadMember;

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMembers {
    #[schema(schema_with = newcomers)]
    profile_ids: Vec<Uuid>,
}

fn newcomers() -> Array {
    uuids(1, MEMBERS_PER_CALL)
}

/// Let people in (ADMINs of the thread)
#[utoipa::path(post, operation_id = "addMembers", path = "/v1/threads/{id}/members", tag = "members", request_body = NewMembers,
    params(("id" = Uuid, Path), IdempotencyKey),
    responses((status = 201, body = MembersAdded), (status = 200, body = MembersAdded, description = "All were in already"),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn add(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    key: IdempotencyKey,
    JsonBody { value: new, sha256 }: JsonBody<NewMembers>,
) -> Result<Response, Problem> {
    actor.may(Action::WriteInThread)?;
    actor.spends(&state, Work::LetIn, new.profile_ids.len().min(MEMBERS_PER_CALL) as u32)?;
    let profile_id = actor.profile_id();
    // The key stands for this body in this thread.
    let mut body_sha256 = sha256;
    body_sha256.iter_mut().zip(id.as_bytes()).for_each(|(hash, byte)| *hash ^= byte);
    let request = Once { profile_id, route: "POST /v1/threads/{id}/members", key, body_sha256 };
    let most_threads = state.config.most_threads();
    once(&state.pool, &state.ports.publisher, request, move |connection| {
        Box::pin(async move {
            let done = members::add(connection, profile_id, id, new.profile_ids, most_threads).await?;
            Ok(done.map(|added| {
                let status = if added.added.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
                (status, serde_json::json!(added))
            }))
        })
    })
    .await
}

/// Change role (ADMINs, not their own) or nickname (oneself or ADMINs)
#[utoipa::path(patch, operation_id = "changeMember", path = "/v1/threads/{id}/members/{profileId}", tag = "members", request_body = MemberPatch,
    params(("id" = Uuid, Path), ("profileId" = Uuid, Path)),
    responses((status = 200, body = ThreadMember), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn change(
    State(state): State<AppState>,
    actor: Actor,
    PathOf((id, member)): PathOf<(Uuid, Uuid)>,
    JsonBody { value: patch, .. }: JsonBody<MemberPatch>,
) -> Result<Json<ThreadMember>, Problem> {
    actor.may(Action::WriteInThread)?;
    let profile_id = actor.profile_id();
    let work = changed(&state.pool, &state.ports.publisher, "member_change", move |connection| {
        Box::pin(members::change(connection, profile_id, id, member, patch))
    });
    Ok(Json(work.await?))
}

/// Leave (oneself), or take somebody out (ADMINs)
#[utoipa::path(delete, operation_id = "removeMember", path = "/v1/threads/{id}/members/{profileId}", tag = "members",
    params(("id" = Uuid, Path), ("profileId" = Uuid, Path)),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
pub async fn remove(
    State(state): State<AppState>,
    actor: Actor,
    PathOf((id, member)): PathOf<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    actor.may(Action::WriteInThread)?;
    let profile_id = actor.profile_id();
    changed(&state.pool, &state.ports.publisher, "member_remove", move |connection| {
        Box::pin(members::remove(connection, profile_id, id, member))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
