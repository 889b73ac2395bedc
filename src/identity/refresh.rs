//! Refresh tokens: opaque, stored as SHA-256, rotated at every use; a second use ends the whole family (RFC 9700,
//! section 4.14).
//!
//! The successor of a token is derived from it with a key of the deployment. So when an answer was lost and the client
//! repeats the request within [`GRACE_SECONDS`], it gets the *same* successor again: the chain never forks, and a stolen
//! token still shows as soon as thief and owner are more than the grace, or one step, apart.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::PgConnection;
use uuid::Uuid;

use super::accounts::SignedIn;
use super::profiles::own;
use super::sessions::{Client, tell_in_database};
use super::{Identity, IdentityError};
use crate::protocol::types::UserStatus;

/// A refresh token not used for so many days expires.
pub const REFRESH_TTL_DAYS: i32 = 30;
/// A token used so many seconds ago is answered again, as long as its successor was not used.
///
/// Long enough for a bad network: a phone that lost the answer in a tunnel asks again minutes later.
pub const GRACE_SECONDS: i32 = 600;

const REFUSED: IdentityError = IdentityError::Unauthenticated("the refresh token is not valid");

#[derive(sqlx::FromRow)]
struct Found {
    id: Uuid,
    user_id: Uuid,
    session_id: Uuid,
    family_id: Uuid,
    profile_id: Uuid,
    head: String,
    status: UserStatus,
    live: bool,
    used: bool,
    in_grace: bool,
}

/// The successor of a token under one of our keys, and what is stored of it.
struct Step {
    next: String,
    hash: String,
}

impl Step {
    fn from(key: &hmac::Key, token: &str) -> Self {
        let next = successor(key, token);
        Self { hash: token_hash(&next), next }
    }
}

enum Outcome {
    Rotated { profile_id: Uuid, session_id: Uuid, next: String },
    Reused { profile_id: Uuid, ended: Vec<Uuid> },
}

impl Identity {
    /// Exchanges a refresh token for an access token and the next refresh token.
    ///
    /// # Errors
    /// `Unauthenticated` when it is unknown, expired, its session has ended, or it was used before (which ends the
    /// family); `Forbidden` when the account is banned; `Unavailable`.
    pub async fn refresh(&self, refresh_token: &str, client: Client) -> Result<SignedIn, IdentityError> {
        let hash = token_hash(refresh_token);
        let steps: Vec<Step> = self.refresh_keys.iter().map(|key| Step::from(key, refresh_token)).collect();
        let (pool, sealer) = (self.pool.clone(), Arc::clone(&self.sealer));
        let (outcome, profile) = self
            .shielded(async move {
                let mut transaction = pool.begin().await?;
                let outcome =
                    rotate(&mut transaction, &hash, &steps, &|user_id| client.origin(&sealer, user_id)).await?;
                let profile = match &outcome {
                    Outcome::Rotated { profile_id, .. } => Some(own(&mut transaction, *profile_id).await?),
                    Outcome::Reused { .. } => None,
                };
                transaction.commit().await?;
                Ok((outcome, profile))
            })
            .await?;
        match (outcome, profile) {
            (Outcome::Rotated { session_id, next, .. }, Some(profile)) => self.signed_in(profile, session_id, next),
            (Outcome::Rotated { .. }, None) => Err(IdentityError::NotFound("no such profile")),
            (Outcome::Reused { profile_id, ended }, _) => {
                tracing::warn!(%profile_id, sessions = ended.len(), "refresh token used twice: family ended");
                self.tell_ended(profile_id, &ended);
                Err(IdentityError::Unauthenticated("the refresh token was used before; its session has ended"))
            }
        }
    }
}

async fn rotate(
    connection: &mut PgConnection,
    hash: &str,
    steps: &[Step],
    origin: &(dyn Fn(Uuid) -> Option<Vec<u8>> + Sync),
) -> Result<Outcome, IdentityError> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT t.id, t.user_id, t.session_id, t.family_id, s.profile_id, s.token AS head, p.status,
                s.revoked_at IS NULL AND s.expires_at > now() AND t.expires_at > now() AS live,
                t.used_at IS NOT NULL AS used,
                coalesce(t.used_at > now() - make_interval(secs => $2), false) AS in_grace
         FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id JOIN profiles p ON p.id = s.profile_id
         WHERE t.token = $1 FOR NO KEY UPDATE OF t, s",
    )
    .bind(hash)
    .bind(f64::from(GRACE_SECONDS))
    .fetch_optional(&mut *connection)
    .await?;
    let found = found.ok_or(REFUSED)?;
    if found.status == UserStatus::Banned {
        return Err(IdentityError::Forbidden("this account is banned"));
    }
    if !found.live {
        return Err(REFUSED);
    }
    let rotated = |step: &Step| {
        let next = step.next.clone();
        Outcome::Rotated { profile_id: found.profile_id, session_id: found.session_id, next }
    };
    if !found.used
        && let Some(step) = steps.first()
    {
        advance(connection, &found, &step.hash, origin(found.user_id)).await?;
        return Ok(rotated(step));
    }
    if found.in_grace
        && let Some(step) = steps.iter().find(|step| step.hash == found.head)
    {
        return Ok(rotated(step));
    }
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE sessions SET revoked_at = now()
         WHERE id IN (SELECT session_id FROM refresh_tokens WHERE family_id = $1) AND revoked_at IS NULL
         RETURNING id",
    )
    .bind(found.family_id)
    .fetch_all(&mut *connection)
    .await?;
    tell_in_database(connection, found.profile_id, &ended).await?;
    Ok(Outcome::Reused { profile_id: found.profile_id, ended })
}

/// Marks the token used, makes its successor the head of the chain.
async fn advance(
    connection: &mut PgConnection,
    found: &Found,
    next_hash: &str,
    origin: Option<Vec<u8>>,
) -> Result<(), IdentityError> {
    sqlx::query("UPDATE refresh_tokens SET used_at = now() WHERE id = $1")
        .bind(found.id)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO refresh_tokens (id, user_id, token, session_id, family_id, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(days => $6))",
    )
    .bind(Uuid::now_v7())
    .bind(found.user_id)
    .bind(next_hash)
    .bind(found.session_id)
    .bind(found.family_id)
    .bind(REFRESH_TTL_DAYS)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE sessions SET token = $2, last_used_at = now(), origin = coalesce($3, origin) WHERE id = $1")
        .bind(found.session_id)
        .bind(next_hash)
        .bind(origin)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// SHA-256 in hex: what is stored of a token.
pub(super) fn token_hash(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

/// The text of 32 secret bytes.
pub(super) fn encode_token(secret: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(secret)
}

fn successor(key: &hmac::Key, token: &str) -> String {
    encode_token(hmac::sign(key, token.as_bytes()).as_ref())
}
