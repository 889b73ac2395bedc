//! Bad commands and slow readers: what is no frame, what is unknown, too much at once, and who does not read.

use std::time::{Duration, Instant};

use haus::telemetry::metrics;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};
use crate::raw::{Got, Raw};
use crate::socket::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_is_invalid_ten_times_a_minute() {
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let mut client = cluster.live(0, &ana).await;
    let batch = json!(vec![json!({"cmd": "ping"}); 65]).to_string();
    let bad = [
        "",
        "{",
        "null",
        "7",
        "\"x\"",
        "{}",
        r#"{"id":"1","cmd":"ping"}"#,
        r#"{"id":-1,"cmd":"ping"}"#,
        batch.as_str(),
        "[7]",
    ];
    assert_eq!(bad.len(), 10);
    for text in bad {
        client.send_text(text.to_owned()).await;
        let err = client.until(|json| json.get("err").is_some()).await.json;
        assert_eq!((&err["err"]["code"], err.get("id")), (&json!("invalid"), None), "{text}: {err}");
    }
    // Well-formed frames with bad contents do not count.
    assert_eq!(client.refused("no.such", json!({})).await, "unknown_cmd");
    assert_eq!(client.refused("history", json!({"threadId": 7})).await, "invalid");
    assert_eq!(client.refused("history", json!(null)).await, "invalid");
    assert_eq!(client.refused("history", json!({"threadId": Uuid::nil(), "limit": 101})).await, "invalid");
    client.send_text(r#"{"cmd":"no.such"}"#.to_owned()).await;
    let err = client.until(|json| json.get("err").is_some()).await.json;
    assert_eq!((&err["cmd"], &err["err"]["code"]), (&json!("no.such"), &json!("unknown_cmd")));
    client.send_text(json!(vec![json!({"id": 900.0, "cmd": "ping", "d": {}}); 64]).to_string()).await;
    for _ in 0..64 {
        assert!(client.reply(900).await.is_ok());
    }
    client.send_text("{".to_owned()).await;
    let closed = client.closed().await;
    assert_eq!((closed.code, closed.reason.as_str()), (4400, r#"{"c":"protocol"}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_work_than_one_socket_may_have_waits_and_is_answered() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut client = cluster.live(0, &ana).await;
    let frames: Vec<Value> =
        (0..64).map(|id| json!({"id": 1000 + id, "cmd": "history", "d": {"threadId": thread}})).collect();
    // Ten times what may be in work; nothing is lost and nothing is refused.
    for _ in 0..10 {
        client.send_text(json!(frames).to_string()).await;
    }
    for _ in 0..10 {
        for id in 0..64 {
            assert!(client.reply(1000 + id).await.is_ok());
        }
    }
}

/// A live socket with a small receive window that reads nothing yet.
async fn slow(cluster: &Cluster, person: &Person) -> Raw {
    let address = cluster.nodes[0].address.parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let raw = Raw { stream: socket.connect(address).await.unwrap() };
    raw.into_live(&cluster.nodes[0].address, &person.token).await
}

/// Sends large messages until `done`; returns how many.
async fn fill(client: &mut Client, thread: Uuid, done: impl Fn() -> bool) -> u64 {
    let content = "x".repeat(4000);
    let began = Instant::now();
    let mut count = 0;
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(40), "no slow reader was found after {count} messages");
        let mut ids = Vec::new();
        for _ in 0..32 {
            let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": content});
            ids.push(client.start("message.send", d).await);
        }
        for id in ids {
            client.reply(id).await.unwrap();
        }
        count += 32;
    }
    count
}

/// Held while readers are slow on purpose: one number counts those of all nodes of this process.
static SLOW: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_lags_is_fed_from_the_log_and_loses_nothing() {
    let _alone = SLOW.lock().await;
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let name = thread.to_string();
    let mut raw = slow(&cluster, &ben).await;
    let mut quick = cluster.live(0, &ben).await;
    // Nobody else notices: updates in order, one by one, for somebody who reads as they come.
    let (end, quick_name) = (tokio::sync::watch::Sender::new(u64::MAX), name.clone());
    let mut told = end.subscribe();
    let reading = tokio::spawn(async move {
        let mut next = 2;
        while next < *told.borrow_and_update() {
            tokio::select! {
                _ = told.changed() => {}
                update = quick.update(&quick_name) => {
                    assert_eq!(update.json["seq"], next);
                    next += 1;
                }
            }
        }
        next
    });
    let mut sender = cluster.live(0, &ana).await;
    let lagging = metrics().lagging_sessions.get();
    let sent = fill(&mut sender, thread, || metrics().lagging_sessions.get() > lagging).await
        + fill(&mut sender, thread, {
            let n = std::cell::Cell::new(0);
            move || n.replace(n.get() + 1) == 2
        })
        .await;
    end.send(sent + 2).unwrap();
    assert_eq!(reading.await.unwrap(), sent + 2);
    let (mut next, mut lags, mut snapshots) = (2, 0, 0);
    while next < sent + 2 {
        let Got::Frame(first, payload) = raw.got().await else { panic!("closed at {next}") };
        if first != 0x81 {
            continue;
        }
        let json: Value = serde_json::from_slice(&payload).unwrap();
        match json["up"].as_str() {
            Some("message.created") => {
                assert_eq!(json["seq"], next);
                next += 1;
            }
            Some("lag") => {
                assert_eq!(json["d"]["streams"], json!([name]));
                lags += 1;
            }
            Some("snapshot") => {
                snapshots += 1;
                let seq = json["seq"].as_u64().unwrap();
                assert!(seq >= next + 500, "a snapshot for {} updates", seq - next);
                next = seq + 1;
            }
            _ => {}
        }
    }
    // Once more for each time the kernel had room for all that waited, and then for no more.
    assert!((1..10).contains(&lags) && snapshots <= 1, "{lags} {snapshots}");
    assert_eq!(metrics().lagging_sessions.get(), lagging);
    // Caught up: live again.
    sender.say(thread, "live").await;
    let Got::Frame(0x81, payload) = raw.got().await else { panic!("not live") };
    assert!(String::from_utf8_lossy(&payload).contains("\"live\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_takes_nothing_is_closed() {
    let _alone = SLOW.lock().await;
    let cluster = cluster(1, &["--limits=off", "--slow-close-ms=400"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let raw = slow(&cluster, &ben).await;
    let mut sender = cluster.live(0, &ana).await;
    let mut quick = cluster.live(0, &ben).await;
    // Somebody who reads as it comes is left alone; one who did not would be closed as well.
    let (enough, mut told) = tokio::sync::oneshot::channel::<()>();
    let name = thread.to_string();
    let reading = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = &mut told => return quick,
                _ = quick.update(&name) => {}
            }
        }
    });
    // The server's own view: its socket for this peer is gone.
    let peer = raw.stream.local_addr().unwrap().port();
    fill(&mut sender, thread, || !established(peer)).await;
    enough.send(()).unwrap();
    reading.await.unwrap().drain().await;
    let mut raw = raw;
    assert!(matches!(raw.closed().await, 4013 | 1006));
}

/// Whether a connection to `port` of ours is still open on the server's side.
pub fn established(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|address| address.ends_with(&remote)) && fields.next() == Some("01")
    })
}
