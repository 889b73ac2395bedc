//! `haus doctor`: settings, reachability, safety and schema, one line each; exit 1 when something is wrong.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use clap::Args;
use haus::identity::Keys;
use haus::identity::binding::{self, BindError};
use haus::identity::tokens::Tokens;
use haus::store::admission;
use haus::store::admission::few;
use haus::store::deadlines;
use haus::store::migrate::{self, SchemaState};
use haus::store::pooler::{self, Pooler};
use haus::store::pools;
use haus::store::restored;
use haus::store::safety::{SafetyState, check_role, look};
use serde::Serialize;
use sqlx::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::database::{self, Database};
use super::error::CliError;
use super::{Settings, print_line, secret};

/// A doctor does not wait as long as a start does.
const PATIENCE: Duration = Duration::from_secs(3);

/// Restored rows that are counted.
const FOREIGN_ROWS: i64 = 10_000;
const FOREIGN: &str = "rows bear transaction numbers of another cluster (a restored dump): run `haus epoch new`";

/// Bytes read of what a listener says.
const ANSWER_BYTES: u64 = 16 << 10;

#[derive(Args)]
pub struct DoctorArgs {
    /// One JSON line a finding
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    detail: String,
}

impl Finding {
    fn of(check: &'static str, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        Self { check, ok, detail: result.unwrap_or_else(|detail| detail) }
    }
}

pub async fn run(mut settings: Settings, args: DoctorArgs) -> Result<(), CliError> {
    // Of an empty folder nothing is made.
    let keys = match database::must_exist(&settings) {
        Ok(()) => secret(&mut settings),
        Err(error) => Err(error.text().to_owned()),
    };
    let own = keys.as_ref().ok().map(|(_, keys)| keys);
    let mut findings = vec![Finding::of("listen", listen(&settings, own).await)];
    match Database::existing(&settings).await {
        Ok(database) => {
            findings.push(Finding::of("secret", belongs(&database, keys).await));
            findings.extend(examine(&database).await);
            database.close().await;
        }
        Err(error) => {
            findings.push(Finding::of("secret", keys.map(|(name, _)| name)));
            findings.push(Finding::of("database", Err(error.text().to_owned())));
        }
    }
    findings.push(Finding::of("courier", courier(&settings).await));
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    for finding in &findings {
        let line = match args.json {
            true => serde_json::to_string(finding).map_err(|error| CliError::failed(error.to_string()))?,
            false => format!("{:4} {:9} {}", if finding.ok { "ok" } else { "BAD" }, finding.check, finding.detail),
        };
        print_line(&line)?;
    }
    if wrong > 0 { Err(CliError::failed(format!("{wrong} of {} checks are bad", findings.len()))) } else { Ok(()) }
}

fn secret(settings: &mut Settings) -> Result<(String, Keys), String> {
    let given = settings.config.secret_key.is_some();
    let keys = secret::load(&mut settings.config).map_err(|error| error.text().to_owned())?;
    Ok((if given { "HAUS_SECRET_KEY" } else { "secret.key in the data folder" }.to_owned(), keys))
}

/// Whether the key is that of the database; where that cannot be asked, `database` says why.
async fn belongs(database: &Database, keys: Result<(String, Keys), String>) -> Result<String, String> {
    let (name, keys) = keys?;
    if admission::connect(&database.url, PATIENCE).await.is_err() {
        return Ok(name);
    }
    let pool =
        pools::connect(&database.url, "doctor", 1, &SafetyState::default()).map_err(|error| error.to_string())?;
    match binding::look(&pool, keys).await {
        Ok(bound) => Ok(format!("{name}, that of deployment {}", bound.deployment)),
        Err(BindError::Database(_) | BindError::NotMigrated) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}

async fn listen(settings: &Settings, own: Option<&Keys>) -> Result<String, String> {
    let address = settings.config.listen;
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => match (own, key_set(address).await) {
            (Some(keys), Some(set)) if knows(&set, keys) => Ok(format!("{address}: a node of this deployment answers")),
            (_, Some(_)) => Err(format!("HAUS_LISTEN: {address}: a node of another deployment answers there")),
            (_, None) => Err(format!("HAUS_LISTEN: {address}: something that is no haus listens there")),
        },
        Err(error) => Err(format!("HAUS_LISTEN: {address}: {error}")),
    }
}

