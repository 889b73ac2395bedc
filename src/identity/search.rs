//! Finding people by the beginnings of the words of their names. Who may be found is decided here, what is seen of them
//! in `profiles`.

use sqlx::Row;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use uuid::Uuid;

use super::{Identity, IdentityError, Subject, reading};
use crate::protocol::types::Profile;

/// People looked at for one search, in no order; whoever has a common name is found by more of it.
const CANDIDATES: i64 = 500;

/// Bytes of a [`Place`]: a name of 80 characters, each taken apart into 33 bytes at most (U+FDFA), and what tells it from
/// another's.
const PLACE_BYTES_MAX: usize = 80 * 33 + 64;

/// A place in the order of a search, by name and id: it is one whatever has changed since.
#[derive(Debug, PartialEq, Eq)]
pub struct Place(Vec<u8>);

impl Place {
    /// Reads a cursor of the form that [`cursor_schema`] tells.
    pub fn parse(cursor: &str) -> Option<Self> {
        let is_form = (2..=2 * PLACE_BYTES_MAX).contains(&cursor.len()) && !cursor.contains(|c: char| c.is_uppercase());
        hex::decode(cursor).ok().filter(|_| is_form).map(Self)
    }
}

/// What a cursor of a search looks like.
pub fn cursor_schema() -> Object {
    let pattern = format!("^([0-9a-f]{{2}}){{1,{PLACE_BYTES_MAX}}}$");
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

/// A page of people.
#[derive(Debug)]
pub struct Found {
    pub profiles: Vec<Profile>,
    /// Whether more follow the last one.
    pub more: bool,
    places: Vec<(Uuid, Place)>,
}

impl Found {
    /// The cursor of what follows this person.
    pub fn place_of(&self, id: Uuid) -> Option<String> {
        self.places.iter().find(|(one, _)| *one == id).map(|(_, place)| hex::encode(&place.0))
    }
}

impl Identity {
    /// ACTIVE and PENDING people whose names have words that begin with those of `words`, by name. Left out are those
    /// whose profile `reader` may not see, and those where one has blocked the other.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn search_profiles(
        &self,
        reader: &Subject,
        words: &str,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Found, IdentityError> {
        // One more than the page tells whether there is another.
        let rows = sqlx::query(FOUND_ROWS)
            .bind(words)
            .bind(reader.profile_id)
            .bind(CANDIDATES)
            .bind(after.map(|Place(place)| place))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1));
        let mut places = Vec::new();
        for row in reading(rows.fetch_all(&self.pool)).await? {
            places.push((row.try_get("id")?, Place(row.try_get("place")?)));
        }
        let more = places.len() > limit;
        places.truncate(limit);
        let ids: Vec<Uuid> = places.iter().map(|(id, _)| *id).collect();
        Ok(Found { profiles: self.profiles(reader.profile_id, &ids).await?, more, places })
    }
}

/// Ids of a page, by folded name, after the place `$4`, whoever stood there. Its first condition is the expression of
/// `idx_profiles_words`. A place is the name and the id with a byte between that is in no name.
pub const FOUND_ROWS: &str = r#"
    SELECT id, place FROM (
        SELECT p.id, convert_to(folded(p.display_name), 'UTF8') || '\x00'::bytea || uuid_send(p.id) AS place
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
    WHERE $4::bytea IS NULL OR place > $4
    ORDER BY place LIMIT $5"#;
