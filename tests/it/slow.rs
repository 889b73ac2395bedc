//! Runs of updates that are larger than what may wait for one socket: who reads takes them as they come, who does not is
//! put behind and costs no more than was promised.

use std::time::{Duration, Instant};

use haus::messaging::send::append;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use uuid::Uuid;

use crate::cluster::cluster;
use crate::memory::MOST;
use crate::people::request;
use crate::raw::{Got, Raw, text};
use crate::rig::Folder;
use crate::socket::Client;

const SENDERS: usize = 4;
const SENDS: usize = 44;

/// Sends all of a sender's messages at once and reads until everybody's have come.
async fn flood(mut client: Client, thread: Uuid) {
    let content = "🔥".repeat(3_900);
    for _ in 0..SENDS {
        let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": content});
        client.start("message.send", d).await;
    }
    for seq in 2..2 + SENDERS * SENDS {
        assert_eq!(client.update(&thread.to_string()).await.json["seq"], seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_member_of_a_hot_thread_holds_what_was_promised_and_gets_all_of_it_later() {
    let cluster = cluster(0, &[]).await;
    let [deaf, ana, ben, cleo, dora] = cluster.persons().await;
    let thread = cluster.group(&[&deaf, &ana, &ben, &cleo, &dora]).await;
    let logs = Folder::new("slow").unwrap();
    let node = cluster.process(&logs, "slow", &[("HAUS_WORKERS", "1")]);
    let address = node.address().to_string();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let raw = Raw { stream: socket.connect(address.parse().unwrap()).await.unwrap() };
    let mut raw = raw.into_live(&address, &deaf.token).await;

    let mut senders = Vec::new();
    for person in [ana, ben, cleo, dora] {
        let mut client = Client::connect(&address).await;
        client.auth(&person.token).await;
        senders.push(client);
    }
    let floods: Vec<_> = senders.into_iter().map(|client| tokio::spawn(flood(client, thread))).collect();
    for flood in floods {
        flood.await.unwrap();
    }
    // Everybody else has all of it, so what waits now waits for the deaf one. It is counted once a second.
    let until = Instant::now() + Duration::from_millis(2_500);
    let mut held = 0.0_f64;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
        held = held.max(cluster.metric(&address, "haus_outbox_pending").await);
    }
    assert!(held > 0.0 && held <= MOST as f64, "{held} bytes wait for one socket");

    let mut next = 2;
    while next < 2 + SENDERS * SENDS {
        let Got::Frame(0x81, frame) = raw.got().await else { continue };
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        if frame["s"] == thread.to_string() {
            assert_eq!(frame["seq"], next, "in order, once");
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_reader_takes_a_run_of_any_size_without_a_lag() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let name = thread.to_string();
    let mut reader = cluster.live(0, &ben).await;
    let mut speaker = cluster.live(0, &ana).await;
    let content = "x".repeat(1_000);
    let mut connection = cluster.world.pool.acquire().await.unwrap();
    let mut next = 2;
    for round in 0..8 {
        // What nobody announces, and what comes early behind it: one run as soon as the hole is filled.
        let hidden: Vec<_> = (0..45).map(|_| request(ana.id, thread, &content)).collect();
        append(&mut connection, &hidden).await.unwrap();
        let sends: Vec<Value> = (0..40)
            .map(|_| json!({"cmd": "message.send", "d": {"threadId": thread, "nonce": Uuid::now_v7(), "content": content}}))
            .collect();
        speaker.send_text(json!(sends).to_string()).await;
        for seq in next..next + 85 {
            assert_eq!(reader.update(&name).await.json["seq"], seq);
        }
        next += 85;
        assert!(!reader.kept.iter().any(|frame| frame.json["up"] == "lag"), "round {round}: {:?}", reader.kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resumed_and_falls_far_behind_gets_a_snapshot_like_anybody() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let name = thread.to_string();
    let content = "x".repeat(2_000);
    let mut connection = cluster.world.pool.acquire().await.unwrap();
    let missed: Vec<_> = (0..300).map(|_| request(ana.id, thread, &content)).collect();
    for part in missed.chunks(100) {
        append(&mut connection, part).await.unwrap();
    }
    let epoch = cluster.connect(0).await.auth(&ben.token).await["epoch"].clone();
    let mut raw = Raw::greeted(&cluster.nodes[0].address.to_string()).await;
    let resume = json!({"epoch": epoch, "streams": {name.as_str(): 1}});
    let auth = json!({"id": 1, "cmd": "auth", "d": {"token": ben.token, "resume": resume}});
    raw.send(&text(&auth.to_string())).await;
    // Nothing is read; meanwhile far more is said than it may miss.
    let mut speaker = cluster.live(0, &ana).await;
    for round in 0..48 {
        let sends: Vec<Value> = (0..25)
            .map(|_| json!({"cmd": "message.send", "d": {"threadId": thread, "nonce": Uuid::now_v7(), "content": content}}))
            .collect();
        speaker.send_text(json!(sends).to_string()).await;
        for seq in 0..25 {
            assert_eq!(speaker.update(&name).await.json["seq"], 302 + round * 25 + seq);
        }
    }
    let (mut updates, mut snapshot) = (0, None);
    loop {
        let Got::Frame(0x81, frame) = raw.got().await else { continue };
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        match frame["up"].as_str() {
            Some("message.created") => updates += 1,
            Some("snapshot") => snapshot = frame["seq"].as_u64(),
            Some("resumed") => {
                assert!(frame["d"]["streams"][&name].as_u64() >= Some(301), "{frame}");
                break;
            }
            _ => {}
        }
    }
    assert_eq!(snapshot, Some(1501), "after {updates} updates");
}
