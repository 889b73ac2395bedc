//! Finding people by the beginnings of the words of their names. Who may be found is decided here, what is seen of them
//! in `profiles`.

use uuid::Uuid;

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
        // One more than the page tells whether there is another.
        let rows = sqlx::query_scalar(FOUND_ROWS)
            .bind(words)
            .bind(reader.profile_id)
            .bind(CANDIDATES)
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1));
        let mut ids: Vec<Uuid> = reading(rows.fetch_all(&self.pool)).await?;
        if let (true, Some(after)) = (ids.is_empty(), after) {
            self.profile(reader.profile_id, after).await.map_err(|error| match error {
                IdentityError::NotFound(_) => IdentityError::NotFound("no such place in this search"),
                other => other,
            })?;
        }
        let more = ids.len() > limit;
        ids.truncate(limit);
        Ok(Found { profiles: self.profiles(reader.profile_id, &ids).await?, more })
    }
}

/// Ids of a page, by folded name, after the place of `$4`: that of its name now, whether it is still found or not. Its
/// first condition is the expression of `idx_profiles_words`.
pub const FOUND_ROWS: &str = r#"
    SELECT id FROM (
        SELECT p.id, folded(p.display_name) COLLATE pg_catalog."C" AS name
        FROM profiles p
        LEFT JOIN user_settings s ON s.user_id = p.id
        LEFT JOIN profiles r ON r.id = $2
        LEFT JOIN user_settings o ON o.user_id = $2
        WHERE to_tsvector('simple', folded(p.display_name || ' ' || coalesce(p.ballroom_name, ''))) @@ (
                  SELECT string_agg('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || ''':*', ' & ')::tsquery
                  FROM unnest(to_tsvector('simple', folded($1))) w)
          AND engine.standing(p.status, p.role, p.suspended_until) IN ('ACTIVE', 'PENDING')
          AND NOT engine.are_apart($2, o.blocked_users, p.id, s.blocked_users)
          AND engine.is_open($2, r.role, engine.standing(r.status, r.role, r.suspended_until), p.id, s.privacy, false)
        LIMIT $3) found
    WHERE $4::uuid IS NULL
       OR (name, id) > (SELECT folded(c.display_name) COLLATE pg_catalog."C", c.id FROM profiles c WHERE c.id = $4)
    ORDER BY name, id LIMIT $5"#;
