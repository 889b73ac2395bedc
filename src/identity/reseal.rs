//! Changing the root key: what was sealed and indexed with an old one is sealed and indexed with the present one, in
//! batches beside running nodes, which find both meanwhile. A run that is cut off is taken up by the next one. In the end
//! the old key is forgotten, and no node may start with it alone.

use std::time::Duration;

use sqlx::{PgPool, Row};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::keys::Keys;
use super::seal::Sealer;
use super::{IdentityError, reading};

/// Rows of a batch.
const BATCH_ROWS: i64 = 500;
/// A node says so often that it seals with its key.
pub const USE_EVERY: Duration = Duration::from_secs(10);
/// A key that no node named for so long is out of use.
const UNUSED: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Resealed {
    pub users: u64,
    pub sessions: u64,
    /// Sealed with a key that is none of ours: left as they are.
    pub unreadable: u64,
    /// Old root keys that the database knows no more.
    pub retired: u64,
}

/// Why the change did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    #[error(
        "a node still seals with the old key {0}: give every node the new HAUS_SECRET_KEY first, then run this again"
    )]
    InUse(String),
    #[error("{0} values open with none of the keys: name the missing one in HAUS_SECRET_KEYS_ALSO")]
    Unreadable(u64),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Waits up to `patience` until no node seals with an old key, seals everything with the present one of `keys`, then
/// forgets the others.
///
/// # Errors
/// The old keys stay known with every one of them.
pub async fn reseal(pool: &PgPool, keys: &Keys, patience: Duration) -> Result<Resealed, ResealError> {
    wait_until_unused(pool, keys, patience).await?;
    let sealer = Sealer::new(keys)?;
    let mut done = Resealed::default();
    loop {
        let (users, bad_users) = all(pool, &sealer, Table::Users).await?;
        let (sessions, bad_sessions) = all(pool, &sealer, Table::Sessions).await?;
        done.users += users;
        done.sessions += sessions;
        done.unreadable = bad_users + bad_sessions;
        if users + sessions == 0 {
            break;
        }
    }
    if done.unreadable > 0 {
        return Err(ResealError::Unreadable(done.unreadable));
    }
    let retired =
        sqlx::query("DELETE FROM root_keys WHERE key_id <> $1 AND used_at < now() - make_interval(secs => $2)");
    let retired = retired.bind(keys.id.as_slice()).bind(UNUSED.as_secs_f64()).execute(pool);
    done.retired = reading(retired).await?.rows_affected();
    Ok(done)
}

async fn wait_until_unused(pool: &PgPool, keys: &Keys, patience: Duration) -> Result<(), ResealError> {
    let began = Instant::now();
    loop {
        let used: Option<Vec<u8>> = reading(
            sqlx::query_scalar(
                "SELECT key_id FROM root_keys WHERE key_id <> $1 AND used_at > now() - make_interval(secs => $2) LIMIT 1",
            )
            .bind(keys.id.as_slice())
            .bind(UNUSED.as_secs_f64())
            .fetch_optional(pool),
        )
        .await?;
        let Some(used) = used else { return Ok(()) };
        if began.elapsed() >= patience {
            return Err(ResealError::InUse(hex::encode(used)));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[derive(Clone, Copy)]
enum Table {
    Users,
    Sessions,
}

impl Table {
    /// Rows after `$1` with a value that does not begin with `$2`: id and both sealed columns.
    fn select(self) -> &'static str {
        match self {
            Self::Users => {
                "SELECT id, email, NULL::bytea FROM users
                 WHERE id > $1 AND substring(email FROM 1 FOR length($2)) <> $2 ORDER BY id LIMIT $3"
            }
            Self::Sessions => {
                "SELECT id, user_agent, ip FROM sessions
                 WHERE id > $1 AND (substring(user_agent FROM 1 FOR length($2)) <> $2
                     OR substring(ip FROM 1 FOR length($2)) <> $2) ORDER BY id LIMIT $3"
            }
        }
    }

    /// A row changed since it was read keeps what it has; the next pass sees it.
    fn update(self) -> &'static str {
        match self {
            Self::Users => {
                "UPDATE users u SET email = w.one, email_bidx = w.two
                 FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) w (id, one, two, before)
                 WHERE u.id = w.id AND u.email = w.before"
            }
            Self::Sessions => {
                "UPDATE sessions s SET user_agent = w.one, ip = w.two
                 FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) w (id, one, two, before)
                 WHERE s.id = w.id AND s.user_agent IS NOT DISTINCT FROM w.before"
            }
        }
    }
}

/// One pass over a table: rows changed, and rows that open with no key.
async fn all(pool: &PgPool, sealer: &Sealer, table: Table) -> Result<(u64, u64), IdentityError> {
    let start = sealer.present_start();
    let (mut after, mut changed, mut unreadable) = (Uuid::nil(), 0, 0);
    loop {
        let rows = sqlx::query(table.select()).bind(after).bind(&start).bind(BATCH_ROWS).fetch_all(pool);
        let rows = reading(rows).await?;
        let Some(last) = rows.last() else { return Ok((changed, unreadable)) };
        after = last.try_get(0)?;
        let (mut ids, mut ones, mut twos, mut befores) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let id: Uuid = row.try_get(0)?;
            let (one, two): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.try_get(1)?, row.try_get(2)?);
            match anew(sealer, table, id, one.as_deref(), two.as_deref()) {
                Ok((new_one, new_two)) => {
                    ids.push(id);
                    ones.push(new_one);
                    twos.push(new_two);
                    befores.push(one);
                }
                Err(error) => {
                    tracing::warn!(%id, %error, "a sealed value does not open");
                    unreadable += 1;
                }
            }
        }
        let update = sqlx::query(table.update()).bind(ids).bind(ones).bind(twos).bind(befores).execute(pool);
        changed += reading(update).await?.rows_affected();
    }
}

type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Both columns as the present key has them.
fn anew(
    sealer: &Sealer,
    table: Table,
    id: Uuid,
    one: Option<&[u8]>,
    two: Option<&[u8]>,
) -> Result<Pair, IdentityError> {
    let again = |table: &str, column: &str, value: Option<&[u8]>| -> Result<Option<Vec<u8>>, IdentityError> {
        let plain = value.map(|value| sealer.open(table, column, id, value)).transpose()?;
        plain.map(|plain| sealer.seal(table, column, id, &plain)).transpose()
    };
    match (table, one) {
        (Table::Users, Some(sealed)) => {
            let email = sealer.open_text("users", "email", id, sealed)?;
            Ok((again("users", "email", one)?, Some(sealer.email_index(&email).to_vec())))
        }
        (Table::Users, None) => Ok((None, None)),
        (Table::Sessions, _) => Ok((again("sessions", "user_agent", one)?, again("sessions", "ip", two)?)),
    }
}
