//! `/v1/sessions` and `/v1/ws/ticket`: one's own logins, and the way from one of them to a websocket.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::extract::{Actor, Page, PathOf, QueryOf};
use super::problem::{Problem, ProblemBody};
use super::rate_limit::Limit;
use super::state::AppState;
use crate::identity::Action;
use crate::identity::sessions::SessionView;
use crate::identity::tickets::TICKET_TTL_MS;
use crate::protocol::size::{PAGE_BYTES, fitting};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    items: Vec<SessionView>,
    next_cursor: Option<Uuid>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// Send it as `ticket.<value>` in `Sec-WebSocket-Protocol` or as `ticket` in the `auth` frame; works once
    ticket: String,
    expires_in_ms: u64,
}

/// Own live sessions, newest first
#[utoipa::path(get, operation_id = "listSessions", path = "/v1/sessions", tag = "sessions", params(Page),
    responses((status = 200, body = SessionList), (status = 401, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    actor: Actor,
    QueryOf(page): QueryOf<Page>,
) -> Result<Json<SessionList>, Problem> {
    actor.may(Action::Read)?;
    let limit = page.limit()?;
    let (profile_id, current) = (actor.profile_id(), actor.access.session_id);
    let mut items = state.identity.sessions(profile_id, current, page.cursor, limit + 1).await?;
    let more = i64::try_from(items.len()).unwrap_or(i64::MAX) > limit;
    if more {
        items.pop();
    }
    let fits = fitting(&items, PAGE_BYTES);
    let more = more || fits < items.len();
    items.truncate(fits);
    let next_cursor = items.last().filter(|_| more).map(|session| session.id);
    Ok(Json(SessionList { items, next_cursor }))
}

/// End one of one's own sessions
#[utoipa::path(delete, operation_id = "endSession", path = "/v1/sessions/{id}", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn end(State(state): State<AppState>, actor: Actor, PathOf(id): PathOf<Uuid>) -> Result<StatusCode, Problem> {
    actor.may(Action::ManageOwnSessions)?;
    state.identity.end_session(actor.profile_id(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A single-use ticket for the websocket
#[utoipa::path(post, operation_id = "createTicket", path = "/v1/ws/ticket", tag = "sessions",
    responses((status = 201, body = Ticket), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody)))]
pub async fn ticket(State(state): State<AppState>, actor: Actor) -> Result<(StatusCode, Json<Ticket>), Problem> {
    actor.may(Action::OpenSocket)?;
    state.rate_limits.take(Limit::Ticket, actor.profile_id().to_string(), Instant::now())?;
    let ticket = state.identity.create_ticket(actor.access).await?;
    Ok((StatusCode::CREATED, Json(Ticket { ticket, expires_in_ms: TICKET_TTL_MS })))
}
