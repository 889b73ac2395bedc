//! Accounts: register, log in, status. Validation of what people typed is the caller's; passwords are hashed in `passwords`,
//! sessions made in `sessions`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::passwords::Verdict;
use super::profiles::own;
use super::sessions::{Client, NewSession, end_surplus, insert_session};
use super::{Identity, IdentityError, reading};
use crate::protocol::types::{Profile, UserRole, UserStatus};
use crate::text::password::prepared;

/// A new account. `email` and `display_name` are trimmed and checked by the caller.
#[derive(Clone)]
pub struct Registration {
    pub email: String,
    pub password: String,
    pub display_name: String,
}

/// What register, login and refresh answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    pub profile: Profile,
    pub session_id: Uuid,
    pub access_token: String,
    pub access_expires_in_ms: u64,
    pub refresh_token: String,
}

#[derive(sqlx::FromRow)]
struct Account {
    user_id: Uuid,
    profile_id: Uuid,
    hashed_password: Option<String>,
    status: UserStatus,
}

impl Identity {
    /// Makes user, profile, settings and a first session in one transaction.
    ///
    /// # Errors
    /// `EmailTaken`, `Busy` when too many passwords are being hashed, `Unavailable`.
    pub async fn register(&self, new: Registration, client: Client) -> Result<SignedIn, IdentityError> {
        let hash = self.passwords.hash(new.password).await?;
        let (user_id, profile_id) = (Uuid::now_v7(), Uuid::now_v7());
        let email = self.sealer.seal("users", "email", user_id, new.email.as_bytes())?;
        let indexes = self.sealer.email_indexes(&new.email);
        let (role, status) = match self.settings.auto_activate {
            true => (UserRole::Member, UserStatus::Active),
            false => (UserRole::Applicant, UserStatus::Pending),
        };
        let (pool, sealer) = (self.pool.clone(), Arc::clone(&self.sealer));
        let (profile, made) = self
            .shielded(async move {
                let mut transaction = pool.begin().await?;
                // While a root key is changed the same address may be stored under either: nodes take turns.
                if let (2.., Some(least)) = (indexes.len(), indexes.iter().min()) {
                    let turn = least.iter().take(8).fold(0_i64, |turn, byte| (turn << 8) | i64::from(*byte));
                    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(turn).execute(&mut *transaction).await?;
                }
                let inserted = sqlx::query(
                    "INSERT INTO users (id, email, email_bidx, hashed_password, last_login_at)
                     SELECT $1, $2, $3, $4, now() WHERE NOT EXISTS (SELECT FROM users WHERE email_bidx = ANY ($5))
                     ON CONFLICT (email_bidx) DO NOTHING",
                )
                .bind(user_id)
                .bind(email)
                .bind(indexes.first())
                .bind(hash)
                .bind(&indexes)
                .execute(&mut *transaction)
                .await?;
                if inserted.rows_affected() == 0 {
                    return Err(IdentityError::EmailTaken);
                }
                insert_profile(&mut transaction, user_id, profile_id, &new.display_name, role, status).await?;
                let made = insert_session(&mut transaction, &sealer, user_id, profile_id, "web", &client).await?;
                let profile = own(&mut transaction, profile_id).await?;
                transaction.commit().await?;
                Ok((profile, made))
            })
            .await?;
        self.signed_in(profile, made.session_id, made.refresh_token)
    }

    /// Checks e-mail and password and makes a session. The work is the same whether the account exists or not.
    ///
    /// # Errors
    /// `BadCredentials`; `Forbidden` when the password is right and the account banned; `Busy`; `Unavailable`.
    pub async fn login(&self, email: &str, password: String, client: Client) -> Result<SignedIn, IdentityError> {
        let indexes = self.sealer.email_indexes(email);
        let account: Option<Account> = reading(
            sqlx::query_as(
                "SELECT u.id AS user_id, p.id AS profile_id, u.hashed_password, p.status
                 FROM users u JOIN profiles p ON p.user_id = u.id WHERE u.email_bidx = ANY ($1)",
            )
            .bind(indexes)
            .fetch_optional(&self.pool),
        )
        .await?;
        let stored = account.as_ref().and_then(|account| account.hashed_password.clone());
        let typed = password;
        let password = prepared(&typed);
        let mut verdict = self.passwords.verify(password.clone(), stored.clone()).await?;
        if verdict == Verdict::Wrong && typed != password {
            // Hashed as it was typed, before passwords had one form: right, and to be hashed again.
            verdict = match self.passwords.verify(typed, stored).await? {
                Verdict::Wrong => Verdict::Wrong,
                Verdict::Right | Verdict::RightButStale => Verdict::RightButStale,
            };
        }
        let account = match (verdict, account) {
            (Verdict::Wrong, _) | (_, None) => return Err(IdentityError::BadCredentials),
            (Verdict::Right | Verdict::RightButStale, Some(account)) => account,
        };
        if account.status == UserStatus::Banned {
            return Err(IdentityError::Forbidden("this account is banned"));
        }
        let rehashed = match verdict {
            Verdict::RightButStale => Some(self.passwords.hash(password).await?),
            Verdict::Right | Verdict::Wrong => None,
        };
        let profile_id = account.profile_id;
        let (pool, sealer) = (self.pool.clone(), Arc::clone(&self.sealer));
        let (profile, made): (Profile, NewSession) = self
            .shielded(async move {
                let mut transaction = pool.begin().await?;
                let (user_id, profile_id) = (account.user_id, account.profile_id);
                let made = insert_session(&mut transaction, &sealer, user_id, profile_id, "web", &client).await?;
                sqlx::query(
                    "UPDATE users SET last_login_at = now(), hashed_password = coalesce($2, hashed_password)
                     WHERE id = $1",
                )
                .bind(user_id)
                .bind(rehashed)
                .execute(&mut *transaction)
                .await?;
                let profile = own(&mut transaction, profile_id).await?;
                transaction.commit().await?;
                Ok((profile, made))
            })
            .await?;
        self.tell_ended(profile_id, &made.ended);
        self.signed_in(profile, made.session_id, made.refresh_token)
    }

