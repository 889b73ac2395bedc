//! The root key is bound to its database: the first node keeps a check value there, and whoever comes with another key
//! later is refused instead of registering people twice and letting nobody in. The key of message digests lies beside it,
//! sealed, as digests in the log are compared for ever and cannot be made anew when the root key is changed.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sqlx::{Connection, PgConnection, PgPool, Row};
use uuid::Uuid;

use super::IdentityError;
use super::keys::{ID_BYTES, KEY_BYTES, Keys};
use super::seal::Sealer;
use crate::store::{DbError, with_deadline};

/// Deadline of each look at the database here.
const DEADLINE_MS: u64 = 5_000;
/// Key of the advisory lock that is held while a key is bound: `hkey` in ASCII.
const LOCK_KEY: i64 = 0x686b_6579;

/// The deployment's id: the kept one while it lies in the database it was made in, else a new one, as a copy of a database
/// is another deployment.
const DEPLOYMENT: &str = "
    UPDATE deployment SET
        id = CASE WHEN database_oid = d.oid THEN id ELSE $1 END,
        database_oid = d.oid
    FROM pg_database d WHERE d.datname = current_database()
    RETURNING id";

/// Somebody's address in one of the formats of `seal`.
const SEALED: &str = "
    SELECT id, email FROM users
    WHERE length(email) > 28 AND substring(email FROM 1 FOR 1) IN ('\\x01', '\\x02') LIMIT 1";

/// A deployment whose database knows our root key.
pub struct Bound {
    /// Made once in its database.
    pub deployment: Uuid,
    /// As given, with the key of message digests that the database keeps.
    pub keys: Keys,
}

/// Why the key and the database do not belong together.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "HAUS_SECRET_KEY: this is not the key that the database was set up with; nobody could log in and nothing sealed \
         could be read. Give the first key, or name it in HAUS_SECRET_KEYS_ALSO to change over to this one"
    )]
    Mismatch,
    #[error("the database knows nothing of root keys yet: run `haus migrate`")]
    NotMigrated,
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Crypto(#[from] IdentityError),
}

impl BindError {
    /// The exit code of the process (protocol, section 7).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Mismatch => 2,
            Self::NotMigrated => 4,
            Self::Database(_) | Self::Crypto(_) => 1,
        }
    }
}

/// A root key as the database keeps it.
struct Kept {
    id: Vec<u8>,
    check: Vec<u8>,
    message_mac: Vec<u8>,
}

/// Everything read for the judgement.
struct Found {
    deployment: Uuid,
    kept: Vec<Kept>,
    /// Somebody's id and sealed address, where no key is kept yet: the database may be older than the check value.
    sealed: Option<(Uuid, Vec<u8>)>,
}

/// Refuses keys that are not those of the database; binds the first ones, and a new one that comes with an old one beside
/// it. Idempotent; any number of nodes may call it at once.
pub async fn bind(pool: &PgPool, keys: Keys) -> Result<Bound, BindError> {
    judged(pool, keys, Purpose::Bind).await
}

/// The same judgement, changing nothing.
pub async fn look(pool: &PgPool, keys: Keys) -> Result<Bound, BindError> {
    judged(pool, keys, Purpose::Look).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Bind,
    Look,
}

async fn judged(pool: &PgPool, keys: Keys, purpose: Purpose) -> Result<Bound, BindError> {
    let outcome = with_deadline(pool, DEADLINE_MS, async |connection| {
        let known: bool =
            sqlx::query_scalar("SELECT to_regclass('root_keys') IS NOT NULL").fetch_one(&mut *connection).await?;
        if !known {
            return Ok(None);
        }
        let mut transaction = connection.begin().await?;
        let found = read(&mut transaction).await?;
        let deployment = found.deployment;
        let judged = judge(&found, &keys);
        if let Ok(Judged { new: Some(sealed), .. }) = &judged {
            insert(&mut transaction, &keys, sealed).await?;
        }
        match purpose {
            Purpose::Bind => transaction.commit().await?,
            Purpose::Look => transaction.rollback().await?,
        }
        Ok(Some((deployment, judged)))
    })
    .await?;
    let (deployment, judged) = outcome.ok_or(BindError::NotMigrated)?;
    let Judged { message_mac, .. } = judged?;
    Ok(Bound { deployment, keys: Keys { message_mac, ..keys } })
}

