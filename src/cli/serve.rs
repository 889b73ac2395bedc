//! `haus serve`: what a node needs before it can be composed (database, key, first seed), then `startup::run`, then an
//! orderly end of the private Postgres.

use std::net::{SocketAddr, TcpListener};

use haus::config::cannot_listen;
use haus::identity::Keys;
use haus::startup::{self, Services};
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::database::Database;
use super::error::CliError;
use super::{Settings, print_line, secret, seed, signals, stderr};

/// The one line of stdout.
#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    listen: String,
    node: &'a str,
    pid: u32,
}

pub async fn run(mut settings: Settings) -> Result<(), CliError> {
    let (asked, second) = signals::two()?;
    let listener = bind(settings.config.listen)?;
    let node =
        settings.config.node.take().unwrap_or_else(|| format!("n-{}", &Uuid::new_v4().simple().to_string()[..8]));
    settings.config.node = Some(node);
    let keys = secret::load(&mut settings.config)?;
    let database = tokio::select! {
        opened = Database::open_for_node(&settings) => opened?,
        () = signals::up(asked.clone()) => return Ok(()),
    };
    let twice = || CliError::failed("ended by a second signal");
    let done = tokio::select! {
        done = prepare_and_serve(&settings, listener, &database, keys, asked) => done,
        () = signals::up(second.clone()) => Err(twice()),
    };
    if done.is_err() {
        database.close().await;
        return done;
    }
    // A private Postgres that hangs must not hold up who has asked twice.
    tokio::select! {
        () = database.close() => done,
        () = signals::up(second) => Err(twice()),
    }
}

async fn prepare_and_serve(
    settings: &Settings,
    listener: TcpListener,
    database: &Database,
    keys: Keys,
    asked: watch::Receiver<bool>,
) -> Result<(), CliError> {
    let logins = tokio::select! {
        prepared = prepare(settings, database, keys) => prepared?,
        () = signals::up(asked.clone()) => return Ok(()),
    };
    let config = settings.config.clone();
    let services = Services {
        database_url: database.url.clone(),
        redis_url: config.redis_url.clone(),
        secret_key: config.secret_key.clone().unwrap_or_default(),
    };
    startup::run(config, listener, services, asked, |address, node| announce(address, node, logins.as_deref()))
        .await
        .map_err(|error| CliError::with_code(error.exit_code(), error.to_string()))
}

/// Fills the private database at the first start; another is examined by the start itself. Returns who can log in.
async fn prepare(settings: &Settings, database: &Database, keys: Keys) -> Result<Option<String>, CliError> {
    if !database.is_private {
        return Ok(None);
    }
    let (_, keys) = database.bound(keys).await?;
    seed::first_start(settings, database, &keys).await.map(Some)
}

fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).map_err(|error| CliError::setting(cannot_listen("HAUS_LISTEN", address, &error)))
}

/// The ready line for programs, the address and the logins for people.
fn announce(address: SocketAddr, node: &str, logins: Option<&str>) {
    if let Some(logins) = logins {
        stderr::say(format_args!("\n  haus is ready: http://{address}\n\n{logins}\n"));
    }
    let line = Ready { ready: true, listen: address.to_string(), node, pid: std::process::id() };
    let printed = serde_json::to_string(&line)
        .map_err(|error| CliError::failed(error.to_string()))
        .and_then(|line| print_line(&line));
    if let Err(error) = printed {
        tracing::warn!("{}", error.text());
    }
}
