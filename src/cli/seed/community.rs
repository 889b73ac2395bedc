//! The small living community of `seeds/community.json`: houses, people, threads with history. Written once; a repeat
//! finds everything by its fixed id or nonce. Times of messages are relative to the moment of the seed.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use haus::identity::passwords::Passwords as Hasher;
use haus::identity::seal::Sealer;
use haus::identity::{Keys, PasswordCost};
use haus::messaging::send::{SendChecker, SendRequest};
use haus::protocol::types::SendBody;
use haus::store::admission;
use serde::Deserialize;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::super::database::Database;
use super::super::error::CliError;
use super::fixed_id;
use super::logins::Passwords;

const COMMUNITY: &str = include_str!("../../../seeds/community.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Community {
    houses: Vec<House>,
    people: Vec<Person>,
    threads: Vec<Thread>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct House {
    name: String,
    color: String,
    description: String,
    location: String,
    founded: DateTime<Utc>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Person {
    key: String,
    email: String,
    display_name: String,
    ballroom_name: Option<String>,
    pronouns: String,
    bio: String,
    role: String,
    status: String,
    house: Option<String>,
    house_role: Option<String>,
    title: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Thread {
    key: String,
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    house: Option<String>,
    /// The first one makes the thread.
    members: Vec<String>,
    #[serde(default)]
    admins: Vec<String>,
    /// The newest message is so old.
    minutes_ago: i64,
    /// Between two messages, about.
    pace_minutes: i64,
    /// So many of the newest messages these people have not read.
    #[serde(default)]
    unread: HashMap<String, u64>,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Message {
    by: String,
    text: String,
    /// So many messages back.
    reply_back: Option<usize>,
    #[serde(default)]
    mentions: Vec<String>,
}

fn read() -> Result<Community, CliError> {
    serde_json::from_str(COMMUNITY).map_err(|error| CliError::failed(format!("seeds/community.json: {error}")))
}

fn profile_id(key: &str) -> Uuid {
    fixed_id(&format!("profile|{key}"))
}

fn thread_id(key: &str) -> Uuid {
    fixed_id(&format!("thread|{key}"))
}

fn nonce(thread: &str, index: usize) -> Uuid {
    fixed_id(&format!("message|{thread}|{index}"))
}

async fn connect(database: &Database) -> Result<PgConnection, CliError> {
    Ok(admission::connect(&database.url, Duration::from_secs(5)).await?)
}

/// Whether a seed ran to its end: its last message is there.
pub async fn is_seeded(database: &Database) -> Result<bool, CliError> {
    let community = read()?;
    let Some(last) = community.threads.last() else { return Ok(true) };
    let mut connection = connect(database).await?;
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM messages WHERE thread_id = $1 AND nonce = $2)")
        .bind(thread_id(&last.key))
        .bind(nonce(&last.key, last.messages.len().saturating_sub(1)))
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(found)
}

pub async fn seed(database: &Database, keys: &Keys, passwords: &Passwords) -> Result<(), CliError> {
    let community = read()?;
    // Hashed before the transaction begins: the database ends one that does nothing for two seconds.
    let hasher = Hasher::new(PasswordCost::OWASP, 2)?;
    let mut hashes = HashMap::new();
    for person in &community.people {
        if let Some(password) = passwords.get(&person.email) {
            hashes.insert(&person.email, hasher.hash(password.clone()).await?);
        }
    }
    let mut connection = connect(database).await?;
    // One commit for all: a disk that syncs slowly is waited for once.
    let mut transaction = connection.begin().await?;
    for house in &community.houses {
        insert_house(&mut transaction, house).await?;
    }
    let sealer = Sealer::new(keys)?;
    for person in &community.people {
        insert_person(&mut transaction, &sealer, person, hashes.remove(&person.email)).await?;
    }
    let checker = SendChecker::new(&keys.message_mac);
    let now = Utc::now();
    for thread in &community.threads {
        insert_thread(&mut transaction, thread).await?;
        let newest = insert_messages(&mut transaction, &checker, thread, now).await?;
        mark_read(&mut transaction, thread, newest).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

async fn insert_house(connection: &mut PgConnection, house: &House) -> Result<(), CliError> {
    sqlx::query(
        "INSERT INTO houses (id, name, color, description, location, founded) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
    )
    .bind(fixed_id(&format!("house|{}", house.name)))
    .bind(&house.name)
    .bind(&house.color)
    .bind(&house.description)
    .bind(&house.location)
    .bind(house.founded)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_person(
    connection: &mut PgConnection,
    sealer: &Sealer,
    person: &Person,
    hash: Option<String>,
) -> Result<(), CliError> {
    let user_id = fixed_id(&format!("user|{}", person.key));
    let profile_id = profile_id(&person.key);
    let house_id = person.house.as_ref().map(|house| fixed_id(&format!("house|{house}")));
    let mut transaction = connection.begin().await?;
    let added = sqlx::query(
        "INSERT INTO users (id, email, email_bidx, email_verified, hashed_password) VALUES ($1, $2, $3, now(), $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(user_id)
    .bind(sealer.seal("users", "email", user_id, person.email.as_bytes())?)
    .bind(sealer.email_index(&person.email).as_slice())
    .bind(hash)
    .execute(&mut *transaction)
    .await?;
    if added.rows_affected() == 0 {
        return Ok(transaction.rollback().await?);
    }
    sqlx::query(
        "INSERT INTO profiles (id, user_id, display_name, ballroom_name, pronouns, bio, role, status, house_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7::user_role, $8::user_status, $9)",
    )
    .bind(profile_id)
    .bind(user_id)
    .bind(&person.display_name)
    .bind(&person.ballroom_name)
    .bind(&person.pronouns)
    .bind(&person.bio)
    .bind(&person.role)
    .bind(&person.status)
    .bind(house_id)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("INSERT INTO user_settings (id, user_id) VALUES ($1, $2)")
        .bind(fixed_id(&format!("settings|{}", person.key)))
        .bind(profile_id)
        .execute(&mut *transaction)
        .await?;
    if let Some(house_id) = house_id {
        sqlx::query(
            "INSERT INTO house_members (id, profile_id, house_id, role, title)
             VALUES ($1, $2, $3, coalesce($4, 'MEMBER')::house_role, $5)",
        )
        .bind(fixed_id(&format!("house member|{}", person.key)))
        .bind(profile_id)
        .bind(house_id)
        .bind(&person.house_role)
        .bind(&person.title)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(transaction.commit().await?)
}

async fn insert_thread(connection: &mut PgConnection, thread: &Thread) -> Result<(), CliError> {
    let id = thread_id(&thread.key);
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM threads WHERE id = $1)")
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
    if known {
        return Ok(());
    }
    let members: Vec<Uuid> = thread.members.iter().map(|key| profile_id(key)).collect();
    let pair = (thread.kind == "DIRECT").then(|| members.iter().min().zip(members.iter().max())).flatten();
    let codes: Vec<String> =
        sqlx::query_scalar("SELECT code FROM engine.create_thread($1, $2, $3, NULL, $4, $5, $6, $7, 2147483647)")
            .bind(id)
            .bind(&thread.kind)
            .bind(&thread.name)
            .bind(thread.house.as_ref().map(|house| fixed_id(&format!("house|{house}"))))
            .bind(members.first().copied().unwrap_or_default())
            .bind(&members)
            .bind(pair.map(|(low, high)| format!("{low}:{high}")))
            .fetch_all(&mut *connection)
            .await?;
    if let Some(code) = codes.iter().find(|code| *code != "ok") {
        return Err(CliError::failed(format!("the thread {} was refused: {code}", thread.key)));
    }
    for admin in &thread.admins {
        sqlx::query("SELECT code FROM engine.change_member($1, $2, $3, 'ADMIN', NULL)")
            .bind(id)
            .bind(members.first())
            .bind(profile_id(admin))
            .fetch_all(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Appends the history, oldest first; returns the `no` of the newest message.
async fn insert_messages(
    connection: &mut PgConnection,
    checker: &SendChecker,
    thread: &Thread,
    now: DateTime<Utc>,
) -> Result<i64, CliError> {
    let mut newest = 0;
    let mut ids: Vec<Uuid> = Vec::with_capacity(thread.messages.len());
    for (index, message) in thread.messages.iter().enumerate() {
        let reply = message.reply_back.and_then(|back| ids.get(index.checked_sub(back)?).copied());
        let body = SendBody {
            nonce: Some(nonce(&thread.key, index)),
            content: Some(message.text.clone()),
            reply_to_id: reply,
            mentions: message.mentions.iter().map(|key| profile_id(key)).collect(),
            ..SendBody::default()
        };
        let refused = |what: &str| CliError::failed(format!("message {index} of {}: {what}", thread.key));
        let request = checker
            .check(thread_id(&thread.key), profile_id(&message.by), body)
            .map_err(|refusal| refused(&refusal.message))?;
        let back = (thread.messages.len() - 1 - index) as i64;
        // Uneven, as people are: 1 to 97 s beside the pace.
        let at = now
            - TimeDelta::minutes(thread.minutes_ago + back * thread.pace_minutes)
            - TimeDelta::seconds((back * 37) % 97);
        let (code, no, id) = append(connection, &request, at).await?;
        match (code.as_str(), no, id) {
            ("ok" | "dup", Some(no), Some(id)) => {
                newest = no;
                ids.push(id);
            }
            _ => return Err(refused(&code)),
        }
    }
    Ok(newest)
}

async fn append(
    connection: &mut PgConnection,
    request: &SendRequest,
    at: DateTime<Utc>,
) -> Result<(String, Option<i64>, Option<Uuid>), CliError> {
    let mentions: Vec<String> = request.body.mentions.iter().map(Uuid::to_string).collect();
    let row = sqlx::query(
        "SELECT code, no, message_id FROM engine.append_messages(
             ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[$4], ARRAY[$5], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[$6],
             ARRAY[$7], ARRAY[$8], ARRAY[$9], false)",
    )
    .bind(request.thread_id)
    .bind(request.actor_id)
    .bind(request.nonce)
    .bind(request.mac.as_slice())
    .bind(&request.body.content)
    .bind(request.body.reply_to_id)
    .bind((!mentions.is_empty()).then(|| format!("{{{}}}", mentions.join(","))))
    .bind(request.nonce)
    .bind(at)
    .fetch_one(connection)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

async fn mark_read(connection: &mut PgConnection, thread: &Thread, newest: i64) -> Result<(), CliError> {
    for key in &thread.members {
        let unread = thread.unread.get(key).copied().unwrap_or(0).cast_signed();
        sqlx::query("SELECT code FROM engine.mark_read($1, $2, $3, NULL)")
            .bind(thread_id(&thread.key))
            .bind(profile_id(key))
            .bind((newest - unread).max(0))
            .fetch_all(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::read;

    #[test]
    fn the_seed_names_only_what_it_has() {
        let community = read().expect("readable");
        let people: HashSet<&str> = community.people.iter().map(|person| person.key.as_str()).collect();
        let houses: HashSet<&str> = community.houses.iter().map(|house| house.name.as_str()).collect();
        assert!(
            community.people.iter().all(|person| person.house.as_deref().is_none_or(|house| houses.contains(house)))
        );
        for thread in &community.threads {
            let members: HashSet<&str> = thread.members.iter().map(String::as_str).collect();
            assert!(members.iter().all(|key| people.contains(key)), "{}", thread.key);
            assert_eq!(members.len(), thread.members.len(), "{}", thread.key);
            for message in &thread.messages {
                assert!(members.contains(message.by.as_str()), "{}: {}", thread.key, message.by);
                assert!(
                    message.mentions.iter().all(|key| members.contains(key.as_str())),
                    "{}: {}",
                    thread.key,
                    message.text
                );
            }
        }
        let colors: Vec<(&str, &str)> =
            community.houses.iter().map(|house| (house.name.as_str(), house.color.as_str())).collect();
        assert_eq!(
            colors,
            [("House of Eleganza", "#8b5cf6"), ("House of Avant-Garde", "#dc2626"), ("House of Butch", "#059669")]
        );
    }
}
