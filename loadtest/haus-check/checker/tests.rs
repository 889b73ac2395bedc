//! Hand-written histories: for every anomaly one that has it, caught under that name and no other, and clean ones
//! that look alike. Thread T has members A (client 1) and B (client 2); message `n` has nonce and hash `n`.

use std::fmt::Write as _;
use std::path::PathBuf;

use uuid::Uuid;

use super::record::{Fault, PageMessage, Positions, Record, StreamId};
use super::report::Report;
use super::{CheckError, check_file};

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
    Record::Deliver { client: 2, stream: StreamId::Thread(T), seq, kind: kind.to_owned(), nonce: None, hash: 0, t_us: 0 }
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
    Record::Log { thread: T, seq, kind: kind.to_owned(), no: 0, nonce: None, hash: 0, sender: None, profiles: vec![who] }
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
    check_text(name, &text).unwrap()
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

#[test]
fn clean_history_counts_what_it_saw() {
    let report = expect("clean", three(vec![got(1, 1), got(2, 2), got(3, 3), SETTLED, END]), &[]);
    assert_eq!((report.histories, report.acked, report.deliveries), (1, 3, 3));
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.starts_with(r#"{"histories":1,"acked":3,"deliveries":3,"anomalies":{"A1":0,"A2":0,"#), "{json}");
    assert!(json.contains(r#""A18":0},"obligations":{"#), "{json}");
}

#[test]
fn a1_lost_ack() {
    expect("a1-nothing", vec![send(1), ack(1, 1)], &["A1"]);
    expect("a1-other", vec![send(1), ack(1, 1), send(2), ack(2, 1), log(1, 2)], &["A1"]);
    expect("a1-timeout-is-info", vec![send(1)], &[]);
    expect("a1-timeout-that-happened", vec![send(1), log(1, 1)], &[]);
    expect("a1-wrong-body", vec![send(1), Record::Ack { client: 1, thread: T, nonce: nonce(1), hash: 9, seq: 1, dup: true }, log(1, 1)], &["A1"]);
}

#[test]
fn a2_duplicate() {
    expect("a2-log", vec![send(1), ack(1, 1), send(1), ack(1, 2), log(1, 1), log(2, 1)], &["A2"]);
    expect("a2-wire", three(vec![got(1, 1), got(2, 2), got(2, 2), got(3, 3)]), &["A2"]);
    let greedy_cursor = vec![got(1, 1), got(2, 2), CLOSE, open(), auth(at(2), at(3)), got(2, 2), got(3, 3), resumed(3)];
    expect("a2-resume", three(greedy_cursor), &["A2"]);
    let twice_in_resume = vec![open(), auth(at(0), at(3)), got(1, 1), got(1, 1), got(2, 2), got(3, 3), resumed(3)];
    expect("a2-in-resume", three(twice_in_resume), &["A2"]);
    let asked_for = vec![got(1, 1), got(2, 2), CLOSE, open(), auth(at(1), at(3)), got(2, 2), got(3, 3), resumed(3)];
    expect("a2-asked-for", three(asked_for), &[]);
    let replay = vec![got(1, 1), got(2, 2), Record::Sync { client: 2, streams: at(1) }, got(3, 3), got(2, 2), got(3, 3), resumed(3)];
    expect("a2-sync-replays", three(replay), &[]);
    let report = expect("a2-repeat-hit", vec![send(1), ack(1, 1), send(1), dup(1, 1), log(1, 1)], &[]);
    assert_eq!((report.acked, report.obligations.nonce_hit), (1, 1));
}

#[test]
fn a3_reorder() {
    expect("a3-live", three(vec![got(1, 1), got(3, 3), got(2, 2), SETTLED]), &["A3"]);
    let in_resume = vec![open(), auth(at(0), at(3)), got(1, 1), got(3, 3), got(2, 2), resumed(3)];
    expect("a3-resume", three(in_resume), &["A3"]);
}

#[test]
fn a4_skip() {
    expect("a4-live", three(vec![got(1, 1), got(3, 3), SETTLED]), &["A4"]);
    let healed = vec![got(1, 1), got(3, 3), Record::Sync { client: 2, streams: at(1) }, got(2, 2), got(3, 3), resumed(3), SETTLED];
    expect("a4-healed-by-sync", three(healed), &["A4"]);
    expect("a4-log", vec![send(1), log(1, 1), send(3), log(3, 3)], &["A4"]);
    expect("a4-number", vec![send(1), log_no(1, 1, 1), send(2), log_no(2, 3, 2)], &["A4"]);
    let last_of_stay = vec![got(1, 1), Record::Removed { client: 2, thread: T, seq: 2 }];
    let left = [send(1), log(1, 1), log_member(2, "member.left", B)];
    expect("a4-end-of-stay", [last_of_stay, left.to_vec()].concat(), &["A4"]);
    let away = vec![got(1, 1), CLOSE, open(), auth(Positions::new(), at(3)), SETTLED];
    expect("a4-fresh-session", three(away), &[]);
}

#[test]
fn a4_not_for_what_lies_between_stays() {
    let records = vec![
        send(1), got(1, 1), got_kind(2, "member.left"), Record::Removed { client: 2, thread: T, seq: 2 },
        send(3), Record::Added { client: 2, thread: T, seq: 4 }, send(5), got(5, 5), SETTLED, END,
        log(1, 1), log_member(2, "member.left", B), log_no(3, 2, 3), log_member(4, "member.joined", B), log_no(5, 3, 5),
    ];
    expect("a4-between-stays", records, &[]);
}

#[test]
fn a5_divergence() {
    expect("a5-content", three(vec![got(1, 1), got_body(2, 2, 77, 0), got(3, 3)]), &["A5"]);
    expect("a5-place", three(vec![got(1, 1), got(2, 3), got(3, 3)]), &["A5"]);
    expect("a5-kind", three(vec![got(1, 1), got_kind(2, "message.deleted"), got(3, 3)]), &["A5"]);
    expect("a5-page", three(vec![READ, Record::Page { client: 2, thread: T, read: 1, newest: true, messages: vec![PageMessage { seq: 3, no: 3, nonce: Some(nonce(3)), hash: 4 }] }]), &["A5"]);
}

#[test]
fn a6_phantom() {
    expect("a6-never-committed", vec![send(1), got(1, 1)], &["A6"]);
    expect("a6-refused-and-seen", vec![send(1), nack(1), got(1, 1)], &["A6"]);
    expect("a6-nobody-sent", vec![got(1, 1), log(1, 1)], &["A6"]);
    expect("a6-timeout-and-seen", vec![send(1), got(1, 1), log(1, 1)], &[]);
}

#[test]
fn a7_unauthorised() {
    let left = [send(1), send(3), log(1, 1), log_member(2, "member.left", B), log_no(3, 2, 3)];
    let live = vec![got(1, 1), got_kind(2, "member.left"), got(3, 3)];
    expect("a7-live", [live, left.to_vec()].concat(), &["A7"]);
    let resume = vec![got(1, 1), CLOSE, open(), auth(at(1), Positions::new()), got_kind(2, "member.left"), got(3, 3), resumed(3)];
    expect("a7-resume", [resume, left.to_vec()].concat(), &["A7"]);
    let paged = vec![READ, Record::Page { client: 2, thread: T, read: 1, newest: true, messages: vec![PageMessage { seq: 3, no: 2, nonce: Some(nonce(3)), hash: 3 }] }];
    expect("a7-page", [paged, left.to_vec()].concat(), &["A7"]);
    let denied = Record::Resumed { client: 2, streams: Positions::new(), reset: vec![], denied: vec![StreamId::Thread(T)] };
    let fair = vec![got(1, 1), CLOSE, open(), auth(at(1), Positions::new()), denied, SETTLED, END];
    expect("a7-denied-is-fair", [fair, left.to_vec()].concat(), &[]);
}

#[test]
fn a9_silent_truncation() {
    expect("a9-tail", three(vec![open(), auth(at(0), at(3)), got(1, 1), got(2, 2), resumed(3), SETTLED]), &["A9"]);
    expect("a9-head", three(vec![open(), auth(at(0), at(3)), got(2, 2), got(3, 3), resumed(3), SETTLED]), &["A9"]);
    expect("a9-all", three(vec![open(), auth(at(0), at(3)), resumed(3), SETTLED]), &["A9"]);
    let denied = Record::Resumed { client: 2, streams: Positions::new(), reset: vec![], denied: vec![StreamId::Thread(T)] };
    expect("a9-denied", three(vec![open(), auth(at(1), at(3)), denied]), &["A9"]);
    let cut = vec![open(), auth(at(0), at(3)), got(1, 1), CLOSE, open(), auth(at(1), at(3)), got(2, 2), got(3, 3), resumed(3), SETTLED];
    expect("a9-cut-before-resumed", three(cut), &[]);
}

#[test]
fn a9_snapshot_and_reset_are_no_truncation_once_read() {
    let snapshot = Record::Snapshot { client: 2, stream: StreamId::Thread(T), seq: 3 };
    let head = vec![open(), auth(at(0), at(3)), snapshot, resumed(3)];
    expect("a9-snapshot", three([head.clone(), vec![READ, page(&[3, 2, 1]), SETTLED, END]].concat()), &[]);
    expect("a10-snapshot-unread", three([head, vec![SETTLED, END]].concat()), &["A10"]);
    let reset = Record::Resumed { client: 2, streams: Positions::new(), reset: vec![StreamId::Thread(T)], denied: vec![] };
    let records = vec![open(), auth(at(0), at(2)), reset, READ, page(&[1, 2]), got(3, 3), SETTLED, END];
    expect("a9-reset", vec![vec![send(1), send(2), send(3)], records, (1..=3).map(|n| log(n, n)).collect()].concat(), &["A10"]);
}

#[test]
fn a10_stall() {
    expect("a10-live", three(vec![got(1, 1), got(2, 2), SETTLED]), &["A10"]);
    expect("a10-never-told", three(vec![open(), auth(Positions::new(), Positions::new()), SETTLED]), &["A10"]);
    expect("a10-still-running", three(vec![got(1, 1), got(2, 2)]), &[]);
}

#[test]
fn a11_stale_read_back() {
    let seen = || vec![got(1, 1), got(2, 2), got(3, 3)];
    expect("a11-lacks-newest", three([seen(), vec![READ, page(&[2, 1])]].concat()), &["A11"]);
    expect("a11-hole", three([seen(), vec![READ, page(&[3, 1])]].concat()), &["A11"]);
    expect("a11-order", three([seen(), vec![READ, page(&[2, 1, 3])]].concat()), &["A11"]);
    let early = vec![READ, send(1), ack(1, 1), Record::Page { client: 2, thread: T, read: 1, newest: true, messages: vec![] }, log(1, 1)];
    expect("a11-asked-before", early, &[]);
    expect("a11-log-order", vec![send(1), send(2), log(1, 1), log(2, 2), log(2, 2)], &["A11"]);
}

#[test]
fn a18_false_negative() {
    expect("a18", vec![send(1), nack(1), log(1, 1)], &["A18"]);
    expect("a18-one-of-two-unanswered", vec![send(1), send(1), nack(1), log(1, 1)], &[]);
    expect("a18-refused-and-absent", vec![send(1), nack(1)], &[]);
    let conflict = Record::Send { client: 1, thread: T, nonce: nonce(1), hash: 9, node: "n1".to_owned() };
    let refused = Record::Nack { client: 1, thread: T, nonce: nonce(1), hash: 9, code: "nonce_conflict".to_owned() };
    expect("a18-conflict-is-fair", vec![send(1), ack(1, 1), conflict, refused, log(1, 1)], &[]);
}

#[test]
fn obligations_count_only_what_really_bit() {
    let fault = |kind, t_us| Record::Fault { kind, node: "n1".to_owned(), t_us };
    let between = vec![
        send(1), fault(Fault::NodeKill, 0), got_body(1, 1, 1, HALF_SECOND_US), send(1), dup(1, 1), log(1, 1),
    ];
    let met = expect("kill-between", between, &[]).obligations;
    assert_eq!((met.kill_with_sends_in_flight, met.kill_between_commit_and_publish), (1, 1));
    let retried = vec![send(1), fault(Fault::NodeKill, 0), send(1), ack(1, 1), got_body(1, 1, 1, HALF_SECOND_US), log(1, 1)];
    let met = expect("kill-before-commit", retried, &[]).obligations;
    assert_eq!((met.kill_with_sends_in_flight, met.kill_between_commit_and_publish), (1, 0));
    let idle = vec![send(1), ack(1, 1), fault(Fault::NodeKill, 0), fault(Fault::PostgresDown, 1), log(1, 1)];
    let met = expect("kill-idle", idle, &[]).obligations;
    assert_eq!((met.kill_with_sends_in_flight, met.postgres_restart_with_sends_in_flight), (0, 0));
    let outage = vec![fault(Fault::RedisDown, 0), send(1), fault(Fault::PostgresDown, 1), got(1, 1), log(1, 1)];
    let met = expect("outage", outage, &[]).obligations;
    assert_eq!((met.redis_outage_with_deliveries, met.postgres_restart_with_sends_in_flight), (1, 1));
}

#[test]
fn a_long_resume_counts_once_it_passed_a_hundred() {
    for (length, counted) in [(100, 0), (101, 1)] {
        let mut records: Vec<Record> = (1..=length).map(send).collect();
        records.extend([open(), auth(at(0), at(length))]);
        records.extend((1..=length).map(|n| got(n, n)));
        records.push(resumed(length));
        records.extend((1..=length).map(|n| log(n, n)));
        assert_eq!(expect("long-resume", records, &[]).obligations.resume_over_100, counted);
    }
}

#[test]
fn unreadable_input_names_the_line() {
    let begin = r#"{"op":"begin","seed":1,"nodes":2}"#;
    for (name, text, line) in [
        ("bad-json", format!("{begin}\n{{\"op\":\"send\""), "line 2"),
        ("bad-op", format!("{begin}\n{{\"op\":\"dance\"}}\n"), "line 2"),
        ("no-begin", "{\"op\":\"close\",\"client\":1}\n".to_owned(), "line 1"),
        ("empty", String::new(), "line 1"),
    ] {
        let error = check_text(name, &text).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(name), "{error}");
    }
}
