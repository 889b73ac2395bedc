//! Many people and threads for load tests: set-based, without passwords, each with a session and a token of 24 h. The
//! same size again finds the same people and threads and writes fresh tokens.

use std::fs::{OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use haus::identity::seal::Sealer;
use haus::identity::{Identity, Keys};
use haus::store::admission;
use haus::store::random_hex;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::super::database::Database;
use super::super::error::CliError;
use super::super::token;
use super::fixed_id;
use super::progress::Progress;

/// People of one transaction.
const PEOPLE_CHUNK: usize = 2_000;
/// Memberships of one statement.
const MEMBERS_CHUNK: usize = 2_000;
const TOKEN_TTL_MS: u64 = 24 * 3_600_000;
const FIRST_NAMES: [&str; 16] = [
    "Amari", "Bijou", "Cleo", "Dior", "Essence", "Fabien", "Giselle", "Honey", "Indigo", "Jules", "Karma", "Lux",
    "Milan", "Noor", "Onyx", "Paris",
];

#[derive(Clone, Copy)]
pub struct Size {
    pub people: u32,
    pub threads: u32,
    pub members: u32,
}

impl Size {
    /// Members of a thread: the next `members` people round the table.
    fn members_of(self, thread: u32) -> impl Iterator<Item = u32> {
        let first = u64::from(thread) * u64::from(self.members);
        (0..u64::from(self.members)).map(move |next| ((first + next) % u64::from(self.people)) as u32)
    }

    fn thread_id(self, thread: u32) -> Uuid {
        fixed_id(&format!("crowd thread|{}|{}|{}|{thread}", self.people, self.threads, self.members))
    }
}

fn user_id(person: u32) -> Uuid {
    fixed_id(&format!("crowd user|{person}"))
}

fn profile_id(person: u32) -> Uuid {
    fixed_id(&format!("crowd profile|{person}"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    profile_id: Uuid,
    token: &'a str,
    threads: Vec<Uuid>,
}

pub async fn seed(database: &Database, keys: &Keys, size: Size, out: &Path) -> Result<(), CliError> {
    let file = |error: std::io::Error| CliError::setting(format!("--out: {}: {error}", out.display()));
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(out).map_err(file)?;
    // It holds tokens; one that was there before may be open to all. A pipe or device stays as it is.
    if target.metadata().is_ok_and(|found| found.is_file()) {
        target.set_permissions(Permissions::from_mode(0o600)).map_err(file)?;
    }
    let mut connection = admission::connect(&database.url, Duration::from_secs(5)).await?;
    let sealer = Sealer::new(keys)?;

    let mut progress = Progress::new("people", size.people as usize);
    let mut sessions = Vec::with_capacity(size.people as usize);
    let people: Vec<u32> = (0..size.people).collect();
    for chunk in people.chunks(PEOPLE_CHUNK) {
        sessions.extend(insert_people(&mut connection, &sealer, chunk).await?);
        progress.add(chunk.len());
    }
    progress.finish();

    let mut progress = Progress::new("threads", size.threads as usize);
    let threads: Vec<u32> = (0..size.threads).collect();
    for chunk in threads.chunks((MEMBERS_CHUNK / size.members as usize).max(1)) {
        insert_threads(&mut connection, size, chunk).await?;
        progress.add(chunk.len());
    }
    progress.finish();

    let mut threads_of: Vec<Vec<Uuid>> = vec![Vec::new(); size.people as usize];
    for thread in threads {
        let id = size.thread_id(thread);
        for member in size.members_of(thread) {
            if let Some(list) = threads_of.get_mut(member as usize) {
                list.push(id);
            }
        }
    }
    let pool = haus::store::pools::connect(&database.url, "seed", 1, &haus::store::safety::SafetyState::default())?;
    let identity = token::identity(pool, keys, TOKEN_TTL_MS)?;
    let mut writer = BufWriter::new(target);
    for ((person, session_id), threads) in people.into_iter().zip(sessions).zip(threads_of) {
        write_line(&mut writer, &identity, person, session_id, threads)?;
    }
    writer.flush().map_err(file)?;
    connection.close().await?;
    Ok(())
}

fn write_line(
    writer: &mut impl Write,
    identity: &Identity,
    person: u32,
    session_id: Uuid,
    threads: Vec<Uuid>,
) -> Result<(), CliError> {
    let profile_id = profile_id(person);
    let token = identity.issue_access(profile_id, session_id, TOKEN_TTL_MS)?;
    let line = serde_json::to_string(&Line { profile_id, token: &token, threads });
    let line = line.map_err(|error| CliError::failed(error.to_string()))?;
    writeln!(writer, "{line}").map_err(|error| CliError::failed(format!("--out: {error}")))
}

/// Makes those people who are missing, and a session for each of them; returns the sessions in order.
async fn insert_people(connection: &mut PgConnection, sealer: &Sealer, people: &[u32]) -> Result<Vec<Uuid>, CliError> {
    let users: Vec<Uuid> = people.iter().map(|person| user_id(*person)).collect();
    let profiles: Vec<Uuid> = people.iter().map(|person| profile_id(*person)).collect();
    let settings: Vec<Uuid> = people.iter().map(|person| fixed_id(&format!("crowd settings|{person}"))).collect();
    let sessions: Vec<Uuid> = people.iter().map(|_| Uuid::now_v7()).collect();
    let (mut emails, mut indexes, mut names, mut hashes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (person, user) in people.iter().zip(&users) {
        let email = format!("crowd{person}@load.example");
        emails.push(sealer.seal("users", "email", *user, email.as_bytes())?);
        indexes.push(sealer.email_index(&email).to_vec());
        names.push(format!("{} {person}", FIRST_NAMES[*person as usize % FIRST_NAMES.len()]));
        // Stands where the hash of a refresh token would: nobody has one for these sessions.
        hashes.push(random_hex::<32>().map_err(|error| CliError::failed(error.to_string()))?);
    }
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO users (id, email, email_bidx)
         SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) ON CONFLICT DO NOTHING",
    )
    .bind(&users)
    .bind(&emails)
    .bind(&indexes)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO profiles (id, user_id, display_name, role, status)
         SELECT w.id, w.user_id, w.name, 'MEMBER', 'ACTIVE' FROM unnest($1::uuid[], $2::uuid[], $3::text[]) w (id, user_id, name)
         ON CONFLICT DO NOTHING",
    )
    .bind(&profiles)
    .bind(&users)
    .bind(&names)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO user_settings (id, user_id) SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT DO NOTHING",
    )
    .bind(&settings)
    .bind(&profiles)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "WITH old AS (DELETE FROM sessions WHERE profile_id = ANY ($3) AND kind = 'seed' AND expires_at < now())
         INSERT INTO sessions (id, user_id, profile_id, token, kind, expires_at)
         SELECT w.id, w.user_id, w.profile_id, w.hash, 'seed', now() + make_interval(secs => $5)
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) w (id, user_id, profile_id, hash)",
    )
    .bind(&sessions)
    .bind(&users)
    .bind(&profiles)
    .bind(&hashes)
    .bind((TOKEN_TTL_MS / 1000) as f64)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(sessions)
}

