//! Extractors: who acts, JSON bodies, queries, path parameters, the client's address. All refuse with a [`Problem`].

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, MatchedPath, Path, Query, Request};
use axum::http::{HeaderMap, Method, header, request::Parts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use uuid::Uuid;

use super::address::rate_key;
use super::parameters;
use super::problem::{FieldError, Problem};
use super::rules;
use super::state::AppState;
use crate::identity::sessions::Client;
use crate::identity::{Access, Action, Person, Resource, authorize};
use crate::limits::Work;
use crate::protocol::codes::Refusal;
use crate::protocol::{ErrorCode, json};

/// Largest JSON body, bytes: an article of 50,000 characters of four bytes, and room around it.
pub const JSON_BODY_BYTES_MAX: usize = 256 * 1024;
/// Most rows of a page of a list.
pub const LIST_LIMIT: i64 = 100;
/// Time a body has to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes kept of a `User-Agent`.
const USER_AGENT_BYTES_MAX: usize = 512;

/// Text of refusals of the rates.
const TOO_MANY: &str = "too many requests; slow down";

/// The person who makes an authenticated request: a valid token, a live session, a standing at most 2 s old.
#[derive(Debug, Clone)]
pub struct Actor {
    pub access: Access,
    pub person: Arc<Person>,
    pub address: IpAddr,
}

impl Actor {
    pub fn profile_id(&self) -> Uuid {
        self.access.profile_id
    }

    /// Refuses what status and role forbid.
    pub fn may(&self, action: Action) -> Result<(), Problem> {
        Ok(self.person.may(action)?)
    }

    /// Takes `n` from the rates of person and address. One of its class is taken of every request already.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn spends(&self, state: &AppState, work: Work, n: u32) -> Result<(), Problem> {
        let taken = state.work.take(work, self.profile_id(), self.address, n);
        Ok(taken.map_err(|wait_ms| Refusal::new(ErrorCode::RateLimited, TOO_MANY).retry_after(wait_ms))?)
    }

    /// [`Actor::may`] for a rule that depends on the resource.
    pub fn may_to(&self, action: Action, resource: Resource) -> Result<(), Problem> {
        Ok(authorize(&self.person.subject(), action, resource)?)
    }
}

impl FromRequestParts<AppState> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let access = state.identity.verify_access(bearer(&parts.headers)?)?;
        let person = state.identity.person(&access).await?;
        let actor = Self { access, person, address: address_of(parts, state).unwrap_or(Ipv4Addr::UNSPECIFIED.into()) };
        // What even the banned may not: be here.
        actor.may(Action::Read)?;
        if let Some(work) = work_of(&parts.method, parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str)) {
            actor.spends(state, work, 1)?;
        }
        Ok(actor)
    }
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::new(ErrorCode::Unauthenticated, "an access token is needed");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

/// A JSON body, with its hash for idempotency keys.
#[derive(Debug)]
pub struct JsonBody<T> {
    pub value: T,
    pub sha256: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        rules::check_body(request.headers(), JSON_BODY_BYTES_MAX)?;
        if !is_json(request.headers()) {
            return Err(Problem::malformed("the body must be JSON: Content-Type: application/json"));
        }
        let body = axum::body::to_bytes(request.into_body(), JSON_BODY_BYTES_MAX);
        let bytes = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if is_length_limit(&error) => {
                return Err(Problem::new(
                    ErrorCode::TooLarge,
                    format!("the body is larger than {JSON_BODY_BYTES_MAX} bytes"),
                ));
            }
            Ok(Err(_)) => return Err(Problem::malformed("the body ended early")),
            Err(_) => return Err(Problem::malformed("the body did not arrive in time")),
        };
        let mut sha256 = [0_u8; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
        let value = json::from_slice_with_path(&bytes).map_err(|(path, error)| json_problem(&path, &error))?;
        Ok(Self { value, sha256 })
    }
}

/// A query string.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(Problem::malformed(cause(&error))),
        }
    }
}

/// Path parameters, such as `PathOf<Uuid>` or `PathOf<(Uuid, Uuid)>`.
#[derive(Debug)]
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::malformed(rejection.body_text())),
        }
    }
}

/// The device a request comes from. The accept loop puts [`ConnectInfo`] into the request's extensions.
#[derive(Debug)]
pub struct ClientOf(pub Client);

