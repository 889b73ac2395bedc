//! What wraps every route: request ids, security headers, CORS, the last resort against panics.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use uuid::Uuid;

use super::origins::Origins;
use super::problem::Problem;
use super::rules;
use crate::config::{Config, Environment};
use crate::protocol::ErrorCode;

/// A request must be answered by then, its body included.
const REQUEST: Duration = Duration::from_secs(30);
/// Header that names a request in answers and logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT_REQUEST_ID: String;
}

/// The id of the request being answered by this task; empty outside a request.
pub fn current_request_id() -> String {
    CURRENT_REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}

/// The answer, or after `most` 408.
async fn within(most: Duration, answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(most, answer).await.unwrap_or_else(|_| {
        let problem = Problem::new(ErrorCode::Unavailable, "the request took too long");
        problem.with_status(StatusCode::REQUEST_TIMEOUT).into_response()
    })
}

/// Wraps `router`. Headers a handler has set itself are kept.
pub fn wrap(router: Router, config: &Config, origins: Arc<Origins>) -> Router {
    let mut router = router.layer(cors(origins)).layer(CatchPanicLayer::custom(panicked));
    router = router.layer(from_fn(with_request_id));
    for (name, value) in security_headers(config) {
        router = router.layer(SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value)));
    }
    router
}

async fn with_request_id(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let value = HeaderValue::from_str(&id);
    let answer = async move {
        match rules::check(request.version(), request.headers()) {
            Ok(()) => within(REQUEST, next.run(request)).await,
            Err(problem) => {
                let mut response = problem.into_response();
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                response
            }
        }
    };
    let mut response = CURRENT_REQUEST_ID.scope(id, answer).await;
    if let Ok(value) = value {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

pub fn security_headers(config: &Config) -> Vec<(HeaderName, &'static str)> {
    let mut headers = vec![
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    if config.environment == Environment::Production {
        headers.push((header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"));
    }
    headers
}

/// Other origins than the own one, by the allow-list. No cookies are used, so no credentials.
fn cors(origins: Arc<Origins>) -> CorsLayer {
    let allowed = AllowOrigin::predicate(move |origin, _| origins.allows(origin));
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            REQUEST_ID,
            HeaderName::from_static("idempotency-replayed"),
        ])
        .max_age(Duration::from_secs(3600))
}

/// The panic itself was logged by the panic hook; the client learns nothing but the request id.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!(request_id = current_request_id(), "a handler panicked");
    Problem::new(ErrorCode::Internal, "something went wrong here").into_response()
}
