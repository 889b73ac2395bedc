//! What a run says: a JSON line a second and a final one, or a progress bar and a table. Also the verdict, which is the exit code.

use crate::clock::SECOND_NS;
use crate::error::LoadError;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Where figures go.
pub struct Reporter {
    json: bool,
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl Reporter {
    /// JSON lines, or a bar (only where somebody can see it) and a table.
    pub fn new(json: bool) -> Self {
        Self { json, quiet: false, bar: None }
    }

    /// Says nothing: for warm-ups and floors, whose figures stand in the report of the run they belong to.
    pub fn quiet() -> Self {
        Self { json: false, quiet: true, bar: None }
    }

    /// Starts a stage of `steps`: a new bar labelled `what`.
    pub fn stage(&mut self, what: &'static str, steps: u64) {
        if self.json || self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>12} {bar:40} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        self.end_stage();
        self.bar = Some(bar);
    }

    /// Moves the bar.
    pub fn step(&self, position: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message);
        }
    }

    /// Takes the bar away.
    pub fn end_stage(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// The figures of one second.
    pub fn second(&self, second: u64, figures: &Value) -> Result<(), LoadError> {
        if self.json {
            return print_line(&figures.to_string());
        }
        self.step(second, format!("{} sends/s, {} deliveries/s", figures["acked"], figures["deliveries"]));
        Ok(())
    }

    /// The last word.
    pub fn last(&mut self, figures: &Value) -> Result<(), LoadError> {
        self.end_stage();
        if self.json {
            return print_line(&figures.to_string());
        }
        let mut rows = Vec::new();
        flatten("", figures, &mut rows);
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in rows {
            print_line(&format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }
}

fn print_line(line: &str) -> Result<(), LoadError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(crate::error::doing("standard output"))
}

/// One row a leaf, its name the path to it; empty objects and nulls are left out.
fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let inner = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
                flatten(&inner, member, rows);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                flatten(&format!("{path} {}", number + 1), item, rows);
            }
        }
        Value::Null => {}
        Value::String(text) => rows.push((path.to_owned(), text.clone())),
        other => rows.push((path.to_owned(), other.to_string())),
    }
}

/// Joins the members of `more` into `into`; both must be objects.
pub fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// `count` a second over `elapsed_ns`, rounded.
pub fn per_second(count: u64, elapsed_ns: u64) -> u64 {
    if elapsed_ns == 0 { 0 } else { (count as f64 * SECOND_NS as f64 / elapsed_ns as f64).round() as u64 }
}

#[cfg(test)]
mod tests {
    use super::{flatten, per_second};
    use serde_json::json;

    #[test]
    fn a_table_has_one_row_a_figure() {
        let mut rows = Vec::new();
        flatten("", &json!({"a": {"b": 1, "c": null}, "d": ["x", 2.5], "e": {}}), &mut rows);
        let rows: Vec<_> = rows.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(rows, ["a b=1", "d 1=x", "d 2=2.5"]);
        assert_eq!(per_second(10, 500_000_000), 20);
        assert_eq!(per_second(10, 0), 0);
    }
}
