//! Documents that machines look for: the public keys, the OpenAPI document, and what there is not.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::state::AppState;
use crate::protocol::ErrorCode;

/// Public keys of access tokens
#[utoipa::path(get, operation_id = "readKeys", path = "/.well-known/jwks.json", tag = "documents", security(()),
    responses((status = 200, description = "JWK set", content_type = "application/jwk-set+json", body = Object)))]
pub async fn jwks(State(state): State<AppState>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, state.identity.jwks().to_string()).into_response()
}

/// Any path without a route.
pub async fn not_found() -> Problem {
    Problem::new(ErrorCode::NotFound, "there is nothing at this path")
}

/// A route that does not take this method; the `Allow` header names those it takes.
pub async fn method_not_allowed() -> Problem {
    Problem::malformed("this path does not take this method").with_status(StatusCode::METHOD_NOT_ALLOWED)
}
