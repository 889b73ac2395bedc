//! `haus-check FILE…`: judges recorded histories against the final log they hold and prints the verdict.
//! A program of its own: it speaks to no server. The rules live in `checker`, the format in `README.md`.
//!
//! Findings go to stderr, one JSON object with all counts is the last line of stdout.
//! Exit code 0: nothing found; 1: an anomaly; 2: wrong usage, or input that cannot be read (named with its line).

mod checker;

use std::path::PathBuf;
use std::process::ExitCode;

use checker::report::Report;

const USAGE: &str = "usage: haus-check FILE…   (each file one history, JSON lines)";

fn main() -> ExitCode {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() || files.iter().any(|file| file.as_os_str() == "--help" || file.as_os_str() == "-h") {
        eprintln!("{USAGE}");
        return ExitCode::from(if files.is_empty() { 2 } else { 0 });
    }
    let mut total = Report::default();
    for file in &files {
        match checker::check_file(file) {
            Ok(report) => {
                eprintln!("{}: {}", file.display(), summary(&report));
                for finding in &report.findings {
                    eprintln!("{}: {finding}", file.display());
                }
                total.add(&report);
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        }
    }
    for name in total.obligations.missed() {
        eprintln!("never reached: {name}");
    }
    match serde_json::to_string(&total) {
        Ok(line) => println!("{line}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::from(if total.is_clean() { 0 } else { 1 })
}

fn summary(report: &Report) -> String {
    let named: Vec<String> = report.named().iter().map(|(name, count)| format!("{name} {count}")).collect();
    let anomalies = if named.is_empty() { "no anomaly".to_owned() } else { named.join(", ") };
    format!("{} acknowledged, {} deliveries, {anomalies}", report.acked, report.deliveries)
}
