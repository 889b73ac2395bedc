//! People as `auth` and the user stream's snapshot need them: with their newest threads whole, and where all others stand.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::db;
use super::rows::{MemberThread, Parts, user_role, user_status};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::types::{Peer, UserRole, UserStatus};

/// Most profiles in one call of [`people`].
pub const PEOPLE: usize = 64;
/// Threads of a person that [`people`] reads whole.
pub const FIRST_THREADS: usize = 200;
/// A person and every thread it is an active member of, as of one database snapshot.
#[derive(Debug, Clone)]
pub struct Person {
    pub profile_id: Uuid,
    pub display_name: String,
    pub role: UserRole,
    pub status: UserStatus,
    /// Head of the user stream.
    pub user_seq: i64,
    /// The newest.
    pub threads: Vec<MemberThread>,
    /// Where the others stand, in the same order.
    pub further: Vec<ThreadPosition>,
}

impl Person {
    /// Where every thread stands, the newest first.
    pub fn positions(&self) -> impl Iterator<Item = ThreadPosition> + '_ {
        let place = |thread: &MemberThread| ThreadPosition {
            thread_id: thread.row.id,
            seq: thread.row.seq,
            join_seq: thread.join_seq,
        };
        self.threads.iter().map(place).chain(self.further.iter().copied())
    }
}

/// Head of a thread and start of the present stay in it.
#[derive(Debug, Clone, Copy)]
pub struct ThreadPosition {
    pub thread_id: Uuid,
    pub seq: i64,
    pub join_seq: i64,
}

/// People with all their threads, in one call and one snapshot for up to [`PEOPLE`] profiles, in the order
/// of their ids. Unknown ids are left out.
///
/// # Errors
/// `unavailable`; `invalid` above [`PEOPLE`].
pub async fn people(pool: &PgPool, profiles: &[Uuid]) -> Result<Vec<Person>, Refusal> {
    if profiles.len() > PEOPLE {
        return Err(Refusal::new(ErrorCode::Invalid, "too many profiles in one call"));
    }
    let mut ids = profiles.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let statement = sqlx::query(
        "SELECT profile_id, display_name, profile_role, status, user_seq, thread_id, type, name, description, avatar, \
         house_id, is_archived, is_muted, member_count, seq, no, created_at, last_message_at, role, mark_no, mark_rev, \
         muted_until, join_seq, mentions, peer_id, peer_name, peer_avatar, further_id, further_seq, further_join_seq \
         FROM engine.people_threads($1, $2)",
    )
    .bind(ids)
    .bind(FIRST_THREADS as i32);
    let rows = db::fetch(pool, "people", statement).await?;
    rows.iter().map(person).collect::<Result<_, _>>().map_err(|error| db::refusal("people", &error))
}

/// Head of one person's user stream, and where those of `threads` stand that it is an active member of, in one snapshot.
///
/// # Errors
/// `unavailable`.
pub async fn positions(
    pool: &PgPool,
    profile: Uuid,
    threads: Vec<Uuid>,
) -> Result<(i64, Vec<ThreadPosition>), Refusal> {
    let statement = sqlx::query("SELECT thread_id, seq, join_seq FROM engine.positions($1, $2)");
    let rows = db::fetch(pool, "positions", statement.bind(profile).bind(threads)).await?;
    let read = || {
        let (mut user_seq, mut found) = (0, Vec::with_capacity(rows.len()));
        for row in &rows {
            match row.try_get(0)? {
                Some(thread_id) => {
                    found.push(ThreadPosition { thread_id, seq: row.try_get(1)?, join_seq: row.try_get(2)? });
                }
                None => user_seq = row.try_get(1)?,
            }
        }
        Ok((user_seq, found))
    };
    read().map_err(|error| db::refusal("positions", &error))
}

