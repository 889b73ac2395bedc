//! `/v1/threads` and `/v1/threads/{id}`, and what all routes of threads share: refusals that name a field, and changes
//! that run to their end and are published though the client has gone.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::extract::{Actor, JsonBody, PathOf, QueryOf};
use super::idempotency::{IdempotencyKey, Once, once};
use super::problem::{FieldError, Problem, ProblemBody};
use super::state::AppState;
use crate::identity::Action;
use crate::messaging::threads::{CreatedThread, NewThread, ThreadPatch};
use crate::messaging::{Committed, rows, threads};
use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;
use crate::protocol::types::{ThreadRow, ThreadType};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThreadList {
    items: Vec<ThreadRow>,
    next_cursor: Option<String>,
}

/// `limit` and `cursor` of the list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ThreadsPage {
    /// 1…100
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<i64>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// Own threads, newest message first
#[utoipa::path(get, path = "/v1/threads", tag = "threads", params(ThreadsPage),
    responses((status = 200, body = ThreadList), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    actor: Actor,
    QueryOf(page): QueryOf<ThreadsPage>,
) -> Result<Json<ThreadList>, Problem> {
    actor.may(Action::Read)?;
    let limit = limit_of(page.limit, 100)?;
    let page = rows::list(&state.pool, actor.profile_id(), page.cursor.as_deref(), limit).await.map_err(problem)?;
    let items = page.threads.into_iter().map(|thread| thread.row).collect();
    Ok(Json(ThreadList { items, next_cursor: page.next }))
}

/// Make a thread; a DIRECT one that exists is found again
#[utoipa::path(post, path = "/v1/threads", tag = "threads", request_body = NewThread,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = ThreadRow), (status = 200, body = ThreadRow, description = "The DIRECT thread of this pair"),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
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
    let profile_id = actor.profile_id();
    let request = Once { profile_id, route: "POST /v1/threads", key, body_sha256: sha256 };
    let pool = state.pool.clone();
    once(&pool, request, async move {
        let CreatedThread { thread, is_new } = published(&state, threads::create(&state.pool, profile_id, new).await)?;
        Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, serde_json::json!(thread)))
    })
    .await
}

/// A thread as its member sees it
#[utoipa::path(get, path = "/v1/threads/{id}", tag = "threads", params(("id" = Uuid, Path)),
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
#[utoipa::path(patch, path = "/v1/threads/{id}", tag = "threads", params(("id" = Uuid, Path)), request_body = ThreadPatch,
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
    let work = {
        let state = state.clone();
        async move { published(&state, threads::patch(&state.pool, profile_id, id, patch).await) }
    };
    Ok(Json(to_its_end(work).await?))
}

/// Hands the updates of a change to the node; gives its value.
pub(super) fn published<T>(state: &AppState, done: Result<Committed<T>, Refusal>) -> Result<T, Problem> {
    let Committed { value, updates } = done.map_err(problem)?;
    if !updates.is_empty() {
        state.ports.publisher.publish(updates);
    }
    Ok(value)
}

/// Runs a change in a task of its own, so that a client that goes away does not stop it between commit and publication.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the task of a request ended early");
        Err(Problem::new(ErrorCode::Internal, "the request failed"))
    })
}

/// A refusal whose text is `field: what is wrong` as a problem that names the field.
pub(super) fn problem(refusal: Refusal) -> Problem {
    match (refusal.code, refusal.message.split_once(": ")) {
        // Part of the query, as `limit` is.
        (ErrorCode::Invalid, Some(("cursor", _))) => Problem::malformed(refusal.message),
        (ErrorCode::Invalid, Some((path, message))) if !path.contains(' ') => {
            Problem::invalid(vec![FieldError { path: path.to_owned(), code: "range", message: message.to_owned() }])
        }
        _ => refusal.into(),
    }
}

/// A `limit` of the query in 1…`most`; 50 when absent.
pub(super) fn limit_of(limit: Option<i64>, most: i64) -> Result<i64, Problem> {
    match limit.unwrap_or(50) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Problem::malformed(format!("limit must be 1…{most}"))),
    }
}
