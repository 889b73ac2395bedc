//! `Idempotency-Key` on creating POSTs: the same key with the same body gets the first answer again, with another body
//! 409. Messages do not come here: their key is the nonce in the log, for ever.
//!
//! Key, work and answer are one transaction: whatever fails, either all of it is committed or nothing, and a repeat gets
//! the first answer or does the work. Two at once: the second is told to come again.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use uuid::Uuid;

use super::changes::changed;
use super::problem::Problem;
use crate::messaging::db::Stop;
use crate::messaging::{Committed, Publisher};
use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;

/// A claim without an answer, of a node of the previous release, is taken for abandoned after so many seconds.
const CLAIM_SECONDS: i32 = 60;
const KEY_CHARS_MAX: usize = 64;
const HEADER: &str = "idempotency-key";
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, when it has one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some(format!("^[!-~]{{1,{KEY_CHARS_MAX}}}$")));
        let parameter = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .description(Some("The same key with the same body gets the first answer again, for 24 hours"))
            .schema(Some(key));
        vec![parameter.build()]
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(Self(None)) };
        let key = value.to_str().ok().map(str::trim);
        let key = key
            .filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
        let key = key.ok_or_else(|| {
            Problem::malformed(format!("Idempotency-Key must have 1 to {KEY_CHARS_MAX} visible ASCII characters"))
        })?;
        Ok(Self(Some(key.to_owned())))
    }
}

/// What a request is compared by.
#[derive(Debug, Clone)]
pub struct Once {
    pub profile_id: Uuid,
    /// Method and route pattern, `POST /v1/threads`.
    pub route: &'static str,
    pub key: IdempotencyKey,
    pub body_sha256: [u8; 32],
}

struct Answer {
    status: StatusCode,
    response: Value,
    replayed: bool,
}

/// Runs `work` unless the key was answered before, and publishes what it committed. Without a key it just runs.
pub async fn once<W>(pool: &PgPool, publisher: &Arc<dyn Publisher>, request: Once, work: W) -> Result<Response, Problem>
where
    W: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<Committed<(StatusCode, Value)>, Stop>>
        + Send
        + 'static,
{
    let route = request.route;
    let answer = changed(pool, publisher, route, move |connection| {
        Box::pin(async move {
            if let Some(found) = claim(connection, &request).await? {
                return Ok(Committed { value: found, updates: Vec::new() });
            }
            let done = work(&mut *connection).await?;
            complete(connection, &request, &done.value).await?;
            Ok(done.map(|(status, response)| Answer { status, response, replayed: false }))
        })
    });
    let Answer { status, response, replayed } = answer.await?;
    let mut answer = (status, Json(response)).into_response();
    if replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Takes the key until the end of the transaction; the first answer, where there is one.
async fn claim(connection: &mut PgConnection, request: &Once) -> Result<Option<Answer>, Stop> {
    let Some(key) = &request.key.0 else { return Ok(None) };
    // Not waited for: a wait would keep a connection from others.
    let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("{} {} {key}", request.profile_id, request.route))
        .fetch_one(&mut *connection)
        .await?;
    if !mine {
        return Err(at_work().into());
    }
    let found: Option<(Vec<u8>, Option<i16>, Option<Value>)> = sqlx::query_as(
        "SELECT body_hash, status, response FROM idempotency_keys WHERE profile_id = $1 AND route = $2 AND key = $3
         AND (status IS NOT NULL OR created_at > now() - make_interval(secs => $4))",
    )
    .bind(request.profile_id)
    .bind(request.route)
    .bind(key)
    .bind(f64::from(CLAIM_SECONDS))
    .fetch_optional(connection)
    .await?;
    match found {
        None => Ok(None),
        Some((hash, _, _)) if hash != request.body_sha256 => {
            Err(Refusal::new(ErrorCode::NonceConflict, "this Idempotency-Key was used with another body").into())
        }
        Some((_, Some(status), Some(response))) => {
            let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            Ok(Some(Answer { status: status.unwrap_or(StatusCode::OK), response, replayed: true }))
        }
        Some(_) => Err(at_work().into()),
    }
}

/// Keeps the answer with the work.
async fn complete(
    connection: &mut PgConnection,
    request: &Once,
    (status, response): &(StatusCode, Value),
) -> Result<(), sqlx::Error> {
    let Some(key) = &request.key.0 else { return Ok(()) };
    sqlx::query(
        "INSERT INTO idempotency_keys (profile_id, route, key, body_hash, status, response)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (profile_id, route, key) DO UPDATE SET body_hash = $4, status = $5, response = $6, created_at = now()",
    )
    .bind(request.profile_id)
    .bind(request.route)
    .bind(key)
    .bind(request.body_sha256.as_slice())
    .bind(i16::try_from(status.as_u16()).unwrap_or(200))
    .bind(response)
    .execute(connection)
    .await?;
    Ok(())
}

fn at_work() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the first request with this Idempotency-Key is still at work")
        .retry_after(1_000)
}