impl FromRequestParts<AppState> for ClientOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let address = address_of(parts, state);
        let user_agent = parts.headers.get(header::USER_AGENT).map(|value| {
            let bytes = value.as_bytes();
            String::from_utf8_lossy(&bytes[..bytes.len().min(USER_AGENT_BYTES_MAX)]).into_owned()
        });
        Ok(Self(Client { user_agent, address, network: address.map(rate_key) }))
    }
}

/// Where a request comes from, by the word of trusted proxies.
fn address_of(parts: &Parts, state: &AppState) -> Option<IpAddr> {
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(state.trusted_proxies.client_address(peer.ip(), &parts.headers))
}

/// The class a request is counted in; `None` for sends, which have a rate of their own, as a repeat is always answered.
fn work_of(method: &Method, route: Option<&str>) -> Option<Work> {
    match (method.as_str(), route.unwrap_or_default()) {
        ("POST", "/v1/threads/{id}/messages") => None,
        ("POST", "/v1/threads") => Some(Work::Create),
        ("PUT", "/v1/threads/{id}/read") => Some(Work::Mark),
        ("GET", "/v1/threads" | "/v1/threads/{id}/messages" | "/v1/threads/{id}/updates") => Some(Work::Page),
        ("GET" | "HEAD", _) => Some(Work::Read),
        _ => Some(Work::Change),
    }
}

/// For PATCH bodies: tells a field that is absent (outer `None`) from one that is `null` (inner `None`). Use with
/// `#[serde(default, deserialize_with = "present")]`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        // The limit's error type belongs to a crate below axum; its text is part of that crate's interface.
        if error.to_string() == "length limit exceeded" {
            return true;
        }
        cause = error.source();
    }
    false
}

fn json_problem(path: &str, error: &serde_json::Error) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => Problem::invalid(vec![field_error(path, &error.to_string())]),
        _ => Problem::malformed(format!("the body is not JSON: {error}")),
    }
}

fn cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What serde says of the value at `path` (`unknown field …`, `invalid type: … at line 1 column 2`), as a field's error.
fn field_error(path: &str, text: &str) -> FieldError {
    let message = text.rsplit_once(" at line ").map_or(text, |(before, _)| before);
    let named = message.split('`').nth(1).unwrap_or_default();
    let (code, path) = if message.starts_with("missing field") {
        ("missing", join(path, named))
    } else if message.starts_with("unknown field") {
        ("unknown", if path.is_empty() { named.to_owned() } else { path.to_owned() })
    } else {
        ("type", path.to_owned())
    };
    FieldError { path, code, message: message.to_owned() }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// `limit` and `cursor` of lists (protocol, section 7).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    pub limit: Option<i64>,
    pub cursor: Option<Uuid>,
}

impl IntoParams for Page {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let id = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
            .build();
        vec![
            parameters::limit(LIST_LIMIT),
            parameters::optional("cursor", "`nextCursor` of the page before; any id is a place in the list", id),
        ]
    }
}

impl Page {
    /// The limit, 50 when absent.
    ///
    /// # Errors
    /// 400 outside 1…100.
    pub fn limit(&self) -> Result<i64, Problem> {
        parameters::limit_of(self.limit, LIST_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::field_error;
    use crate::protocol::json;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its parsing is tested")]
    struct Inner {
        instagram: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its parsing is tested")]
    struct Outer {
        display_name: String,
        social_links: Option<Inner>,
    }

    fn refused(text: &str) -> (String, &'static str) {
        let (path, error) = match json::from_slice_with_path::<Outer>(text.as_bytes()) {
            Err((path, error)) if error.is_data() => (path, error),
            other => panic!("{text}: {other:?}"),
        };
        let error = field_error(&path, &error.to_string());
        (error.path, error.code)
    }

    #[test]
    fn the_path_of_a_wrong_field_is_told() {
        assert_eq!(refused("{}"), ("displayName".into(), "missing"));
        assert_eq!(refused(r#"{"displayName":1}"#), ("displayName".into(), "type"));
        assert_eq!(refused(r#"{"displayName":"a","isAdmin":true}"#), ("isAdmin".into(), "unknown"));
        assert_eq!(refused(r#"{"displayName":"a","socialLinks":{}}"#), ("socialLinks.instagram".into(), "missing"));
        assert_eq!(
            refused(r#"{"displayName":"a","socialLinks":{"instagram":[]}}"#),
            ("socialLinks.instagram".into(), "type")
        );
        assert_eq!(refused("[]"), (String::new(), "type"));
    }
}