/// The signing keys that whoever listens at `address` publishes; `None` when it is no node.
async fn key_set(mut address: SocketAddr) -> Option<serde_json::Value> {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET /.well-known/jwks.json HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8(answer).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let set: serde_json::Value = serde_json::from_str(body).ok()?;
        (head.starts_with("HTTP/1.1 200") && set.get("keys")?.is_array()).then_some(set)
    };
    tokio::time::timeout(PATIENCE, ask).await.ok()?
}

/// Whether one of the published keys is ours: only who has the root key has it.
fn knows(set: &serde_json::Value, keys: &Keys) -> bool {
    let Ok(tokens) = Tokens::new(keys) else { return false };
    let ours = tokens.header().kid;
    let published = set["keys"].as_array().into_iter().flatten();
    published.filter_map(|key| key["kid"].as_str()).any(|kid| ours.as_deref() == Some(kid))
}

async fn examine(database: &Database) -> Vec<Finding> {
    let mut connection = match admission::connect(&database.url, PATIENCE).await {
        Ok(connection) => connection,
        Err(error) => return vec![Finding::of("database", Err(error.to_string()))],
    };
    let place = if database.is_private { "the private PostgreSQL answers" } else { "DATABASE_URL answers" };
    vec![
        Finding::of("database", Ok(place.to_owned())),
        Finding::of("pooler", pooler(&database.url, &mut connection).await),
        Finding::of("deadlines", deadlines(&mut connection).await),
        Finding::of("durable", durable(&mut connection).await),
        Finding::of("role", role(&mut connection).await),
        Finding::of("schema", schema(&mut connection).await),
        Finding::of("log", log(&mut connection).await),
    ]
}

async fn pooler(url: &str, connection: &mut PgConnection) -> Result<String, String> {
    let mut second = admission::connect(url, PATIENCE).await.map_err(|error| error.to_string())?;
    match pooler::probe(connection, &mut second).await.map_err(|error| error.to_string())? {
        Ok(Pooler::None) => Ok("none, or each client has its own connection".to_owned()),
        Ok(Pooler::Transactions) => Ok("transaction mode, prepared statements are kept".to_owned()),
        Err(bad) => Err(bad.to_string()),
    }
}

async fn deadlines(connection: &mut PgConnection) -> Result<String, String> {
    match deadlines::are_set(connection).await {
        Ok(true) => Ok("settings of the role".to_owned()),
        // No fault without a pooler; with one the line above is bad.
        Ok(false) => Ok("set by each connection for itself: a pooler would drop them".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn durable(connection: &mut PgConnection) -> Result<String, String> {
    let seen = look(connection).await.map_err(|error| error.to_string())?;
    seen.verdict
        .map(|()| "fsync, full_page_writes and synchronous_commit are safe, commits are taken".to_owned())
        .map_err(|bad| bad.to_string())
}

async fn role(connection: &mut PgConnection) -> Result<String, String> {
    let verdict = check_role(connection).await.map_err(|error| error.to_string())?;
    verdict.map(|()| "owns nothing, bypasses nothing".to_owned()).map_err(|bad| bad.to_string())
}

async fn schema(connection: &mut PgConnection) -> Result<String, String> {
    match migrate::state_on(connection).await.map_err(|error| error.to_string())? {
        SchemaState::AtHead => Ok(format!("at head, version {}", migrate::head())),
        SchemaState::Version(found) => {
            Err(format!("at version {found}, head is {}: run `haus migrate`", migrate::head()))
        }
        SchemaState::Drift(names) => Err(format!("changed after they were applied: {}", names.join(", "))),
        SchemaState::Functions(names) => Err(format!("other functions there ({}): run `haus migrate`", few(&names))),
    }
}

/// Rows that a restore brought from another cluster.
async fn log(connection: &mut PgConnection) -> Result<String, String> {
    match restored::foreign_rows(connection, FOREIGN_ROWS).await {
        Ok(0) => Ok("written in this cluster".to_owned()),
        Ok(FOREIGN_ROWS) => Err(format!("{FOREIGN_ROWS} or more {FOREIGN}")),
        Ok(rows) => Err(format!("{rows} {FOREIGN}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn courier(settings: &Settings) -> Result<String, String> {
    let Some(url) = &settings.config.redis_url else { return Ok("in-process, one node only".to_owned()) };
    let ca = settings.config.redis_ca()?;
    let ping = async {
        let client = haus::courier::redis::client(url, ca.as_deref())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    match tokio::time::timeout(PATIENCE, ping).await {
        Ok(Ok(_)) => Ok("REDIS_URL answers".to_owned()),
        Ok(Err(error)) => Err(format!("REDIS_URL: {error}")),
        Err(_) => Err("REDIS_URL: no answer in 3 s".to_owned()),
    }
}
