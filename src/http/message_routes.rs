//! `/v1/threads/{id}/messages`, `/updates` and `/read`: the same operations as on the socket.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn, ParameterStyle};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder};
use uuid::Uuid;

use super::changes::{problem, published};
use super::extract::{Actor, JsonBody, PathOf, QueryOf};
use super::idempotency::{IdempotencyKey, REPLAYED};
use super::log_answer::{self, LogReader};
use super::parameters::{self, limit_of, number};
use super::problem::{Problem, ProblemBody};
use super::state::AppState;
use crate::identity::Action;
use crate::messaging::history::{History, PAGE_MESSAGES, Range, history};
use crate::messaging::log::{PAGE_UPDATES, VisibleUpdates};
use crate::messaging::read_marks::{self, ReadOk};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{SendBody, SendOk};

/// Which messages; without `before`, `after` and `around` the newest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    before: Option<i64>,
    after: Option<i64>,
    around: Option<i64>,
    limit: Option<i64>,
}

impl IntoParams for HistoryQuery {
    /// The three numbers are one parameter, an object whose fields are written as they are: so the document can say that
    /// one of them stands at most.
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let no = |about: &'static str| number(0, i64::MAX).description(Some(about));
        let place = ObjectBuilder::new()
            .property("before", no("A `no`: the newest below it"))
            .property("after", no("A `no`: the oldest above it"))
            .property("around", no("A `no`: it and its neighbours"))
            .max_properties(Some(1))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .build();
        let about = "At most one of `before`, `after` and `around`, as in `?before=40`; none: the newest";
        let mut place = parameters::optional("place", about, place);
        (place.style, place.explode) = (Some(ParameterStyle::Form), Some(true));
        vec![place, parameters::limit(PAGE_MESSAGES)]
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdatesQuery {
    since: Option<i64>,
    limit: Option<i64>,
}

impl IntoParams for UpdatesQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let since = number(0, i64::MAX).default(Some(0.into())).build();
        vec![
            parameters::optional("since", "Position after which the page begins", since),
            parameters::limit(PAGE_UPDATES),
        ]
    }
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadMark {
    /// The newest message read
    #[schema(minimum = 0)]
    no: i64,
    /// Revision the device holds; below the stored one nothing changes
    read_rev: Option<i32>,
}

/// A page of messages, ascending by `no`
#[utoipa::path(get, operation_id = "readHistory", path = "/v1/threads/{id}/messages", tag = "messages", params(("id" = Uuid, Path), HistoryQuery),
    responses((status = 200, body = History), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
pub async fn page(
    State(state): State<AppState>,
    actor: Actor,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<HistoryQuery>,
) -> Result<Json<History>, Problem> {
    actor.may(Action::Read)?;
    let range = Range::of(query.before, query.after, query.around);
    let range = range.map_err(|refusal| Problem::malformed(refusal.message))?;
    let limit = limit_of(query.limit, PAGE_MESSAGES)?;
    Ok(Json(history(&state.pool, actor.profile_id(), id, range, limit).await?))
}

/// Send a message; the answer comes after the commit
///
/// The nonce is kept for ever: the same again gets the first answer, with 200 and `Idempotency-Replayed: true`. It may be
/// sent as `Idempotency-Key` instead, where the body has none or the same.
#[utoipa::path(post, operation_id = "sendMessage", path = "/v1/threads/{id}/messages", tag = "messages", request_body = SendBody,
    params(("id" = Uuid, Path)),
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
#[utoipa::path(get, operation_id = "readUpdates", path = "/v1/threads/{id}/updates", tag = "messages", params(("id" = Uuid, Path), UpdatesQuery),
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
    let since = query.since.unwrap_or(0);
    if since < 0 {
        return Err(Problem::malformed("since: a position, 0 or more"));
    }
    log_answer::stream(state.pool, LogReader { actor: actor.profile_id(), thread: id, since, left: limit }, epoch).await
}

/// Move the own read mark forward
#[utoipa::path(put, operation_id = "markRead", path = "/v1/threads/{id}/read", tag = "messages", params(("id" = Uuid, Path)), request_body = ReadMark,
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
