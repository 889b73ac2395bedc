//! Identity: accounts, passwords, tokens, sessions, tickets, revocation, and the one function that says who may what.
//! Called by `http` and, for credentials, by the composition of the socket engine. Knows neither axum nor sockets.
//!
//! Every mutation runs in a task of its own, so that a client that goes away cannot cancel a database future: sqlx 0.9
//! may hand out a connection inside an open transaction after a cancelled `begin` and lose the next write.

pub mod accounts;
pub mod authorize;
pub mod binding;
pub mod error;
pub mod keys;
pub mod passwords;
pub mod people;
pub mod profiles;
pub mod refresh;
pub mod reseal;
pub mod revocation;
pub mod seal;
pub mod search;
pub mod sessions;
pub mod settings;
mod sweep;
pub mod tickets;
pub mod tokens;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use chrono::Utc;
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

pub use authorize::{Action, Resource, Standing, Subject, authorize};
pub use error::IdentityError;
pub use keys::Keys;
pub use passwords::PasswordCost;
pub use people::Person;
pub use revocation::RevokedSet;
pub use tokens::Access;

use crate::protocol::codes::Refusal;
use passwords::Passwords;
use people::People;
use seal::Sealer;
use tokens::Tokens;

/// What a statement may take before the answer is `unavailable`.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Mutations at work at a time, those whose caller has gone away included; above it the answer is `unavailable`.
const MUTATIONS_MAX: usize = 1_024;
/// Statements about tickets under way; more wait up to [`DATABASE_TIMEOUT`].
const TICKETS_IN_WORK: usize = 2;

/// What the composition root decides about identity.
#[derive(Debug, Clone, Copy)]
pub struct IdentitySettings {
    /// Life of an access token, milliseconds.
    pub access_ttl_ms: u64,
    /// New accounts are ACTIVE members at once (else PENDING applicants).
    pub auto_activate: bool,
    pub password_cost: PasswordCost,
    /// Password hashes computed at a time.
    pub password_cores: usize,
}

/// The use cases of identity, shared by all requests of a node.
pub struct Identity {
    pool: PgPool,
    settings: IdentitySettings,
    tokens: Tokens,
    sealer: Arc<Sealer>,
    passwords: Passwords,
    /// The present key first, then those accepted beside it.
    refresh_keys: Vec<hmac::Key>,
    revoked: Arc<RevokedSet>,
    people: Arc<People>,
    mutations: Arc<Semaphore>,
    /// Connections of tickets, which anybody may make up: these and no others wait for theirs.
    ticket_pool: PgPool,
    tickets_in_work: Arc<Semaphore>,
}

impl Identity {
    /// Builds everything in memory; touches no database. The caller runs [`RevokedSet::poll`] once before ready and
    /// [`RevokedSet::keep_polling`] as a task.
    pub fn new(pool: PgPool, keys: &Keys, settings: IdentitySettings) -> Result<Self, IdentityError> {
        let revoked = Arc::new(RevokedSet::new(settings.access_ttl_ms));
        let people = Arc::new(People::default());
        let forget = Arc::clone(&people);
        revoked.on_revoked(move |profile_id, session_id| forget.forget(profile_id, session_id));
        Ok(Self {
            ticket_pool: pool.clone(),
            tickets_in_work: Arc::new(Semaphore::new(TICKETS_IN_WORK)),
            pool,
            settings,
            tokens: Tokens::new(keys)?,
            sealer: Arc::new(Sealer::new(keys)?),
            passwords: Passwords::new(settings.password_cost, settings.password_cores)?,
            refresh_keys: keys.ring().map(|one| hmac::Key::new(hmac::HMAC_SHA256, &one.refresh)).collect(),
            revoked,
            people,
            mutations: Arc::new(Semaphore::new(MUTATIONS_MAX)),
        })
    }

    /// The same with connections for tickets alone.
    pub fn with_ticket_pool(self, ticket_pool: PgPool) -> Self {
        Self { ticket_pool, ..self }
    }

    /// What a bearer token stands for: signature, type, issuer, audience, time, and the revocations this node knows
    /// of. Synchronous, without I/O.
    pub fn verify_access(&self, token: &str) -> Result<Access, Refusal> {
        let access = self.tokens.verify(token, now_ms())?;
        if self.revoked.contains(access.session_id) {
            return Err(IdentityError::Unauthenticated("the session has ended").into());
        }
        Ok(access)
    }

    /// An access token for an existing session that lives `ttl_ms` (`haus token`, seeds).
    pub fn issue_access(&self, profile_id: Uuid, session_id: Uuid, ttl_ms: u64) -> Result<String, IdentityError> {
        self.tokens.issue(profile_id, session_id, now_ms(), ttl_ms)
    }

    /// The public keys of access tokens.
    pub fn jwks(&self) -> serde_json::Value {
        self.tokens.jwks()
    }

    /// The set of ended sessions: hooks, polling, age.
    pub fn revoked(&self) -> &Arc<RevokedSet> {
        &self.revoked
    }

    /// Life of the access tokens of logins, milliseconds.
    pub fn access_ttl_ms(&self) -> u64 {
        self.settings.access_ttl_ms
    }

    /// Runs a mutation in its own task and waits for it up to [`DATABASE_TIMEOUT`]. After `unavailable` it may or may
    /// not have happened.
    async fn shielded<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, IdentityError>> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let Ok(place) = Arc::clone(&self.mutations).try_acquire_owned() else {
            return Err(IdentityError::Busy { retry_after_ms: 1_000 });
        };
        Self::shielded_in(place, work).await
    }

    /// The same for tickets, which wait in a line of their own.
    async fn shielded_ticket<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, IdentityError>> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let place = Arc::clone(&self.tickets_in_work).acquire_owned();
        match tokio::time::timeout(DATABASE_TIMEOUT, place).await {
            Ok(Ok(place)) => Self::shielded_in(place, work).await,
            Ok(Err(_)) | Err(_) => Err(IdentityError::Busy { retry_after_ms: 1_000 }),
        }
    }

    async fn shielded_in<T: Send + 'static>(
        place: OwnedSemaphorePermit,
        work: impl Future<Output = Result<T, IdentityError>> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
        match tokio::time::timeout(DATABASE_TIMEOUT, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(IdentityError::Task),
            Err(_) => Err(IdentityError::Unavailable),
        }
    }
}

/// Waits for a read up to [`DATABASE_TIMEOUT`]. Only for statements outside a transaction: dropping those is harmless.
async fn reading<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, IdentityError> {
    match tokio::time::timeout(DATABASE_TIMEOUT, query).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(IdentityError::Unavailable),
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}
