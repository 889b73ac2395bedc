//! Sessions: one login on one device. Made at login, listed and ended here; every end writes `revocations` in its own
//! statement or transaction. Rotation of refresh tokens is in `refresh`.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::keys::random_bytes;
use super::refresh::{REFRESH_TTL_DAYS, encode_token, token_hash};
use super::seal::Sealer;
use super::{Identity, IdentityError, reading};
use crate::protocol::time::Timestamp;

/// A session ends for good after so many days, however often it was refreshed.
pub const SESSION_TTL_DAYS: i32 = 90;
/// Live sessions of one profile; beyond it the longest unused one ends at the next login.
const SESSIONS_PER_PROFILE_MAX: i64 = 100;

/// What is known of the device that logs in.
#[derive(Debug, Clone, Default)]
pub struct Client {
    pub user_agent: Option<String>,
    pub address: Option<IpAddr>,
    /// The part of the address that rates are counted by.
    pub network: Option<String>,
}

impl Client {
    /// What is kept to know this network again at the account's next log-in.
    pub(super) fn origin(&self, sealer: &Sealer, user_id: Uuid) -> Option<Vec<u8>> {
        self.network.as_deref().map(|network| sealer.origin_index(user_id, network).to_vec())
    }
}

/// A live session as its owner sees it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    pub id: Uuid,
    /// The session of this very request.
    pub is_current: bool,
    /// `web`, `native`, `cli`.
    pub kind: String,
    pub user_agent: Option<String>,
    pub ip_address: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub last_used_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// A session just made.
