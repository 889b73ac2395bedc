//! Websocket tickets: 256 random bits that stand for an access token for 30 s and work once. Stored as a hash; redeemed
//! by `DELETE … RETURNING`, so that of any number of attempts at any number of nodes one succeeds.

use std::collections::HashMap;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::keys::random_bytes;
use super::{Access, Identity, IdentityError};
use crate::protocol::codes::Refusal;

/// Life of a ticket, milliseconds.
pub const TICKET_TTL_MS: u64 = 30_000;

#[derive(sqlx::FromRow)]
struct Redeemed {
    hash: Vec<u8>,
    profile_id: Uuid,
    session_id: Uuid,
    access_expires_at: DateTime<Utc>,
    live: bool,
}

impl Identity {
    /// A ticket for the session of `access`; what it opens lives no longer than `access` itself.
    pub async fn create_ticket(&self, access: Access) -> Result<String, IdentityError> {
        let ticket = URL_SAFE_NO_PAD.encode(random_bytes::<32>()?);
        let hash = hash(&ticket);
        let pool = self.ticket_pool.clone();
        self.shielded_ticket(async move {
            sqlx::query(
                "INSERT INTO ws_tickets (hash, session_id, profile_id, access_expires_at, expires_at)
                 VALUES ($1, $2, $3, to_timestamp($4::bigint / 1000.0), now() + make_interval(secs => $5::int))",
            )
            .bind(hash)
            .bind(access.session_id)
            .bind(access.profile_id)
            .bind(access.expires_at_ms)
            .bind(i32::try_from(TICKET_TTL_MS / 1000).unwrap_or(30))
            .execute(&pool)
            .await?;
            Ok(())
        })
        .await?;
        Ok(ticket)
    }

    /// Redeems one ticket; see [`Identity::redeem_tickets`].
    ///
    /// # Errors
    /// `unauthenticated` when it is unknown, used, expired or its session has ended; `unavailable` without database.
    pub async fn redeem_ticket(&self, ticket: &str) -> Result<Access, Refusal> {
        if !is_wellformed(ticket) {
            return Err(refused());
        }
        let one = self.redeem_tickets(vec![ticket.to_owned()]).await?;
        one.into_iter().next().unwrap_or_else(|| Err(refused()))
    }

    /// Redeems many tickets with one statement, answers in the same order. A ticket named twice is given once.
    ///
    /// # Errors
    /// As a whole `unavailable` (then the tickets may be spent); one by one as [`Identity::redeem_ticket`].
    pub async fn redeem_tickets(&self, tickets: Vec<String>) -> Result<Vec<Result<Access, Refusal>>, Refusal> {
        let hashes: Vec<Vec<u8>> = tickets.iter().map(|ticket| hash(ticket)).collect();
        let wanted = hashes.clone();
        let pool = self.ticket_pool.clone();
        let rows: Vec<Redeemed> = self
            .shielded_ticket(async move {
                Ok(sqlx::query_as(
                    "DELETE FROM ws_tickets t USING sessions s
                     WHERE t.hash = ANY($1) AND s.id = t.session_id
                     RETURNING t.hash, t.profile_id, t.session_id, t.access_expires_at,
                               t.expires_at > now() AND t.access_expires_at > now()
                               AND s.revoked_at IS NULL AND s.expires_at > now() AS live",
                )
                .bind(wanted)
                .fetch_all(&pool)
                .await?)
            })
            .await?;
        let mut by_hash: HashMap<Vec<u8>, Redeemed> = rows.into_iter().map(|row| (row.hash.clone(), row)).collect();
        let answer = |hash: &Vec<u8>| match by_hash.remove(hash) {
            Some(row) if row.live => Ok(Access {
                profile_id: row.profile_id,
                session_id: row.session_id,
                expires_at_ms: row.access_expires_at.timestamp_millis(),
            }),
            _ => Err(refused()),
        };
        Ok(hashes.iter().map(answer).collect())
    }
}

fn refused() -> Refusal {
    IdentityError::Unauthenticated("the ticket is unknown, used or expired").into()
}

/// Whether it could be one of ours; what could not is refused without a look into the database.
fn is_wellformed(ticket: &str) -> bool {
    URL_SAFE_NO_PAD.decode(ticket).is_ok_and(|bits| bits.len() == 32)
}

fn hash(ticket: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, ticket.as_bytes()).as_ref().to_vec()
}
