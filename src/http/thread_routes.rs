//! `/v1/threads` and `/v1/threads/{id}`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use uuid::Uuid;

use super::changes::{changed, problem};
use super::extract::{Actor, JsonBody, LIST_LIMIT, PathOf, QueryOf};
use super::idempotency::{IdempotencyKey, Once, once};
use super::parameters;
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use crate::identity::Action;
use crate::limits::Work;
use crate::messaging::threads::{CreatedThread, MEMBERS_PER_CALL, NewThread, ThreadPatch};
use crate::messaging::{rows, threads};
use crate::protocol::types::{ThreadRow, ThreadType};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThreadList {
    items: Vec<ThreadRow>,
    next_cursor: Option<String>,
}

/// `limit` and `cursor` of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadsPage {
    limit: Option<i64>,
    cursor: Option<String>,
}

impl IntoParams for ThreadsPage {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let cursor = parameters::optional("cursor", "`nextCursor` of the page before", rows::cursor_schema());
        vec![parameters::limit(LIST_LIMIT), cursor]
    }
}

/// Own threads, newest message first
#[utoipa::path(get, operation_id = "listThreads", path = "/v1/threads", tag = "threads", params(ThreadsPage),
    responses((status = 200, body = ThreadList), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    actor: Actor,
    QueryOf(page): QueryOf<ThreadsPage>,
) -> Result<Json<ThreadList>, Problem> {
    actor.may(Action::Read)?;
    let limit = parameters::limit_of(page.limit, LIST_LIMIT)?;
    let page = rows::list(&state.pool, actor.profile_id(), page.cursor.as_deref(), limit).await.map_err(problem)?;
    let items = page.threads.into_iter().map(|thread| thread.row).collect();
    Ok(Json(ThreadList { items, next_cursor: page.next }))
}

/// Make a thread; a DIRECT one that exists is found again
#[utoipa::path(post, operation_id = "createThread", path = "/v1/threads", tag = "threads", request_body = NewThread,
    params(IdempotencyKey),
    responses((status = 201, body = ThreadRow), (status = 200, body = ThreadRow, description = "The DIRECT thread of this pair"),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody, description = "A person or the house: there is none"), (status = 409, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    actor: Actor,
    key: IdempotencyKey,
    JsonBody { value: new, sha256 }: JsonBody<NewThread>,
) -> Result<Response, Problem> {
    actor.may(match new.kind {
        ThreadType::Direct => Action::OpenDirectThread,
        ThreadType::Group => Action::CreateGroupThread,
        ThreadType::House | ThreadType::Announce => Action::CreateAnnounceThread,
    })?;
    // However many there are: more than fit are refused anyway.
    actor.spends(&state, Work::LetIn, 1 + new.member_ids.len().min(MEMBERS_PER_CALL) as u32)?;
    let profile_id = actor.profile_id();
    let request = Once { profile_id, route: "POST /v1/threads", key, body_sha256: sha256 };
    let most_threads = state.config.most_threads();
    once(&state.pool, &state.ports.publisher, request, move |connection| {
        Box::pin(async move {
            let made = threads::create(connection, profile_id, new, most_threads).await?;
            Ok(made.map(|CreatedThread { thread, is_new }| {
                (if is_new { StatusCode::CREATED } else { StatusCode::OK }, serde_json::json!(thread))
            }))
        })
    })
    .await
}

/// A thread as its member sees it
#[utoipa::path(get, operation_id = "readThread", path = "/v1/threads/{id}", tag = "threads", params(("id" = Uuid, Path)),
    responses((status = 200, body = ThreadRow), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn one(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<ThreadRow>, Problem> {
    actor.may(Action::Read)?;
    Ok(Json(threads::get(&state.pool, actor.profile_id(), id).await?.row))
}

/// Change a thread (its ADMINs)
#[utoipa::path(patch, operation_id = "changeThread", path = "/v1/threads/{id}", tag = "threads", params(("id" = Uuid, Path)), request_body = ThreadPatch,
    responses((status = 200, body = ThreadRow), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn change(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    JsonBody { value: patch, .. }: JsonBody<ThreadPatch>,
) -> Result<Json<ThreadRow>, Problem> {
    actor.may(Action::WriteInThread)?;
    let profile_id = actor.profile_id();
    let work = changed(&state.pool, &state.ports.publisher, "thread_change", move |connection| {
        Box::pin(threads::patch(connection, profile_id, id, patch))
    });
    Ok(Json(work.await?))
}