/// Makes those threads that are missing, through the engine's door.
async fn insert_threads(connection: &mut PgConnection, size: Size, threads: &[u32]) -> Result<(), CliError> {
    let (mut ids, mut names, mut creators, mut members) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for thread in threads {
        let list: Vec<Uuid> = size.members_of(*thread).map(profile_id).collect();
        ids.push(size.thread_id(*thread));
        names.push(format!("Load {thread}"));
        creators.push(list.first().copied().unwrap_or_default());
        let texts: Vec<String> = list.iter().map(Uuid::to_string).collect();
        members.push(format!("{{{}}}", texts.join(",")));
    }
    let refused: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT c.code
         FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[]) w (id, name, creator, members)
         CROSS JOIN LATERAL engine.create_thread(w.id, 'GROUP', w.name, NULL, NULL, w.creator, w.members::uuid[], NULL, 2147483647) c
         WHERE NOT EXISTS (SELECT FROM threads t WHERE t.id = w.id) AND c.code <> 'ok'",
    )
    .bind(&ids)
    .bind(&names)
    .bind(&creators)
    .bind(&members)
    .fetch_all(connection)
    .await?;
    if refused.is_empty() {
        Ok(())
    } else {
        Err(CliError::failed(format!("threads were refused: {}", refused.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn members_are_dealt_round() {
        let size = Size { people: 5, threads: 4, members: 3 };
        let dealt: Vec<Vec<u32>> = (0..4).map(|thread| size.members_of(thread).collect()).collect();
        assert_eq!(dealt, [vec![0, 1, 2], vec![3, 4, 0], vec![1, 2, 3], vec![4, 0, 1]]);
    }
}
