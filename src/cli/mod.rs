//! The command line: settings, commands, exit codes. Use cases live in the library; here is what only an operator does.

mod database;
mod doctor;
mod epoch;
mod error;
mod keys;
mod migrate;
mod near;
mod secret;
mod seed;
mod serve;
mod settings;
mod signals;
mod stderr;
mod token;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use haus::config::Config;
use haus::http::address::TrustedProxies;

use tokio::task::JoinHandle;

use error::CliError;

/// How long an ended command is given to let go of what it holds.
const ABORT_DEADLINE: std::time::Duration = std::time::Duration::from_millis(1_500);

/// Real-time messaging and notification hub: acknowledged means committed.
#[derive(Parser)]
#[command(name = "haus", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

/// Every setting: those of the product, and where the private Postgres finds its programs.
#[derive(Args, Clone)]
struct Settings {
    #[command(flatten)]
    config: Config,
    /// Folder of the PostgreSQL programs for the private database; searched for when absent
    #[arg(long, env = "HAUS_PG_BIN", global = true)]
    pg_bin: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node
    Serve,
    /// Move the schema, and make roles and login where missing (DATABASE_OWNER_URL)
    Migrate(migrate::MigrateArgs),
    /// Fill the database: a small community, or many people for load tests
    Seed(seed::SeedArgs),
    /// Print an access token
    Token(token::TokenArgs),
    /// Decide what clients are told after a restore or a failover
    Epoch(epoch::EpochArgs),
    /// Root keys: which the database knows, and the last step of changing them
    Keys(keys::KeysArgs),
    /// Examine settings, reachability, safety and schema; exit 1 on drift
    Doctor(doctor::DoctorArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Print the AsyncAPI document
    Asyncapi,
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return settings::report(&error, &<Cli as clap::CommandFactory>::command()),
    };
    let Settings { config, .. } = &cli.settings;
    let checked = settings::refuse_empty(&<Cli as clap::CommandFactory>::command())
        .and_then(|()| config.check().map_err(CliError::setting))
        .and_then(|()| TrustedProxies::parse(&config.trusted_proxies).map(drop).map_err(CliError::setting))
        .and_then(|()| settings::start_logs(config))
        .and_then(|()| settings::refuse_misspelt(&<Cli as clap::CommandFactory>::command()));
    if let Err(error) = checked {
        return error.report();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::failed(format!("the runtime did not start: {error}")).report(),
    };
    // In a task of its own, so that a panic is an exit code and not an abort with children left behind.
    let is_node = matches!(cli.command, Command::Serve);
    let task = runtime.spawn(run(cli));
    let code = match runtime.block_on(ended(task, is_node)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// The end of a command: its own, or that by a signal, which a node listens to itself.
async fn ended(mut task: JoinHandle<Result<(), CliError>>, is_node: bool) -> Result<(), CliError> {
    let defect = || CliError::failed("a defect ended the command; the log has the details");
    if is_node {
        return task.await.unwrap_or_else(|_| Err(defect()));
    }
    tokio::select! {
        done = &mut task => done.unwrap_or_else(|_| Err(defect())),
        signal = signals::first() => {
            // Whatever it waits for; a private Postgres that it started is asked to stop.
            task.abort();
            let _ = tokio::time::timeout(ABORT_DEADLINE, task).await;
            Err(signal)
        }
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let settings = cli.settings;
    match cli.command {
        Command::Serve => serve::run(settings).await,
        Command::Migrate(args) => migrate::run(settings, args).await,
        Command::Seed(args) => seed::run(settings, args).await,
        Command::Token(args) => token::run(settings, args).await,
        Command::Epoch(args) => epoch::run(settings, args).await,
        Command::Keys(args) => keys::run(settings, args).await,
        Command::Doctor(args) => doctor::run(settings, args).await,
        Command::Openapi => {
            let document = haus::http::openapi().to_pretty_json();
            print_line(&document.map_err(|error| CliError::failed(error.to_string()))?)
        }
        Command::Asyncapi => print_line(&format!("{:#}", haus::http::asyncapi::document())),
    }
}

/// One line on stdout, at once. A reader that went away is an error, not a panic.
fn print_line(line: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| CliError::failed(format!("stdout: {error}")))
}