/// Tells the database that a node seals with this key now. False: it was retired, and what is sealed with it from now on
/// would be lost.
pub async fn touch(pool: &PgPool, id: [u8; ID_BYTES]) -> Result<bool, DbError> {
    with_deadline(pool, DEADLINE_MS, async |connection| {
        sqlx::query("UPDATE root_keys SET used_at = now() WHERE key_id = $1")
            .bind(id.as_slice())
            .execute(connection)
            .await
            .map(|done| done.rows_affected() == 1)
    })
    .await
}

async fn read(connection: &mut PgConnection) -> Result<Found, sqlx::Error> {
    // Nodes with different keys that start together on an empty database: one of them is first.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK_KEY).execute(&mut *connection).await?;
    let deployment = sqlx::query_scalar(DEPLOYMENT).bind(Uuid::new_v4()).fetch_one(&mut *connection).await?;
    let rows = sqlx::query("SELECT key_id, check_value, message_mac FROM root_keys ORDER BY bound_at, key_id")
        .fetch_all(&mut *connection)
        .await?;
    let kept: Vec<Kept> = rows
        .iter()
        .map(|row| Ok(Kept { id: row.try_get(0)?, check: row.try_get(1)?, message_mac: row.try_get(2)? }))
        .collect::<Result<_, sqlx::Error>>()?;
    let sealed = match kept.is_empty() {
        true => sqlx::query_as(SEALED).fetch_optional(connection).await?,
        false => None,
    };
    Ok(Found { deployment, kept, sealed })
}

struct Judged {
    message_mac: [u8; KEY_BYTES],
    /// The present key is to be kept from now on: the key of digests, sealed with it.
    new: Option<Vec<u8>>,
}

fn judge(found: &Found, keys: &Keys) -> Result<Judged, BindError> {
    let row_of = |one: &Keys| {
        let same = |row: &&Kept| row.id == one.id && verify_slices_are_equal(&row.check, &one.check).is_ok();
        found.kept.iter().find(same)
    };
    let open = |one: &Keys, row: &Kept| -> Result<[u8; KEY_BYTES], BindError> {
        let plain = Sealer::new(one)?.open("root_keys", "message_mac", Uuid::nil(), &row.message_mac)?;
        plain.try_into().map_err(|_| IdentityError::Crypto("key of message digests").into())
    };
    let seal = |mac: &[u8; KEY_BYTES]| Sealer::new(keys)?.seal("root_keys", "message_mac", Uuid::nil(), mac);
    if let Some(row) = row_of(keys) {
        return Ok(Judged { message_mac: open(keys, row)?, new: None });
    }
    if let Some((other, row)) = keys.also.iter().find_map(|one| Some((one, row_of(one)?))) {
        let message_mac = open(other, row)?;
        return Ok(Judged { message_mac, new: Some(seal(&message_mac)?) });
    }
    if !found.kept.is_empty() {
        return Err(BindError::Mismatch);
    }
    // The first key of this database, whose digests it has made so far.
    let mut first = keys;
    if let Some((user_id, sealed)) = &found.sealed {
        let opens = |one: &&Keys| Sealer::new(one).is_ok_and(|it| it.open("users", "email", *user_id, sealed).is_ok());
        first = keys.ring().find(opens).ok_or(BindError::Mismatch)?;
    }
    Ok(Judged { message_mac: first.message_mac, new: Some(seal(&first.message_mac)?) })
}

async fn insert(connection: &mut PgConnection, keys: &Keys, sealed: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO root_keys (key_id, check_value, message_mac) VALUES ($1, $2, $3)")
        .bind(keys.id.as_slice())
        .bind(keys.check.as_slice())
        .bind(sealed)
        .execute(connection)
        .await
        .map(drop)
}
