//! `haus-chaos`: histories of a small cluster under faults, each from a seed, recorded and judged by the checker.
//! One line a history; a campaign also has to reach every hard state (`--obligations`). `--saboteur` turns it round:
//! every planted bug must be caught under its name.
//!
//! Exit code 0: as it should be; 1: an anomaly, a missed obligation, an uncaught bug; 2: it could not be run.

#[path = "../haus-check/checker/mod.rs"]
mod checker;
mod crew;
mod history;
mod member;
mod mirror;
mod plan;
mod recorder;
mod rest;
// The integration tests use the rest.
#[allow(dead_code)]
#[path = "../rig/mod.rs"]
mod rig;
mod saboteur;
mod session;
mod wire;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use checker::report::Report;
use clap::Parser;
use history::Outcome;
use plan::{Plan, Workload};
use rig::RigError;
use rig::node::Settings;

/// Histories of a cluster under faults, recorded and judged.
#[derive(Debug, Parser)]
#[command(name = "haus-chaos")]
struct Arguments {
    /// Histories to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    start_seed: u64,
    /// Length of a history under load, seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Nodes, 2 or 3; by the seed when absent
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: Option<u8>,
    /// New messages a second over sockets
    #[arg(long, default_value_t = Workload::default().sends_per_s)]
    rate: u64,
    /// Where histories go, and logs of those with findings; a temporary folder when absent
    #[arg(long)]
    out: Option<PathBuf>,
    /// The `haus` program; else HAUS_BIN, else beside this program
    #[arg(long)]
    haus: Option<PathBuf>,
    /// Fail when the campaign missed a hard state
    #[arg(long)]
    obligations: bool,
    /// Run every planted bug (a server built with `--features saboteur`) and demand that it is caught
    #[arg(long)]
    saboteur: bool,
    /// With `--saboteur`: the same plans on a server without the bugs, where nothing may be found
    #[arg(long, requires = "saboteur")]
    control: bool,
    /// Only these planted bugs, by name
    #[arg(long, value_delimiter = ',')]
    bugs: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let campaign = async { if arguments.saboteur { sabotage(&arguments).await } else { campaign(&arguments).await } };
    let outcome = tokio::select! {
        outcome = campaign => outcome,
        // Everything started here ends as the campaign is dropped.
        _ = tokio::signal::ctrl_c() => Ok(false),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Where results go; the folder, when temporary, lives as long as the campaign.
struct Place {
    path: PathBuf,
    program: PathBuf,
    _temporary: Option<rig::Folder>,
}

fn place(arguments: &Arguments) -> Result<Place, RigError> {
    let program = arguments.haus.clone().unwrap_or_else(Settings::find_program);
    let Some(path) = arguments.out.clone() else {
        let folder = rig::Folder::new("chaos")?;
        return Ok(Place { path: folder.path().to_owned(), program, _temporary: Some(folder) });
    };
    std::fs::create_dir_all(&path).map_err(RigError::io(format!("make {}", path.display())))?;
    Ok(Place { path, program, _temporary: None })
}

async fn campaign(arguments: &Arguments) -> Result<bool, RigError> {
    let place = place(arguments)?;
    let mut total = Report::default();
    for seed in arguments.start_seed..arguments.start_seed.saturating_add(arguments.seeds) {
        let nodes = arguments.nodes.map_or(if seed % 2 == 0 { 2 } else { 3 }, usize::from);
        let workload = Workload { sends_per_s: arguments.rate, ..Workload::default() };
        let plan = Plan::from_seed(seed, nodes, arguments.seconds, workload);
        let outcome = history::run(&plan, &place.program, &place.path, &[]).await?;
        println!("{}", line(&plan, &outcome));
        for finding in &outcome.report.findings {
            eprintln!("  {finding}");
        }
        total.add(&outcome.report);
    }
    let missed = if arguments.obligations { total.obligations.missed() } else { Vec::new() };
    for name in &missed {
        eprintln!("never reached: {name}");
    }
    println!("{}", serde_json::to_string(&total).unwrap_or_default());
    Ok(total.is_clean() && missed.is_empty())
}

async fn sabotage(arguments: &Arguments) -> Result<bool, RigError> {
    let place = place(arguments)?;
    if let Some(unknown) = arguments.bugs.iter().find(|name| saboteur::BUGS.iter().all(|bug| bug.name != **name)) {
        return Err(RigError::Failed { what: "--bugs".to_owned(), detail: format!("no planted bug {unknown}") });
    }
    let mut as_it_should_be = true;
    for bug in saboteur::BUGS {
        if !arguments.bugs.is_empty() && !arguments.bugs.iter().any(|name| name == bug.name) {
            continue;
        }
        let plan = bug.plan(arguments.start_seed);
        let name = if arguments.control { "none" } else { bug.name };
        let switch = [(saboteur::SWITCH.to_owned(), name.to_owned())];
        let begun = Instant::now();
        let outcome = history::run(&plan, &place.program, &place.path, &switch).await?;
        let named = outcome.report.named();
        let caught = named.iter().any(|(name, _)| bug.expected.contains(&name.as_str()));
        let (fine, verdict) = match (arguments.control, outcome.report.is_clean()) {
            (true, true) => (true, "clean"),
            (true, false) => (false, "NOT CLEAN without"),
            (false, _) if caught => (true, "caught"),
            (false, _) => (false, "MISSED"),
        };
        as_it_should_be &= fine;
        let (seconds, expected) = (begun.elapsed().as_secs(), bug.expected.join(" or "));
        println!("{verdict} {} (expected {expected}) {seconds} s {}", bug.name, line(&plan, &outcome));
    }
    Ok(as_it_should_be)
}

/// The line of one history.
fn line(plan: &Plan, outcome: &Outcome) -> String {
    let report = &outcome.report;
    let faults: Vec<String> = outcome.struck.iter().map(|(name, count)| format!("{name}×{count}")).collect();
    let named: Vec<String> = report.named().iter().map(|(name, count)| format!("{name}×{count}")).collect();
    format!(
        "seed {} nodes {} acked {} deliveries {} faults [{}] anomalies [{}] {}",
        plan.seed,
        plan.nodes,
        report.acked,
        report.deliveries,
        faults.join(" "),
        named.join(" "),
        outcome.path.display(),
    )
}