pub(super) struct NewSession {
    pub session_id: Uuid,
    pub refresh_token: String,
    /// Sessions that ended to make room.
    pub ended: Vec<Uuid>,
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    kind: String,
    user_agent: Option<Vec<u8>>,
    ip: Option<Vec<u8>>,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl Identity {
    /// Live sessions of a profile, newest first, those with an id below `before`; at most `limit`.
    pub async fn sessions(
        &self,
        profile_id: Uuid,
        current: Uuid,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<SessionView>, IdentityError> {
        let rows: Vec<SessionRow> = reading(
            sqlx::query_as(
                "SELECT id, kind, user_agent, ip, created_at, last_used_at, expires_at FROM sessions
                 WHERE profile_id = $1 AND revoked_at IS NULL AND expires_at > now() AND ($2::uuid IS NULL OR id < $2)
                 ORDER BY id DESC LIMIT $3",
            )
            .bind(profile_id)
            .bind(before)
            .bind(limit)
            .fetch_all(&self.pool),
        )
        .await?;
        let open = |column: &str, id: Uuid, sealed: Option<Vec<u8>>| {
            sealed.map(|sealed| self.sealer.open_text("sessions", column, id, &sealed)).transpose()
        };
        rows.into_iter()
            .map(|row| {
                Ok(SessionView {
                    id: row.id,
                    is_current: row.id == current,
                    kind: row.kind,
                    user_agent: open("user_agent", row.id, row.user_agent)?,
                    ip_address: open("ip", row.id, row.ip)?,
                    created_at: row.created_at.into(),
                    last_used_at: row.last_used_at.into(),
                    expires_at: row.expires_at.into(),
                })
            })
            .collect()
    }

    /// Ends a session of `profile_id`; ending an ended one is a success.
    ///
    /// # Errors
    /// `NotFound` when the profile never had it.
    pub async fn end_session(&self, profile_id: Uuid, session_id: Uuid) -> Result<(), IdentityError> {
        let pool = self.pool.clone();
        let known: bool = self
            .shielded(async move {
                Ok(sqlx::query_scalar(
                    "WITH ended AS (
                         UPDATE sessions SET revoked_at = now()
                         WHERE id = $1 AND profile_id = $2 AND revoked_at IS NULL RETURNING id, profile_id),
                     told AS (
                         INSERT INTO revocations (id, profile_id, session_id)
                         SELECT $3, profile_id, id FROM ended),
                     tickets AS (
                         DELETE FROM ws_tickets WHERE session_id IN (SELECT id FROM ended))
                     SELECT EXISTS (SELECT FROM sessions WHERE id = $1 AND profile_id = $2)",
                )
                .bind(session_id)
                .bind(profile_id)
                .bind(Uuid::now_v7())
                .fetch_one(&pool)
                .await?)
            })
            .await?;
        if !known {
            return Err(IdentityError::NotFound("no such session"));
        }
        self.revoked.apply(profile_id, Some(session_id));
        Ok(())
    }

    /// A session without login, for `haus token` and seeds; it has no refresh token anybody knows.
    pub async fn create_session(&self, profile_id: Uuid, kind: &'static str) -> Result<Uuid, IdentityError> {
        let (pool, sealer) = (self.pool.clone(), std::sync::Arc::clone(&self.sealer));
        let made = self
            .shielded(async move {
                let mut transaction = pool.begin().await?;
                let user_id: Option<Uuid> = sqlx::query_scalar("SELECT user_id FROM profiles WHERE id = $1")
                    .bind(profile_id)
                    .fetch_optional(&mut *transaction)
                    .await?;
                let user_id = user_id.ok_or(IdentityError::NotFound("no such profile"))?;
                let made =
                    insert_session(&mut transaction, &sealer, user_id, profile_id, kind, &Client::default()).await?;
                transaction.commit().await?;
                Ok(made)
            })
            .await?;
        self.tell_ended(profile_id, &made.ended);
        Ok(made.session_id)
    }

    pub(super) fn tell_ended(&self, profile_id: Uuid, sessions: &[Uuid]) {
        for session_id in sessions {
            self.revoked.apply(profile_id, Some(*session_id));
        }
    }
}

/// Inserts a session with the first refresh token of a new family. A new id at every login: no session fixation.
pub(super) async fn insert_session(
    connection: &mut PgConnection,
    sealer: &Sealer,
    user_id: Uuid,
    profile_id: Uuid,
    kind: &str,
    client: &Client,
) -> Result<NewSession, IdentityError> {
    let session_id = Uuid::now_v7();
    let refresh_token = encode_token(&random_bytes::<32>()?);
    let hash = token_hash(&refresh_token);
    let seal = |column: &str, text: Option<String>| {
        text.map(|text| sealer.seal("sessions", column, session_id, text.as_bytes())).transpose()
    };
    sqlx::query(
        "INSERT INTO sessions (id, user_id, profile_id, token, kind, user_agent, ip, expires_at, origin)
         VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(days => $8), $9)",
    )
    .bind(session_id)
    .bind(user_id)
    .bind(profile_id)
    .bind(&hash)
    .bind(kind)
    .bind(seal("user_agent", client.user_agent.clone())?)
    .bind(seal("ip", client.address.map(|address| address.to_string()))?)
    .bind(SESSION_TTL_DAYS)
    .bind(client.origin(sealer, user_id))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO refresh_tokens (id, user_id, token, session_id, family_id, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(days => $6))",
    )
    .bind(Uuid::now_v7())
    .bind(user_id)
    .bind(&hash)
    .bind(session_id)
    .bind(Uuid::now_v7())
    .bind(REFRESH_TTL_DAYS)
    .execute(&mut *connection)
    .await?;
    let ended = end_surplus(connection, profile_id, SESSIONS_PER_PROFILE_MAX).await?;
    Ok(NewSession { session_id, refresh_token, ended })
}

/// Ends all live sessions of a profile but the `keep` last used ones, and writes their revocations.
pub(super) async fn end_surplus(
    connection: &mut PgConnection,
    profile_id: Uuid,
    keep: i64,
) -> Result<Vec<Uuid>, IdentityError> {
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE sessions SET revoked_at = now() WHERE id IN (
             SELECT id FROM sessions WHERE profile_id = $1 AND revoked_at IS NULL
             ORDER BY last_used_at DESC, id DESC OFFSET $2)
         RETURNING id",
    )
    .bind(profile_id)
    .bind(keep)
    .fetch_all(&mut *connection)
    .await?;
    tell_in_database(connection, profile_id, &ended).await?;
    Ok(ended)
}

/// Writes a revocation for each of `sessions`, in the caller's transaction.
pub(super) async fn tell_in_database(
    connection: &mut PgConnection,
    profile_id: Uuid,
    sessions: &[Uuid],
) -> Result<(), IdentityError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = sessions.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "INSERT INTO revocations (id, profile_id, session_id)
         SELECT id, $2, session_id FROM unnest($1::uuid[], $3::uuid[]) AS told (id, session_id)",
    )
    .bind(ids)
    .bind(profile_id)
    .bind(sessions)
    .execute(connection)
    .await?;
    Ok(())
}
