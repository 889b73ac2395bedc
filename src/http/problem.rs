//! Problems: every error answer is `application/problem+json` (RFC 9457) with the stable `code` of the protocol.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::identity::IdentityError;
use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;
use crate::telemetry::metrics;

/// One field that is not as it should be.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where in the body or query, `socialLinks.instagram`; empty: the whole.
    pub path: String,
    #[schema(schema_with = field_codes)]
    pub code: &'static str,
    pub message: String,
}

/// What may be wrong with a field.
const FIELD_CODES: [&str; 6] = ["missing", "type", "unknown", "length", "format", "range"];

fn field_codes() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(FIELD_CODES)).build()
}

fn codes() -> Object {
    let codes = ErrorCode::ALL.iter().filter(|code| **code != ErrorCode::UnknownCmd).map(|code| code.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).build()
}

/// The body of a problem.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemBody {
    /// `urn:haus:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: &'static str,
    pub status: u16,
    #[schema(schema_with = codes)]
    pub code: ErrorName,
    pub detail: String,
    pub request_id: String,
    pub errors: Vec<FieldError>,
    /// With `conflict`: the present resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Box<RawValue>>,
}

/// A code as text, for the document.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct ErrorName(ErrorCode);

/// An error answer on its way out.
#[derive(Debug)]
pub struct Problem {
    refusal: Box<Refusal>,
    status: StatusCode,
    errors: Vec<FieldError>,
}

impl Problem {
    /// A problem with the usual status of `code`.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::from(Refusal::new(code, detail))
    }

    /// A malformed request: 400 `invalid`.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, detail).with_status(StatusCode::BAD_REQUEST)
    }

    /// Fields that break a rule: 422 `invalid`.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.path.is_empty() => one.message.clone(),
            [one] => format!("{}: {}", one.path, one.message),
            many => format!("{} fields are not valid", many.len()),
        };
        Self { errors, ..Self::new(ErrorCode::Invalid, detail) }
    }

    /// The same problem with another status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub fn code(&self) -> ErrorCode {
        self.refusal.code
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { refusal: Box::new(refusal), status, errors: Vec::new() }
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        Refusal::from(error).into()
    }
}

/// A problem's body as JSON, for answers made below the routes.
pub fn body(code: ErrorCode, status: u16, detail: &str, request_id: &str) -> Vec<u8> {
    let body = ProblemBody {
        kind: format!("urn:haus:problem:{}", code.as_str()),
        title: title(code),
        status,
        code: ErrorName(code),
        detail: detail.to_owned(),
        request_id: request_id.to_owned(),
        errors: Vec::new(),
        details: None,
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { refusal, status, errors } = self;
        let Refusal { code, message, retry_after_ms, details } = *refusal;
        metrics().refusals.with_label_values(&["rest", code.as_str()]).inc();
        let body = ProblemBody {
            kind: format!("urn:haus:problem:{}", code.as_str()),
            title: title(code),
            status: status.as_u16(),
            code: ErrorName(code),
            detail: message,
            request_id: super::middleware::current_request_id(),
            errors,
            details,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1000).max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

const fn title(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthenticated => "Not signed in",
        ErrorCode::Forbidden => "Not allowed",
        ErrorCode::NotFound => "Not found",
        ErrorCode::Invalid | ErrorCode::UnknownCmd => "Not valid",
        ErrorCode::TooLarge => "Too large",
        ErrorCode::Conflict => "Conflict",
        ErrorCode::NonceConflict => "Key used for something else",
        ErrorCode::RateLimited => "Too many requests",
        ErrorCode::SlowMode => "Slow mode",
        ErrorCode::ThreadArchived => "Archived",
        ErrorCode::ReadOnly => "Read only",
        ErrorCode::Blocked => "Blocked",
        ErrorCode::Unavailable => "Unavailable for the moment",
        ErrorCode::Internal => "Something went wrong here",
    }
}
