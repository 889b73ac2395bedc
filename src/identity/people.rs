//! Who is behind a session: state of the session, name and standing of the profile. Read through a small cache for
//! requests (at most 2 s old), and fresh for the `auth` of a socket.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;
use sqlx::PgPool;
use uuid::Uuid;

use super::authorize::{Action, Resource, Standing, Subject, authorize};
use super::{Access, Identity, IdentityError, now_ms, reading};
use crate::protocol::codes::Refusal;
use crate::protocol::types::{UserRole, UserStatus};

/// How old a cached row may be, milliseconds.
const CACHE_LIFE_MS: i64 = 2_000;
/// Sessions cached; when reached, what is older than its life goes, and if that is nothing, everything.
const CACHE_MAX: usize = 50_000;

/// The profile behind a live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub profile_id: Uuid,
    pub display_name: String,
    pub standing: Standing,
}

impl Person {
    /// The person as the one who acts, for [`super::authorize`].
    pub fn subject(&self) -> Subject {
        Subject { profile_id: self.profile_id, standing: self.standing }
    }

    /// [`authorize`] for something of one's own, now. A socket asks for [`Action::OpenSocket`] after every `auth`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn may(&self, action: Action) -> Result<(), Refusal> {
        authorize(&self.subject(), action, Resource::Own)
    }
}

/// The cache, by session.
#[derive(Default)]
pub struct People {
    by_session: DashMap<Uuid, (Arc<Person>, i64)>,
}

impl People {
    fn get(&self, access: &Access) -> Option<Arc<Person>> {
        let entry = self.by_session.get(&access.session_id)?;
        let (person, read_at_ms) = entry.value();
        let fresh = now_ms() - read_at_ms < CACHE_LIFE_MS && person.profile_id == access.profile_id;
        fresh.then(|| Arc::clone(person))
    }

    fn put(&self, session_id: Uuid, person: Arc<Person>, read_at_ms: i64) {
        if self.by_session.len() >= CACHE_MAX {
            let oldest = now_ms() - CACHE_LIFE_MS;
            self.by_session.retain(|_, (_, at)| *at > oldest);
            if self.by_session.len() >= CACHE_MAX {
                self.by_session.clear();
            }
        }
        self.by_session.insert(session_id, (person, read_at_ms));
    }

    /// Drops what is cached of a session, or of all sessions of a profile.
    pub fn forget(&self, profile_id: Uuid, session_id: Option<Uuid>) {
        match session_id {
            Some(session_id) => drop(self.by_session.remove(&session_id)),
            None => self.forget_profile(profile_id),
        }
    }

    /// Drops what is cached of one profile.
    pub fn forget_profile(&self, profile_id: Uuid) {
        self.by_session.retain(|_, (person, _)| person.profile_id != profile_id);
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    session_id: Uuid,
    profile_id: Uuid,
    live: bool,
    display_name: String,
    role: UserRole,
    status: UserStatus,
}

impl Identity {
    /// The person behind `access`, at most 2 s old. For requests.
    ///
    /// # Errors
    /// `unauthenticated` when the session has ended, `unavailable` without the database.
    pub async fn person(&self, access: &Access) -> Result<Arc<Person>, Refusal> {
        if let Some(person) = self.people.get(access) {
            return Ok(person);
        }
        let found = self.people_now(std::slice::from_ref(access)).await?;
        found.into_iter().next().unwrap_or_else(|| Err(ended()))
    }

    /// The people behind `accesses` as the database has them now, in the same order, with one statement. For the
    /// `auth` of sockets, which registers the session first and asks this afterwards.
    ///
    /// # Errors
    /// As a whole `unavailable`; one by one `unauthenticated` when the session has ended.
    pub async fn people_now(&self, accesses: &[Access]) -> Result<Vec<Result<Arc<Person>, Refusal>>, Refusal> {
        let read_at_ms = now_ms();
        let ids: Vec<Uuid> = accesses.iter().map(|access| access.session_id).collect();
        let rows = reading(read(&self.pool, &ids)).await?;
        let rows: HashMap<Uuid, Row> = rows.into_iter().map(|row| (row.session_id, row)).collect();
        let answer = |access: &Access| match rows.get(&access.session_id) {
            Some(row) if row.live && row.profile_id == access.profile_id => {
                let standing = Standing { role: row.role, status: row.status };
                let person =
                    Arc::new(Person { profile_id: row.profile_id, display_name: row.display_name.clone(), standing });
                self.people.put(access.session_id, Arc::clone(&person), read_at_ms);
                Ok(person)
            }
            _ => Err(ended()),
        };
        Ok(accesses.iter().map(answer).collect())
    }
}

fn ended() -> Refusal {
    IdentityError::Unauthenticated("the session has ended").into()
}

async fn read(pool: &PgPool, session_ids: &[Uuid]) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT s.id AS session_id, s.profile_id, s.revoked_at IS NULL AND s.expires_at > now() AS live,
                p.display_name, p.role, engine.standing(p.status, p.role, p.suspended_until) AS status
         FROM sessions s JOIN profiles p ON p.id = s.profile_id
         WHERE s.id = ANY($1)",
    )
    .bind(session_ids)
    .fetch_all(pool)
    .await
}
