//! `/v1/threads/{id}/messages`, `/updates` and `/read`: the same operations as on the socket.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::changes::{problem, published};
use super::extract::{Actor, JsonBody, PathOf, QueryOf};
use super::idempotency::{IdempotencyKey, REPLAYED};
use super::log_answer::{self, LogReader};
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use super::thread_routes::limit_of;
use crate::identity::Action;
use crate::messaging::history::{History, Range, history};
use crate::messaging::log::{PAGE_UPDATES, VisibleUpdates};
use crate::messaging::read_marks::{self, ReadOk};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{SendBody, SendOk};

/// Which messages; without `before`, `after` and `around` the newest.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// A `no`: the newest below it
    before: Option<i64>,
    /// A `no`: the oldest above it
    after: Option<i64>,
    /// A `no`: it and its neighbours
    around: Option<i64>,
    /// 1…100
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UpdatesQuery {
    /// Position after which the page begins; 0 when absent
    since: Option<i64>,
    /// 1…1000
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadMark {
    /// The newest message read
    no: i64,
    /// Revision the device holds; below the stored one nothing changes
    read_rev: Option<i32>,
}

/// A page of messages, ascending by `no`
#[utoipa::path(get, path = "/v1/threads/{id}/messages", tag = "messages", params(("id" = Uuid, Path), HistoryQuery),
    responses((status = 200, body = History), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
pub async fn page(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<HistoryQuery>,
) -> Result<Json<History>, Problem> {
    actor.may(Action::Read)?;
    let range = match (query.before, query.after, query.around) {
        (None, None, None) => Range::Before(i64::MAX),
        (Some(no), None, None) => Range::Before(no),
        (None, Some(no), None) => Range::After(no),
        (None, None, Some(no)) => Range::Around(no),
        _ => return Err(Problem::malformed("only one of before, after and around")),
    };
    let limit = limit_of(query.limit, 100)?;
    Ok(Json(history(&state.pool, actor.profile_id(), id, range, limit).await?))
}

/// Send a message; the answer comes after the commit. The key is its nonce, for ever
#[utoipa::path(post, path = "/v1/threads/{id}/messages", tag = "messages", request_body = SendBody,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<Uuid>, Header, description = "The nonce, where the body has none")),
    responses((status = 201, body = SendOk), (status = 200, body = SendOk, description = "This nonce was committed before"),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn send(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    key: IdempotencyKey,
    JsonBody { value: mut body, .. }: JsonBody<SendBody>,
) -> Result<Response, Problem> {
    actor.may(Action::WriteInThread)?;
    if let IdempotencyKey(Some(key)) = key {
        let nonce = Uuid::parse_str(&key).ok().filter(|nonce| body.nonce.is_none_or(|other| other == *nonce));
        let wrong =
            || Refusal::new(ErrorCode::Invalid, "nonce: Idempotency-Key must be a UUID, and the nonce if there is one");
        body.nonce = Some(nonce.ok_or_else(wrong).map_err(problem)?);
    }
    let request = state.ports.checker.check(id, actor.profile_id(), body).map_err(problem)?;
    let ok = state.ports.sender.send(request).await.map_err(problem)?;
    Ok(match ok.dup {
        true => (StatusCode::OK, [(REPLAYED, "true")], Json(ok)).into_response(),
        false => (StatusCode::CREATED, Json(ok)).into_response(),
    })
}

/// The log of a thread, as frames of the socket, as far as one may see it
#[utoipa::path(get, path = "/v1/threads/{id}/updates", tag = "messages", params(("id" = Uuid, Path), UpdatesQuery),
    responses((status = 200, body = VisibleUpdates), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
pub async fn updates(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<UpdatesQuery>,
) -> Result<Response, Problem> {
    actor.may(Action::Read)?;
    let limit = limit_of(query.limit, PAGE_UPDATES)?;
    let epoch = (state.ports.epoch)();
    let since = query.since.unwrap_or(0).max(0);
    log_answer::stream(state.pool, LogReader { actor: actor.profile_id(), thread: id, since, left: limit }, epoch).await
}

/// Move the own read mark forward
#[utoipa::path(put, path = "/v1/threads/{id}/read", tag = "messages", params(("id" = Uuid, Path)), request_body = ReadMark,
    responses((status = 200, body = ReadOk), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
pub async fn read(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    JsonBody { value: mark, .. }: JsonBody<ReadMark>,
) -> Result<Json<ReadOk>, Problem> {
    actor.may(Action::WriteInThread)?;
    let profile_id = actor.profile_id();
    let pool = state.pool.clone();
    let work = async move { read_marks::read(&pool, profile_id, id, mark.no, mark.read_rev).await };
    Ok(Json(published(&state.ports.publisher, work).await?))
}
