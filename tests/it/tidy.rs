//! House rules that a compiler does not know: which module may use which, how long a file is, how it begins, and words
//! that have no place in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a Rust file.
const MOST_LINES: usize = 400;

/// May use everything below the command line.
const EVERYTHING: &str = "everything";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file with one of these endings, with its path inside the project.
fn files(folders: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if endings.contains(&ending) {
                let inside = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((inside, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn assert_none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

/// The table in the doc comment of `src/lib.rs`: module → modules it may use.
fn arrows(lib: &str) -> BTreeMap<String, BTreeSet<String>> {
    let quoted = |cell: &str| -> Vec<String> {
        // Odd pieces lie between back-ticks; several names may share a pair.
        let inside = cell.split('`').skip(1).step_by(2);
        inside.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let mut table = BTreeMap::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let Some((left, right)) = row.split_once('|') else { continue };
        let mut may: BTreeSet<String> = BTreeSet::new();
        if right.trim_start().starts_with(EVERYTHING) {
            // "everything but `x`": what is quoted is what may not be used.
            may.insert(EVERYTHING.to_owned());
            may.extend(quoted(right).into_iter().map(|name| format!("!{name}")));
        } else {
            may.extend(quoted(right));
        }
        for module in quoted(&format!("`{left}")) {
            table.insert(module, may.clone());
        }
    }
    table
}

/// The modules of this crate that a text names: `crate::x`, `haus::x`, and both with braces.
fn used(text: &str, crates: &[&str]) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    for name in crates {
        for (at, found) in code.match_indices(&format!("{name}::")) {
            if code[..at].ends_with(|c: char| is_name(c) || c == ':' || c == '$') {
                continue;
            }
            let rest = &code[at + found.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                names.insert(rest.chars().take_while(|c| is_name(*c)).collect());
                continue;
            };
            let mut depth = 0_usize;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        names.insert(first_name(&std::mem::take(&mut item)));
                        continue;
                    }
                    _ => {}
                }
                item.push(c);
            }
            names.insert(first_name(&item));
        }
    }
    names.remove("");
    names
}

fn first_name(item: &str) -> String {
    item.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Names a module uses against the table, as faults.
fn forbidden(path: &str, text: &str, table: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let module = module_of(path);
    let Some(may) = table.get(module) else {
        return vec![format!("{path}: module `{module}` is not in the table of src/lib.rs")];
    };
    let names = used(text, &["crate", "haus"]).into_iter().filter(|name| *name != *module && table.contains_key(name));
    let refused = names
        .filter(|name| if may.contains(EVERYTHING) { may.contains(&format!("!{name}")) } else { !may.contains(name) });
    refused.map(|name| format!("{path}: `{module}` may not use `{name}`")).collect()
}

#[test]
fn arrows_point_the_way_of_the_table() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let table = arrows(&lib);
    assert!(table.len() > 10, "the table of src/lib.rs is read: {table:?}");
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut faults: Vec<String> = declared
        .iter()
        .filter(|name| !table.contains_key(**name))
        .map(|name| format!("`{name}` is not in the table"))
        .collect();
    for (path, text) in files(&["src"], &["rs"]) {
        if !matches!(path.as_str(), "src/lib.rs" | "src/main.rs") {
            faults.extend(forbidden(&path, &text, &table));
        }
    }
    assert_none("arrows against the table in src/lib.rs", &faults);
}

#[test]
fn a_wrong_arrow_is_seen() {
    let table = arrows(
        "//! | `cli` | everything |\n//! | `startup` | everything but `cli` |\n//! | `low` `lower` | nothing here |\n\
         //! | `mid` | `low telemetry` and traits |\n//! | `telemetry` | nothing |",
    );
    let faults = |path: &str, text: &str| forbidden(path, text, &table);
    assert!(faults("src/mid/a.rs", "use crate::low::X;\nuse crate::{low, telemetry::y};\nuse super::cli;").is_empty());
    assert_eq!(faults("src/mid.rs", "use crate::cli::X;").len(), 1);
    assert_eq!(faults("src/mid.rs", "use crate::{low::{a, b}, startup, lower};").len(), 2);
    assert_eq!(faults("src/low/x.rs", "let y = crate::mid::f();").len(), 1);
    assert_eq!(faults("src/lower.rs", "// crate::mid::f()\n/// [`crate::cli`]").len(), 0);
    assert_eq!(faults("src/startup.rs", "use crate::cli::X; use crate::mid;").len(), 1);
    assert!(faults("src/cli/x.rs", "use haus::startup; use haus::mid;").is_empty());
    assert_eq!(faults("src/new.rs", "").len(), 1, "an unlisted module");
}

#[test]
fn files_are_short_and_say_what_lives_there() {
    let mut faults = Vec::new();
    for (path, text) in files(&["src", "loadtest", "tests", "benches"], &["rs"]) {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            faults.push(format!("{path}: {lines} lines, {MOST_LINES} at most"));
        }
        if !text.starts_with("//! ") {
            faults.push(format!("{path}: does not open with `//!`"));
        }
    }
    assert_none("files", &faults);
}

#[test]
fn forbidden_words_are_absent() {
    // Written in halves, so that this file does not hold them.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X"],
        ["todo", "!("],
        ["unimplement", "ed!("],
        ["/wo", "rk/"],
        ["/root", "/"],
        ["hca", "rgo"],
        ["<<<<", "<<<"],
        [">>>>", ">>>"],
    ]
    .map(|halves| halves.concat());
    let mut faults = Vec::new();
    let folders = ["src", "loadtest", "tests", "benches", "docs", "web", "clients", "migrations", "seeds"];
    for (path, text) in files(&folders, &["rs", "md", "sql", "js", "html", "css", "sh", "yml", "toml"]) {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                faults.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    assert_none("words that have no place here", &faults);
}

/// Whether `word` stands in `line` by itself, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let is_part = |c: Option<char>, edge: Option<char>| {
            edge.is_some_and(char::is_alphanumeric) && c.is_some_and(|c| c.is_alphanumeric() || c == '_')
        };
        !is_part(before, word.chars().next()) && !is_part(after, word.chars().next_back())
    })
}

#[test]
fn words_are_seen_by_themselves() {
    let word = ["TO", "DO"].concat();
    assert!(has_word(&format!("// {word}: later"), &word));
    assert!(!has_word(&format!("{word}S_LIST"), &word) && !has_word(&format!("MY_{word}"), &word));
    assert!(Path::new(&root()).join("src/lib.rs").exists());
}
