//! `docs/protocol.md` and the AsyncAPI document against the code: whatever is served stands in both.

use std::collections::BTreeSet;
use std::path::Path;

use haus::http::asyncapi::commands::COMMANDS;
use haus::http::asyncapi::update_kinds;
use haus::http::asyncapi::updates::NOTICES;
use haus::protocol::{CloseCode, ErrorCode};

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn page() -> String {
    file("docs/protocol.md")
}

/// Lines of the page's tables whose first cell names `name` as code.
fn has_row(page: &str, name: &str) -> bool {
    let cell = format!("`{name}`");
    page.lines().filter_map(|line| line.strip_prefix("| ")).any(|line| {
        line.split(" | ").next().is_some_and(|first| first.contains(&cell) || first.split('`').any(|word| word == name))
    })
}

#[test]
fn every_error_code_stands_in_the_page_with_its_status() {
    let page = page();
    for code in ErrorCode::ALL {
        let start = format!("| `{}` |", code.as_str());
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("docs/protocol.md has no row for the error code {}", code.as_str()));
        assert_eq!(row.contains("retryable"), code.retryable(), "{row}");
        if code != ErrorCode::UnknownCmd {
            assert!(row.contains(&code.http_status().to_string()), "{row}: HTTP status {}", code.http_status());
        }
    }
}

#[test]
fn every_close_code_stands_in_the_page_with_its_reason() {
    let page = page();
    for code in CloseCode::ALL {
        let row = format!("| {} | `{}` |", code.number(), code.name());
        assert!(page.contains(&row), "docs/protocol.md lacks the row {row}");
    }
}

#[test]
fn every_kind_of_update_and_every_notice_stands_in_the_page() {
    let page = page();
    for kind in update_kinds() {
        assert!(has_row(&page, kind.name()), "docs/protocol.md has no row for the update {}", kind.name());
    }
    for notice in NOTICES {
        let named = page.contains(&format!("\"up\":\"{}\"", notice.name));
        assert!(named, "docs/protocol.md shows no {}", notice.name);
    }
}

#[test]
fn every_route_stands_in_the_page() {
    let page = page();
    let document = serde_json::to_value(haus::http::openapi()).expect("the document");
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let name = format!("{} {path}", method.to_uppercase());
            assert!(has_row(&page, &name), "docs/protocol.md has no row for {name}");
            routes += 1;
        }
    }
    assert!(routes > 15, "{routes} routes");
}

/// The engine's source, all files of it.
fn engine() -> String {
    let mut source = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/realtime")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                source += &std::fs::read_to_string(path).expect("a source file");
            }
        }
    }
    source
}

/// The names that the socket's dispatcher compares `cmd` with.
fn dispatched() -> BTreeSet<String> {
    let source = engine();
    let (_, after) = source.split_once("match cmd {").expect("the dispatcher");
    let (arms, _) = after.split_once("_ => Err(Refusal::new(ErrorCode::UnknownCmd").expect("its last arm");
    let mut names: BTreeSet<String> = arms
        .lines()
        .filter_map(|line| line.split_once("=>").map(|(patterns, _)| patterns.trim()))
        .filter(|patterns| patterns.starts_with('"'))
        .flat_map(|patterns| patterns.split('|'))
        .map(|name| name.trim().trim_matches('"').to_owned())
        .collect();
    names.insert("auth".to_owned());
    names
}

#[test]
fn the_commands_of_the_documents_are_those_that_are_served() {
    let page = page();
    let described: BTreeSet<String> = COMMANDS.iter().map(|command| command.name.to_owned()).collect();
    assert_eq!(described, dispatched(), "http::asyncapi::commands against realtime::commands");
    for name in &described {
        assert!(has_row(&page, name), "docs/protocol.md has no row for the command {name}");
    }
}

#[test]
fn the_notices_of_the_documents_are_those_that_are_sent() {
    let mut sent = BTreeSet::from(["snapshot".to_owned()]);
    for call in engine().split("reply::notice(").skip(1) {
        let name = call.split('"').nth(1).expect("the name of the notice");
        sent.insert(name.to_owned());
    }
    let described: BTreeSet<String> = NOTICES.iter().map(|notice| notice.name.to_owned()).collect();
    assert_eq!(described, sent, "http::asyncapi::updates against src/realtime");
}

#[test]
fn nothing_served_is_called_announced() {
    let page = page();
    let announced: Vec<&str> = page.lines().filter(|line| line.ends_with("announced: `unknown_cmd` |")).collect();
    assert_eq!(announced.len(), 1, "one row of announced commands");
    let first = announced[0].split(" | ").next().expect("a cell");
    for name in first.split('`').filter(|name| name.contains('.') || name.chars().all(|c| c.is_ascii_lowercase())) {
        assert!(name.is_empty() || !dispatched().contains(name), "{name} is served");
    }
}
