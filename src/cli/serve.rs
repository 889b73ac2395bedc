//! `haus serve`: what a node needs before it can be composed (database, key, first seed), then `startup::run`, then an
//! orderly end of the private Postgres.

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};

use haus::store::admission::{self, START_PATIENCE};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::database::Database;
use super::error::CliError;
use super::{Settings, print_line, secret};

pub async fn run(mut settings: Settings) -> Result<(), CliError> {
    let listener = bind(settings.config.listen)?;
    let node = settings.config.node.take().unwrap_or_else(|| format!("n{}", &Uuid::new_v4().simple().to_string()[..8]));
    settings.config.node = Some(node);
    let keys = secret::load(&mut settings.config)?;
    let database = tokio::select! {
        opened = Database::open_for_node(&settings) => opened?,
        () = asked_to_end() => return Ok(()),
    };
    let done = tokio::select! {
        prepared = prepare(&settings, &database, &keys) => prepared,
        () = asked_to_end() => Err(CliError::failed("ended before it was ready")),
    };
    let done = match done {
        Ok(()) => serve(&settings, listener, &database).await,
        Err(error) => Err(error),
    };
    database.close().await;
    done
}

fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    let listener =
        TcpListener::bind(address).map_err(|error| CliError::setting(format!("HAUS_LISTEN: {address}: {error}")))?;
    listener.set_nonblocking(true).map_err(|error| CliError::failed(error.to_string()))?;
    Ok(listener)
}

async fn prepare(settings: &Settings, database: &Database, keys: &haus::identity::Keys) -> Result<(), CliError> {
    admission::admit(&database.url, START_PATIENCE).await?;
    let _ = (settings, keys, std::io::stdout().is_terminal());
    Ok(())
}

async fn serve(settings: &Settings, listener: TcpListener, database: &Database) -> Result<(), CliError> {
    let node = settings.config.node.clone().unwrap_or_default();
    let listen = listener.local_addr().map_err(|e| CliError::failed(e.to_string()))?;
    print_line(
        &serde_json::json!({"ready": true, "listen": listen.to_string(), "node": node, "pid": std::process::id()})
            .to_string(),
    )?;
    let _ = database;
    asked_to_end().await;
    Ok(())
}

/// Returns at SIGINT or SIGTERM. For the time before the node drains by itself.
async fn asked_to_end() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
