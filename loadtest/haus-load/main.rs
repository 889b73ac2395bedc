//! `haus-load`: the project's own load generator. One epoll loop drives thousands of authenticated sockets, counts every position it
//! is sent, and measures latency from the *intended* send time; both floors of the budgets are built in. See `loadtest/README.md`.

mod budgets;
mod cli;
mod clock;
mod conn;
mod database_floor;
mod directory;
mod drive;
mod engine;
mod error;
mod floor;
mod floor_server;
mod frame;
mod idle;
mod incoming;
mod outgoing;
mod paced;
mod procfs;
mod receipts;
mod replies;
mod report;
mod resume;
mod scan;
mod schedule;
mod slow;
mod tally;
mod tokens;
mod transfer;

use clap::Parser;
use cli::{Cli, Command};
use error::LoadError;
use paced::Shape;
use report::Reporter;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("haus-load: {why}");
            ExitCode::from(why.exit_code())
        }
    }
}

/// Runs what was asked for; `Ok(false)` when it ran but something was lost, doubled or out of order.
fn run(cli: Cli) -> Result<bool, LoadError> {
    match cli.command {
        Command::Fanout(args) => paced::run(&args, Shape::Fanout),
        Command::Rooms(args) => paced::run(&args, Shape::Rooms),
        Command::Sends(args) => paced::run(&args, Shape::Sends),
        Command::Hot(args) => paced::run(&args, Shape::Hot),
        Command::Idle(common) => idle::idle(&common),
        Command::Connect(common) => idle::storm(&common),
        Command::Floor(args) => floor_alone(&args),
        Command::Table { file } => budgets::print(&file),
        Command::FloorServer { mode } => floor_server::serve(mode).map(|()| true),
        Command::Resume(args) => resume::run(&args),
        Command::Receipts(common) => receipts::run(&common),
        Command::Slow(args) => slow::run(&args),
    }
}

fn floor_alone(args: &cli::Floor) -> Result<bool, LoadError> {
    conn::make_room(args.members + 1)?;
    let mut reporter = Reporter::new(args.json);
    let plan = floor::FloorPlan {
        mode: args.mode,
        members: args.members,
        rooms: args.rooms,
        pace: cli::pace(args.rate, args.in_flight, 32)?,
        seconds: args.seconds,
        frame_bytes: args.frame_bytes,
    };
    let mut figures = floor::run(plan, &mut reporter)?;
    report::merge(&mut figures, serde_json::json!({"final": true, "scenario": "floor"}));
    reporter.last(&figures)?;
    Ok(true)
}
