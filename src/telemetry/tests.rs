//! What a scrape holds, and that `docs/metrics.md` says the same as the registered help texts.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use prometheus::Registry;
use prometheus::proto::MetricType;

use super::{DROP_REASONS, Metrics, REFUSAL_REASONS, metrics, render, sample};

#[test]
fn a_scrape_holds_what_was_counted_and_sampled() {
    metrics().feed_repairs.inc_by(3);
    let sampling = sample(|metrics| metrics.db_pool_in_use.set(7));
    let text = render();
    drop(sampling);
    metrics().db_pool_in_use.set(0);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
        line.parse::<f64>().expect("a number")
    };
    assert!(value("haus_feed_repairs_total") >= 3.0);
    assert_eq!(value("haus_db_pool_in_use"), 7.0);
    assert!(value("haus_process_open_fds") >= 3.0);
    assert!(value("haus_process_resident_bytes") > 1e6);
    assert!(value("haus_process_cpu_seconds_total") > 0.0);
    assert!(render().contains("haus_db_pool_in_use 0\n"), "sampled no more");
    assert!(text.contains("# TYPE haus_send_commit_seconds histogram"));
    assert!(text.contains("haus_dropped_total{reason=\"courier_queue\"}"));
}

#[test]
fn every_reason_that_the_source_names_is_listed() {
    for (field, listed) in [("dropped", DROP_REASONS), ("connections_refused", REFUSAL_REASONS)] {
        let marker = format!("{field}.with_label_values(&[\"");
        let mut used = BTreeSet::new();
        for file in rust_files(&root().join("src")) {
            let text: String = std::fs::read_to_string(&file).expect("readable").split_whitespace().collect();
            used.extend(text.split(&marker).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
        let listed: BTreeSet<String> = listed.iter().map(|(reason, _)| (*reason).to_owned()).collect();
        assert_eq!(used, listed, "{field}: left is used, right is listed");
    }
}

#[test]
fn docs_list_every_metric() {
    let path = root().join("docs/metrics.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("writable");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "docs/metrics.md is old: run this test with UPDATE_DOCS=1");
}

fn document() -> String {
    let mut out = String::from(
        "# Metrics\n\nMade from the source (`UPDATE_DOCS=1 cargo test docs_list_every_metric`). Served as Prometheus text at \
         `/metrics`, to loopback\nand on `HAUS_OPS_LISTEN`. Times are seconds, sizes bytes. No label carries an id.\n\n\
         | metric | type | what it is |\n|---|---|---|\n",
    );
    let fresh = Metrics::register(Registry::new()).expect("registers");
    // A labelled family shows once it has a value.
    fresh.statements.with_label_values(&["send"]);
    for family in fresh.registry.gather() {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            _ => "histogram",
        };
        let label = family.get_metric()[0].get_label().first().map(|label| format!("{{{}}}", label.name()));
        let label = label.unwrap_or_default();
        writeln!(out, "| `{}{label}` | {kind} | {} |", family.name(), family.help()).expect("writes");
    }
    for (name, values) in [("haus_dropped_total", DROP_REASONS), ("haus_connections_refused_total", REFUSAL_REASONS)] {
        write!(out, "\n## `{name}`, by reason\n\n| reason | what |\n|---|---|\n").expect("writes");
        for (value, what) in values {
            writeln!(out, "| `{value}` | {what} |").expect("writes");
        }
    }
    out
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false if path.extension().is_some_and(|end| end == "rs") => vec![path],
            false => Vec::new(),
        })
        .collect()
}
