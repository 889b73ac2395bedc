//! `Idempotency-Key` on creating POSTs: the same key with the same body gets the first answer again, with another body
//! 409. Messages do not come here: their key is the nonce in the log, for ever.
//!
//! The key is claimed by an insert before the work and completed after it, both in a task that outlives the client. A
//! node that dies between the two leaves a claim that is free again after [`CLAIM_SECONDS`]; the work may then happen a
//! second time, so creations that must not be doubled carry a natural key as well.

use std::future::Future;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::problem::Problem;
use crate::identity::{DATABASE_TIMEOUT, IdentityError};
use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;

/// After so many seconds an unfinished claim is taken for abandoned.
const CLAIM_SECONDS: i32 = 60;
const KEY_CHARS_MAX: usize = 64;
const HEADER: &str = "idempotency-key";
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, when it has one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(Self(None)) };
        let key = value.to_str().ok().map(str::trim);
        let key = key.filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()));
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

enum Claim {
    Mine,
    Answered { status: u16, response: Value },
}

/// Runs `work` unless the key was answered before. Without a key it just runs, in a task of its own.
pub async fn once<W>(pool: &PgPool, request: Once, work: W) -> Result<Response, Problem>
where
    W: Future<Output = Result<(StatusCode, Value), Problem>> + Send + 'static,
{
    let Some(key) = request.key.0.clone() else {
        let (status, response) = tokio::spawn(work).await.map_err(|_| Problem::from(IdentityError::Task))??;
        return Ok((status, Json(response)).into_response());
    };
    let pool = pool.clone();
    let task = tokio::spawn(async move {
        match in_time(claim(&pool, &request, &key)).await? {
            Claim::Answered { status, response } => Ok((status, response, true)),
            Claim::Mine => {
                let done = work.await;
                in_time(complete(&pool, &request, &key, done.as_ref().ok())).await?;
                done.map(|(status, response)| (status.as_u16(), response, false))
            }
        }
    });
    let (status, response, replayed) = task.await.map_err(|_| Problem::from(IdentityError::Task))??;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut answer = (status, Json(response)).into_response();
    if replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

async fn claim(pool: &PgPool, request: &Once, key: &str) -> Result<Claim, Problem> {
    let mine: Option<bool> = sqlx::query_scalar(
        "INSERT INTO idempotency_keys AS k (profile_id, route, key, body_hash) VALUES ($1, $2, $3, $4)
         ON CONFLICT (profile_id, route, key) DO UPDATE SET body_hash = excluded.body_hash, created_at = now()
         WHERE k.status IS NULL AND k.created_at < now() - make_interval(secs => $5)
         RETURNING true",
    )
    .bind(request.profile_id)
    .bind(request.route)
    .bind(key)
    .bind(request.body_sha256.as_slice())
    .bind(f64::from(CLAIM_SECONDS))
    .fetch_optional(pool)
    .await
    .map_err(IdentityError::from)?;
    if mine.is_some() {
        return Ok(Claim::Mine);
    }
    let found: Option<(Vec<u8>, Option<i16>, Option<Value>)> = sqlx::query_as(
        "SELECT body_hash, status, response FROM idempotency_keys WHERE profile_id = $1 AND route = $2 AND key = $3",
    )
    .bind(request.profile_id)
    .bind(request.route)
    .bind(key)
    .fetch_optional(pool)
    .await
    .map_err(IdentityError::from)?;
    let at_work = || {
        Refusal::new(ErrorCode::Unavailable, "the first request with this Idempotency-Key is still at work")
            .retry_after(1_000)
    };
    match found {
        Some((hash, _, _)) if hash != request.body_sha256 => {
            Err(Problem::new(ErrorCode::NonceConflict, "this Idempotency-Key was used with another body"))
        }
        Some((_, Some(status), Some(response))) => {
            Ok(Claim::Answered { status: u16::try_from(status).unwrap_or(200), response })
        }
        _ => Err(at_work().into()),
    }
}

/// Keeps a good answer; frees the key after a refusal, so that the same request may be tried again.
async fn complete(
    pool: &PgPool,
    request: &Once,
    key: &str,
    answer: Option<&(StatusCode, Value)>,
) -> Result<(), Problem> {
    let query = match answer {
        Some((status, response)) => sqlx::query(
            "UPDATE idempotency_keys SET status = $4, response = $5 WHERE profile_id = $1 AND route = $2 AND key = $3",
        )
        .bind(request.profile_id)
        .bind(request.route)
        .bind(key)
        .bind(i16::try_from(status.as_u16()).unwrap_or(200))
        .bind(response),
        None => sqlx::query("DELETE FROM idempotency_keys WHERE profile_id = $1 AND route = $2 AND key = $3")
            .bind(request.profile_id)
            .bind(request.route)
            .bind(key),
    };
    query.execute(pool).await.map_err(IdentityError::from)?;
    Ok(())
}

async fn in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    match tokio::time::timeout(DATABASE_TIMEOUT, work).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::unavailable().into()),
    }
}