/// A row of `engine.people_threads`: the columns of `engine.person_thread`, those of threads as arrays.
fn person(row: &PgRow) -> Result<Person, sqlx::Error> {
    let status = user_status(row)?;
    let ids: Vec<Uuid> = column(row, 5)?;
    let mut columns = Columns {
        kinds: column(row, 6)?,
        names: column(row, 7)?,
        descriptions: column(row, 8)?,
        avatars: column(row, 9)?,
        houses: column(row, 10)?,
        archived: column(row, 11)?,
        muted: column(row, 12)?,
        counts: column(row, 13)?,
        seqs: column(row, 14)?,
        nos: column(row, 15)?,
        created: column(row, 16)?,
        last_messages: column(row, 17)?,
        roles: column(row, 18)?,
        marks: column(row, 19)?,
        mark_revs: column(row, 20)?,
        muted_until: column(row, 21)?,
        joins: column(row, 22)?,
        mentions: column(row, 23)?,
        peers: column(row, 24)?,
        peer_names: column(row, 25)?,
        peer_avatars: column(row, 26)?,
    };
    let threads = ids.into_iter().enumerate().map(|(at, id)| columns.thread(at, id, status));
    Ok(Person {
        profile_id: row.try_get(0)?,
        display_name: row.try_get(1)?,
        role: user_role(row)?,
        status,
        user_seq: row.try_get(4)?,
        threads: threads.collect::<Result<_, _>>()?,
        further: further(row)?,
    })
}

fn further(row: &PgRow) -> Result<Vec<ThreadPosition>, sqlx::Error> {
    let (ids, seqs, joins): (Vec<Uuid>, Vec<i64>, Vec<i64>) = (column(row, 27)?, column(row, 28)?, column(row, 29)?);
    let places = ids.into_iter().zip(seqs).zip(joins);
    Ok(places.map(|((thread_id, seq), join_seq)| ThreadPosition { thread_id, seq, join_seq }).collect())
}

/// An array column; NULL is the empty one.
fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<Vec<T>, sqlx::Error>
where
    Vec<T>: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    Ok(row.try_get::<Option<Vec<T>>, _>(index)?.unwrap_or_default())
}

/// The arrays of a person's threads.
struct Columns {
    kinds: Vec<String>,
    names: Vec<Option<String>>,
    descriptions: Vec<Option<String>>,
    avatars: Vec<Option<String>>,
    houses: Vec<Option<Uuid>>,
    archived: Vec<bool>,
    muted: Vec<bool>,
    counts: Vec<i32>,
    seqs: Vec<i64>,
    nos: Vec<i64>,
    created: Vec<DateTime<Utc>>,
    last_messages: Vec<Option<DateTime<Utc>>>,
    roles: Vec<String>,
    marks: Vec<i64>,
    mark_revs: Vec<i32>,
    muted_until: Vec<Option<DateTime<Utc>>>,
    joins: Vec<i64>,
    mentions: Vec<i64>,
    peers: Vec<Option<Uuid>>,
    peer_names: Vec<Option<String>>,
    peer_avatars: Vec<Option<String>>,
}

impl Columns {
    /// Thread number `at`, taken out.
    fn thread(&mut self, at: usize, id: Uuid, status: UserStatus) -> Result<MemberThread, sqlx::Error> {
        let peer = match at_of(&mut self.peers, at)? {
            Some(id) => {
                let display_name = at_of(&mut self.peer_names, at)?.unwrap_or_default();
                Some(Peer { id, display_name, avatar: at_of(&mut self.peer_avatars, at)? })
            }
            None => None,
        };
        Parts {
            id,
            kind: &at_of(&mut self.kinds, at)?,
            name: at_of(&mut self.names, at)?,
            description: at_of(&mut self.descriptions, at)?,
            avatar: at_of(&mut self.avatars, at)?,
            house_id: at_of(&mut self.houses, at)?,
            is_archived: at_of(&mut self.archived, at)?,
            is_muted: at_of(&mut self.muted, at)?,
            member_count: at_of(&mut self.counts, at)?,
            seq: at_of(&mut self.seqs, at)?,
            no: at_of(&mut self.nos, at)?,
            created_at: at_of(&mut self.created, at)?,
            last_message_at: at_of(&mut self.last_messages, at)?,
            role: &at_of(&mut self.roles, at)?,
            mark_no: at_of(&mut self.marks, at)?,
            mark_rev: at_of(&mut self.mark_revs, at)?,
            muted_until: at_of(&mut self.muted_until, at)?,
            join_seq: at_of(&mut self.joins, at)?,
            mentions: at_of(&mut self.mentions, at)?,
            peer,
        }
        .thread(status)
    }
}

fn at_of<T: Default>(column: &mut [T], at: usize) -> Result<T, sqlx::Error> {
    let missing = || sqlx::Error::Decode("arrays of a person's threads differ in length".into());
    column.get_mut(at).map(std::mem::take).ok_or_else(missing)
}