    /// Whether this account was logged in to from the client's network before, its ended sessions included as long as
    /// they are kept.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn knows_origin(&self, email: &str, client: &Client) -> Result<bool, IdentityError> {
        let user: Option<Uuid> = reading(
            sqlx::query_scalar("SELECT id FROM users WHERE email_bidx = ANY ($1)")
                .bind(self.sealer.email_indexes(email))
                .fetch_optional(&self.pool),
        )
        .await?;
        let (Some(user_id), Some(network)) = (user, client.network.as_deref()) else { return Ok(false) };
        reading(
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM sessions WHERE user_id = $1 AND origin = ANY ($2))")
                .bind(user_id)
                .bind(self.sealer.origin_indexes(user_id, network))
                .fetch_one(&self.pool),
        )
        .await
    }

    /// Sets the status of a profile. A ban ends all its sessions; a ban or suspension closes its sockets. The caller
    /// has asked `authorize`.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn set_status(
        &self,
        profile_id: Uuid,
        status: UserStatus,
        suspended_until: Option<DateTime<Utc>>,
    ) -> Result<(), IdentityError> {
        let pool = self.pool.clone();
        let ended: Vec<Uuid> = self
            .shielded(async move {
                let mut transaction = pool.begin().await?;
                let changed = sqlx::query("UPDATE profiles SET status = $2, suspended_until = $3 WHERE id = $1")
                    .bind(profile_id)
                    .bind(status)
                    .bind(suspended_until.filter(|_| status == UserStatus::Suspended))
                    .execute(&mut *transaction)
                    .await?;
                if changed.rows_affected() == 0 {
                    return Err(IdentityError::NotFound("no such profile"));
                }
                let ended = match status {
                    UserStatus::Banned => end_surplus(&mut transaction, profile_id, 0).await?,
                    _ => Vec::new(),
                };
                if matches!(status, UserStatus::Banned | UserStatus::Suspended) {
                    sqlx::query("INSERT INTO revocations (id, profile_id) VALUES ($1, $2)")
                        .bind(Uuid::now_v7())
                        .bind(profile_id)
                        .execute(&mut *transaction)
                        .await?;
                }
                transaction.commit().await?;
                Ok(ended)
            })
            .await?;
        self.tell_ended(profile_id, &ended);
        match status {
            UserStatus::Banned | UserStatus::Suspended => self.revoked.apply(profile_id, None),
            UserStatus::Pending | UserStatus::Active => self.people.forget_profile(profile_id),
        }
        Ok(())
    }

    /// The profile that has this e-mail (`haus token --email`).
    pub async fn profile_by_email(&self, email: &str) -> Result<Option<Uuid>, IdentityError> {
        let found = sqlx::query_scalar(
            "SELECT p.id FROM users u JOIN profiles p ON p.user_id = u.id WHERE u.email_bidx = ANY ($1)",
        );
        reading(found.bind(self.sealer.email_indexes(email)).fetch_optional(&self.pool)).await
    }

    /// The answer to a session that was made; `profile` was read in the same transaction.
    pub(super) fn signed_in(
        &self,
        profile: Profile,
        session_id: Uuid,
        refresh_token: String,
    ) -> Result<SignedIn, IdentityError> {
        Ok(SignedIn {
            access_token: self.issue_access(profile.id, session_id, self.settings.access_ttl_ms)?,
            profile,
            session_id,
            access_expires_in_ms: self.settings.access_ttl_ms,
            refresh_token,
        })
    }
}

async fn insert_profile(
    connection: &mut PgConnection,
    user_id: Uuid,
    profile_id: Uuid,
    display_name: &str,
    role: UserRole,
    status: UserStatus,
) -> Result<(), IdentityError> {
    sqlx::query("INSERT INTO profiles (id, user_id, display_name, role, status) VALUES ($1, $2, $3, $4, $5)")
        .bind(profile_id)
        .bind(user_id)
        .bind(display_name)
        .bind(role)
        .bind(status)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO user_settings (id, user_id) VALUES ($1, $2)")
        .bind(Uuid::now_v7())
        .bind(profile_id)
        .execute(connection)
        .await?;
    Ok(())
}
