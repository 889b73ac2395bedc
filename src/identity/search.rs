//! Finding people by the beginnings of the words of their names. Who may be found is decided here, what is seen of them
//! in `profiles`.

use sqlx::Row;
use uuid::Uuid;

use super::profiles::is_open;
use super::{Identity, IdentityError, Subject, reading};
use crate::protocol::types::Profile;

/// People looked at for one search, in no order; whoever has a common name is found by more of it.
const CANDIDATES: i64 = 500;

/// A page of people.
#[derive(Debug)]
pub struct Found {
    pub profiles: Vec<Profile>,
    /// Whether more follow the last one.
    pub more: bool,
}

impl Identity {
    /// ACTIVE and PENDING people whose names have words that begin with those of `words`, by name. Left out are those
    /// whose profile `reader` may not see, and those where one has blocked the other.
    ///
    /// # Errors
    /// `NotFound` for an `after` that is not among them; `Unavailable`.
    pub async fn search_profiles(
        &self,
        reader: &Subject,
        words: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Found, IdentityError> {
        let statement = sqlx::query(CANDIDATE_ROWS).bind(words).bind(reader.profile_id).bind(CANDIDATES);
        let rows = reading(statement.fetch_all(&self.pool)).await?;
        let mut ids = Vec::new();
        for row in rows {
            let (id, privacy): (Uuid, String) = (row.try_get("id")?, row.try_get("privacy")?);
            if is_open(id == reader.profile_id, Some(reader.standing.role), Some(reader.standing.status), &privacy) {
                ids.push(id);
            }
        }
        let from = match after {
            None => 0,
            Some(after) => match ids.iter().position(|id| *id == after) {
                Some(place) => place + 1,
                None => return Err(IdentityError::NotFound("no such place in this search")),
            },
        };
        let more = ids.len() > from + limit;
        let page: Vec<Uuid> = ids.into_iter().skip(from).take(limit).collect();
        Ok(Found { profiles: self.profiles(reader.profile_id, &page).await?, more })
    }
}

const CANDIDATE_ROWS: &str = r#"
    SELECT id, privacy FROM (
        SELECT p.id, lower(p.display_name) AS name, coalesce(s.privacy ->> 'profile', 'public') AS privacy
        FROM profiles p
        LEFT JOIN user_settings s ON s.user_id = p.id
        WHERE to_tsvector('simple', p.display_name || ' ' || coalesce(p.ballroom_name, '')) @@ (
                  SELECT string_agg('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || ''':*', ' & ')::tsquery
                  FROM unnest(to_tsvector('simple', $1)) w)
          AND engine.standing(p.status, p.role, p.suspended_until) IN ('ACTIVE', 'PENDING')
          AND NOT $2 = ANY (coalesce(s.blocked_users, '{}'))
          AND NOT p.id = ANY (coalesce((SELECT o.blocked_users FROM user_settings o WHERE o.user_id = $2), '{}'))
        LIMIT $3) found
    ORDER BY name COLLATE pg_catalog."C", id"#;
