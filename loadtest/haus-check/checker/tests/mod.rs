//! Hand-written histories: for every anomaly one that has it, caught under that name and no other, and clean ones
//! that look alike. Thread T has members A (client 1) and B (client 2); message `n` has nonce and hash `n`.

mod content;
mod order;

use std::fmt::Write as _;
use std::path::PathBuf;

use uuid::Uuid;

use super::record::{PageMessage, Positions, Record, StreamId};
use super::report::Report;
use super::{CheckError, check_file, check_records};

const T: Uuid = Uuid::from_u128(100);
const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);
const HALF_SECOND_US: u64 = 500_000;

fn nonce(n: u64) -> Uuid {
    Uuid::from_u128(0xabc0_0000 + u128::from(n))
}

fn at(seq: u64) -> Positions {
    Positions::from([(StreamId::Thread(T), seq)])
}

fn send(n: u64) -> Record {
    Record::Send { client: 1, thread: T, nonce: nonce(n), hash: n, node: "n1".to_owned() }
}

fn ack(n: u64, seq: u64) -> Record {
    Record::Ack { client: 1, thread: T, nonce: nonce(n), hash: n, seq, dup: false }
}

fn dup(n: u64, seq: u64) -> Record {
    Record::Ack { client: 1, thread: T, nonce: nonce(n), hash: n, seq, dup: true }
}

fn nack(n: u64) -> Record {
    Record::Nack { client: 1, thread: T, nonce: nonce(n), hash: n, code: "forbidden".to_owned() }
}

fn got_body(seq: u64, n: u64, hash: u64, t_us: u64) -> Record {
    let (stream, kind) = (StreamId::Thread(T), "message.created".to_owned());
    Record::Deliver { client: 2, stream, seq, kind, nonce: Some(nonce(n)), hash, t_us }
}

/// Client 2 received message `n` at `seq`.
fn got(seq: u64, n: u64) -> Record {
    got_body(seq, n, n, 0)
}

fn got_kind(seq: u64, kind: &str) -> Record {
    Record::Deliver {
        client: 2,
        stream: StreamId::Thread(T),
        seq,
        kind: kind.to_owned(),
        nonce: None,
        hash: 0,
        t_us: 0,
    }
}

fn auth(resume: Positions, streams: Positions) -> Record {
    Record::Auth { client: 2, resume, streams }
}

fn open() -> Record {
    Record::Open { client: 2, node: "n2".to_owned() }
}

fn resumed(seq: u64) -> Record {
    Record::Resumed { client: 2, streams: at(seq), reset: vec![], denied: vec![] }
}

fn log(seq: u64, n: u64) -> Record {
    let kind = "message.created".to_owned();
    Record::Log { thread: T, seq, kind, no: seq, nonce: Some(nonce(n)), hash: n, sender: Some(A), profiles: vec![] }
}

fn log_member(seq: u64, kind: &str, who: Uuid) -> Record {
    Record::Log {
        thread: T,
        seq,
        kind: kind.to_owned(),
        no: 0,
        nonce: None,
        hash: 0,
        sender: None,
        profiles: vec![who],
    }
}

/// As [`log`], where other updates took a `seq` but no number.
fn log_no(seq: u64, no: u64, n: u64) -> Record {
    let kind = "message.created".to_owned();
    Record::Log { thread: T, seq, kind, no, nonce: Some(nonce(n)), hash: n, sender: Some(A), profiles: vec![] }
}

fn page(seqs: &[u64]) -> Record {
    let message = |seq: &u64| PageMessage { seq: *seq, no: *seq, nonce: Some(nonce(*seq)), hash: *seq };
    Record::Page { client: 2, thread: T, read: 1, newest: true, messages: seqs.iter().map(message).collect() }
}

const READ: Record = Record::Read { client: 2, thread: T, read: 1 };
const SETTLED: Record = Record::Settled { client: 2 };
const END: Record = Record::End { client: 2 };
const CLOSE: Record = Record::Close { client: 2 };

fn path_of(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("haus-check-{}-{name}.jsonl", std::process::id()))
}

fn check_text(name: &str, text: &str) -> Result<Report, CheckError> {
    let path = path_of(name);
    std::fs::write(&path, text).unwrap();
    let outcome = check_file(&path);
    std::fs::remove_file(&path).unwrap();
    outcome
}

/// Judges the usual opening (client 2 live in T from 0) followed by `records`.
fn check(name: &str, records: Vec<Record>) -> Report {
    let mut all = vec![
        Record::Begin { seed: 1, nodes: 2 },
        Record::Thread { thread: T, members: vec![A, B] },
        Record::Client { client: 1, profile: A },
        Record::Client { client: 2, profile: B },
        open(),
        auth(Positions::new(), at(0)),
    ];
    all.extend(records);
    let text = all.iter().fold(String::new(), |mut text, record| {
        writeln!(text, "{}", serde_json::to_string(record).unwrap()).unwrap();
        text
    });
    let report = check_text(name, &text).unwrap();
    assert_eq!(check_records(&all).named(), report.named(), "{name}: read or at hand");
    report
}

/// Asserts that exactly these anomalies (`A4`, or `A4 2` for two) were named.
#[track_caller]
fn expect(name: &str, records: Vec<Record>, named: &[&str]) -> Report {
    let report = check(name, records);
    let found: Vec<String> = report
        .named()
        .iter()
        .map(|(key, count)| if *count == 1 { key.clone() } else { format!("{key} {count}") })
        .collect();
    assert_eq!(found, named, "{name}: {:?}", report.findings);
    report
}

/// Three messages sent, acknowledged and in the log, with `middle` in between.
fn three(middle: Vec<Record>) -> Vec<Record> {
    let mut all: Vec<Record> = (1..=3).flat_map(|n| [send(n), ack(n, n)]).collect();
    all.extend(middle);
    all.extend((1..=3).map(|n| log(n, n)));
    all
}
