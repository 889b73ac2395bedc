//! The history checker as a module: `haus-check` reads files with it, the chaos driver calls it in its own process.
//! It knows recorded histories and the final log in them, and nothing of the server.
//!
//! Two passes over a file, both linear: the first learns the final log, the second judges every record.
//! The order of a thread is its `seq`, so no search for a linearisation is needed. Model: Jepsen's Kafka workload.

mod judge;
mod position;
pub mod record;
pub mod report;
mod sends;
#[cfg(test)]
mod tests;
mod truth;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use record::Record;
use report::Report;
use thiserror::Error;

/// Longest line read; a longer one is not a history.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Why a history could not be judged.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The file could not be read.
    #[error("{}: line {line}: {source}", path.display())]
    Read { path: PathBuf, line: u64, source: std::io::Error },
    /// A line is not a record, or stands where it may not.
    #[error("{}: line {line}: {reason}", path.display())]
    Record { path: PathBuf, line: u64, reason: String },
}

/// Judges the history in `path`.
///
/// # Errors
/// [`CheckError`] names the file and line that could not be read; a history that breaks the promise is no error.
pub fn check_file(path: &Path) -> Result<Report, CheckError> {
    let mut report = Report::default();
    let mut truth = truth::Truth::default();
    each_line(path, |line, text| {
        if record::is_truth(text) {
            truth.learn(line, parse(path, line, text)?, &mut report);
        }
        Ok(())
    })?;
    let mut judge = judge::Judge::new(&truth, report);
    let lines = each_line(path, |line, text| {
        let record = parse(path, line, text)?;
        if (line == 1) != matches!(record, Record::Begin { .. }) {
            let reason = "a history begins with one `begin` record".to_owned();
            return Err(CheckError::Record { path: path.to_owned(), line, reason });
        }
        judge.judge(line, record);
        Ok(())
    })?;
    if lines == 0 {
        return Err(CheckError::Record { path: path.to_owned(), line: 1, reason: "the history is empty".to_owned() });
    }
    Ok(judge.finish())
}

/// Judges a history that is at hand, `begin` first.
#[cfg(test)]
pub fn check_records(records: &[Record]) -> Report {
    let mut report = Report::default();
    let mut truth = truth::Truth::default();
    for (line, record) in (1..).zip(records) {
        truth.learn(line, record.clone(), &mut report);
    }
    let mut judge = judge::Judge::new(&truth, report);
    for (line, record) in (1..).zip(records) {
        judge.judge(line, record.clone());
    }
    judge.finish()
}

fn parse(path: &Path, line: u64, text: &str) -> Result<Record, CheckError> {
    serde_json::from_str(text).map_err(|error| CheckError::Record {
        path: path.to_owned(),
        line,
        reason: error.to_string(),
    })
}

fn each_line(path: &Path, mut take: impl FnMut(u64, &str) -> Result<(), CheckError>) -> Result<u64, CheckError> {
    let failed = |line, source| CheckError::Read { path: path.to_owned(), line, source };
    let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, File::open(path).map_err(|source| failed(0, source))?);
    let (mut line, mut text) = (0, String::new());
    loop {
        text.clear();
        if reader.read_line(&mut text).map_err(|source| failed(line + 1, source))? == 0 {
            return Ok(line);
        }
        line += 1;
        if text.len() > LINE_BYTES_MAX {
            let reason = format!("longer than {LINE_BYTES_MAX} bytes");
            return Err(CheckError::Record { path: path.to_owned(), line, reason });
        }
        take(line, text.trim_end())?;
    }
}
