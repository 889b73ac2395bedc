//! `haus serve`: what a node needs before it can be composed (database, key, first seed), then `startup::run`, then an
//! orderly end of the private Postgres.

use std::net::{SocketAddr, TcpListener};

use haus::identity::Keys;
use haus::startup::{self, Services};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uuid::Uuid;

use super::database::Database;
use super::error::CliError;
use super::{Settings, print_line, secret, seed};

/// The one line of stdout.
#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    listen: String,
    node: &'a str,
    pid: u32,
}

pub async fn run(mut settings: Settings) -> Result<(), CliError> {
    let (mut asked, second) = listen_for_signals()?;
    let listener = bind(settings.config.listen)?;
    let node =
        settings.config.node.take().unwrap_or_else(|| format!("n-{}", &Uuid::new_v4().simple().to_string()[..8]));
    settings.config.node = Some(node);
    let keys = secret::load(&mut settings.config)?;
    let database = tokio::select! {
        opened = Database::open_for_node(&settings) => opened?,
        _ = asked.wait_for(|asked| *asked) => return Ok(()),
    };
    let done = tokio::select! {
        done = prepare_and_serve(&settings, listener, &database, keys, asked.clone()) => done,
        () = ended(second) => Err(CliError::failed("ended by a second signal")),
    };
    database.close().await;
    done
}

async fn prepare_and_serve(
    settings: &Settings,
    listener: TcpListener,
    database: &Database,
    keys: Keys,
    mut asked: watch::Receiver<bool>,
) -> Result<(), CliError> {
    let logins = tokio::select! {
        prepared = prepare(settings, database, keys) => prepared?,
        _ = asked.wait_for(|asked| *asked) => return Ok(()),
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
    TcpListener::bind(address).map_err(|error| CliError::setting(format!("HAUS_LISTEN: {address}: {error}")))
}

/// The ready line for programs, the address and the logins for people.
fn announce(address: SocketAddr, node: &str, logins: Option<&str>) {
    if let Some(logins) = logins {
        eprintln!("\n  haus is ready: http://{address}\n\n{logins}\n");
    }
    let line = Ready { ready: true, listen: address.to_string(), node, pid: std::process::id() };
    let printed = serde_json::to_string(&line)
        .map_err(|error| CliError::failed(error.to_string()))
        .and_then(|line| print_line(&line));
    if let Err(error) = printed {
        tracing::warn!("{}", error.text());
    }
}

/// Two flags: the first SIGINT or SIGTERM asks to drain, the second to end.
fn listen_for_signals() -> Result<(watch::Receiver<bool>, watch::Receiver<bool>), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (first, asked) = watch::channel(false);
    let (second, ended) = watch::channel(false);
    tokio::spawn(async move {
        for flag in [first, second] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            flag.send_replace(true);
        }
    });
    Ok((asked, ended))
}

/// Resolves at the second signal alone.
async fn ended(mut second: watch::Receiver<bool>) {
    if second.wait_for(|second| *second).await.is_err() {
        std::future::pending::<()>().await;
    }
}
