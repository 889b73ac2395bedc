//! Histories about what was said and answered (A1, A5, A6, A7, A11, A18), obligations and unreadable input.

use super::super::record::{Fault, PageMessage, Positions, Record, StreamId};
use super::{
    B, CLOSE, END, HALF_SECOND_US, READ, SETTLED, T, ack, at, auth, check_text, dup, expect, got, got_body, got_kind,
    log, log_member, log_no, nack, nonce, open, page, resumed, send, three,
};

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
    expect(
        "a1-wrong-body",
        vec![send(1), Record::Ack { client: 1, thread: T, nonce: nonce(1), hash: 9, seq: 1, dup: true }, log(1, 1)],
        &["A1"],
    );
}

#[test]
fn a5_divergence() {
    expect("a5-content", three(vec![got(1, 1), got_body(2, 2, 77, 0), got(3, 3)]), &["A5"]);
    expect("a5-place", three(vec![got(1, 1), got(2, 3), got(3, 3)]), &["A5"]);
    expect("a5-kind", three(vec![got(1, 1), got_kind(2, "message.deleted"), got(3, 3)]), &["A5"]);
    expect(
        "a5-page",
        three(vec![
            READ,
            Record::Page {
                client: 2,
                thread: T,
                read: 1,
                newest: true,
                messages: vec![PageMessage { seq: 3, no: 3, nonce: Some(nonce(3)), hash: 4 }],
            },
        ]),
        &["A5"],
    );
}

#[test]
fn a6_phantom() {
    expect("a1-not-a6", vec![send(1), got(1, 1), ack(1, 1)], &["A1"]);
    expect("a6-ack-without-send", vec![ack(1, 1), log(1, 1)], &["A6"]);
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
    let resume = vec![
        got(1, 1),
        CLOSE,
        open(),
        auth(at(1), Positions::new()),
        got_kind(2, "member.left"),
        got(3, 3),
        resumed(3),
    ];
    expect("a7-resume", [resume, left.to_vec()].concat(), &["A7"]);
    let paged = vec![
        READ,
        Record::Page {
            client: 2,
            thread: T,
            read: 1,
            newest: true,
            messages: vec![PageMessage { seq: 3, no: 2, nonce: Some(nonce(3)), hash: 3 }],
        },
    ];
    expect("a7-page", [paged, left.to_vec()].concat(), &["A7"]);
    let denied =
        Record::Resumed { client: 2, streams: Positions::new(), reset: vec![], denied: vec![StreamId::Thread(T)] };
    let fair = vec![got(1, 1), CLOSE, open(), auth(at(1), Positions::new()), denied, SETTLED, END];
    expect("a7-denied-is-fair", [fair, left.to_vec()].concat(), &[]);
}

#[test]
fn a11_stale_read_back() {
    let seen = || vec![got(1, 1), got(2, 2), got(3, 3)];
    expect("a11-lacks-newest", three([seen(), vec![READ, page(&[2, 1])]].concat()), &["A11"]);
    expect("a11-hole", three([seen(), vec![READ, page(&[3, 1])]].concat()), &["A11"]);
    expect("a11-order", three([seen(), vec![READ, page(&[2, 1, 3])]].concat()), &["A11"]);
    let early = vec![
        READ,
        send(1),
        ack(1, 1),
        Record::Page { client: 2, thread: T, read: 1, newest: true, messages: vec![] },
        log(1, 1),
    ];
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
    let between =
        vec![send(1), fault(Fault::NodeKill, 0), got_body(1, 1, 1, HALF_SECOND_US), send(1), dup(1, 1), log(1, 1)];
    let met = expect("kill-between", between, &[]).obligations;
    assert_eq!((met.kill_with_sends_in_flight, met.kill_between_commit_and_publish), (1, 1));
    let heal = Record::Heal { kind: Fault::NodeStop, node: "n1".to_owned(), t_us: 2 };
    let late = got_body(1, 1, 1, HALF_SECOND_US);
    let only_stopped = vec![send(1), fault(Fault::NodeStop, 0), heal, late, send(1), dup(1, 1), log(1, 1)];
    assert_eq!(expect("only-stopped", only_stopped, &[]).obligations.kill_between_commit_and_publish, 0);
    let retried =
        vec![send(1), fault(Fault::NodeKill, 0), send(1), ack(1, 1), got_body(1, 1, 1, HALF_SECOND_US), log(1, 1)];
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
