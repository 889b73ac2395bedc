//! Histories about position: twice, late, left out, cut short, never caught up (A2, A3, A4, A9, A10).

use super::super::record::{Positions, Record, StreamId};
use super::{
    B, CLOSE, END, READ, SETTLED, T, ack, at, auth, dup, expect, got, got_kind, log, log_member, log_no, open, page,
    resumed, send, three,
};

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
    let replay = vec![
        got(1, 1),
        got(2, 2),
        Record::Sync { client: 2, streams: at(1) },
        got(3, 3),
        got(2, 2),
        got(3, 3),
        resumed(3),
    ];
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
    let healed = vec![
        got(1, 1),
        got(3, 3),
        Record::Sync { client: 2, streams: at(1) },
        got(2, 2),
        got(3, 3),
        resumed(3),
        SETTLED,
    ];
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
        send(1),
        got(1, 1),
        got_kind(2, "member.left"),
        Record::Removed { client: 2, thread: T, seq: 2 },
        send(3),
        Record::Added { client: 2, thread: T, seq: 4 },
        send(5),
        got(5, 5),
        SETTLED,
        END,
        log(1, 1),
        log_member(2, "member.left", B),
        log_no(3, 2, 3),
        log_member(4, "member.joined", B),
        log_no(5, 3, 5),
    ];
    expect("a4-between-stays", records, &[]);
}

#[test]
fn a9_silent_truncation() {
    expect("a9-tail", three(vec![open(), auth(at(0), at(3)), got(1, 1), got(2, 2), resumed(3), SETTLED]), &["A9"]);
    expect("a9-head", three(vec![open(), auth(at(0), at(3)), got(2, 2), got(3, 3), resumed(3), SETTLED]), &["A9"]);
    expect("a9-all", three(vec![open(), auth(at(0), at(3)), resumed(3), SETTLED]), &["A9"]);
    let denied =
        Record::Resumed { client: 2, streams: Positions::new(), reset: vec![], denied: vec![StreamId::Thread(T)] };
    expect("a9-denied", three(vec![open(), auth(at(1), at(3)), denied]), &["A9"]);
    let cut = vec![
        open(),
        auth(at(0), at(3)),
        got(1, 1),
        CLOSE,
        open(),
        auth(at(1), at(3)),
        got(2, 2),
        got(3, 3),
        resumed(3),
        SETTLED,
    ];
    expect("a9-cut-before-resumed", three(cut), &[]);
}

#[test]
fn a9_snapshot_and_reset_are_no_truncation_once_read() {
    let snapshot = Record::Snapshot { client: 2, stream: StreamId::Thread(T), seq: 3 };
    let head = vec![open(), auth(at(0), at(3)), snapshot, resumed(3)];
    expect("a9-snapshot", three([head.clone(), vec![READ, page(&[3, 2, 1]), SETTLED, END]].concat()), &[]);
    expect("a10-snapshot-unread", three([head, vec![SETTLED, END]].concat()), &["A10"]);
    let reset =
        Record::Resumed { client: 2, streams: Positions::new(), reset: vec![StreamId::Thread(T)], denied: vec![] };
    let early = vec![open(), auth(at(0), at(2)), got(3, 3), reset.clone(), SETTLED, END];
    expect("a10-reset-after-live", three(early), &["A10"]);
    let unread = vec![open(), auth(at(0), at(2)), reset.clone(), page(&[2]), got(3, 3), SETTLED, END];
    expect("a10-reset-unread", three(unread), &["A10"]);
    let records = vec![open(), auth(at(0), at(2)), reset, READ, page(&[1, 2]), got(3, 3), SETTLED, END];
    expect("a9-reset", [vec![send(1), send(2), send(3)], records, (1..=3).map(|n| log(n, n)).collect()].concat(), &[]);
}

#[test]
fn a10_stall() {
    expect("a10-live", three(vec![got(1, 1), got(2, 2), SETTLED]), &["A10"]);
    expect("a10-never-told", three(vec![open(), auth(Positions::new(), Positions::new()), SETTLED]), &["A10"]);
    let user = |seq| Positions::from([(StreamId::User, seq)]);
    let told = |seq| Record::Resumed { client: 2, streams: user(seq), reset: vec![], denied: vec![] };
    let listed = Positions::from([(StreamId::User, 9), (StreamId::Thread(T), 0)]);
    expect("a10-user-stream", vec![open(), auth(user(7), listed.clone()), told(7), SETTLED], &["A10"]);
    expect("a10-user-stream-fine", vec![open(), auth(user(9), listed), told(9), SETTLED], &[]);
    expect("a10-still-running", three(vec![got(1, 1), got(2, 2)]), &[]);
}
