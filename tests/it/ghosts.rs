//! Sockets that end at an odd moment leave nothing behind, and what a client may do is counted before it is done.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::cluster;
use crate::raw::{Got, Raw, frame, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_close_while_they_authenticate_push_nobody_out() {
    let cluster = cluster(1, &["--sessions-per-profile=3"]).await;
    let [ana] = cluster.persons().await;
    let mut living = cluster.live(0, &ana).await;
    let auth = text(&json!({"id": 1, "cmd": "auth", "d": {"token": ana.token}}).to_string());
    for round in 0..40 {
        let mut raw = Raw::greeted(&cluster.nodes[0].address).await;
        raw.send(&auth).await;
        // At once, a moment later, and so on: in each of the phases.
        tokio::time::sleep(Duration::from_micros(150 * (round % 10))).await;
        drop(raw);
    }
    // Whatever they had registered is gone with them: two more fit beside the first.
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let (_second, _third) = (cluster.live(0, &ana).await, cluster.live(0, &ana).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
        if living.call("ping", json!({})).await.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(cluster.live(0, &ana).await);
    }
    assert_eq!(living.closed().await.code, 4409, "the oldest of four");
    for socket in &mut sockets {
        assert!(socket.call("ping", json!({})).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_comes_with_the_last_bytes_is_seen() {
    use tokio::io::AsyncWriteExt;
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    for _ in 0..20 {
        let mut raw = Raw::live(&cluster.nodes[0].address, &ana.token).await;
        // Data and FIN leave in one segment where the kernel holds the first back for the second.
        rustix::net::sockopt::set_tcp_cork(&raw.stream, true).unwrap();
        raw.send(&text(r#"{"id":2,"cmd":"ping"}"#)).await;
        raw.stream.shutdown().await.unwrap();
        raw.ended_within(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_counted_before_it_is_worked_on() {
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let address = &cluster.nodes[0].address;
    // Frames that carry nothing, in every form.
    let nothings: [Vec<u8>; 4] = [text("[]"), text(" [ ] "), frame(0x89, b""), frame(0x8A, b"x")];
    for nothing in nothings {
        let mut raw = Raw::live(address, &ana.token).await;
        raw.send(&nothing.repeat(400)).await;
        assert_eq!(raw.closed().await, 4029);
    }
    // Refreshes: some, then no more; the socket stays.
    let mut raw = Raw::live(address, &ana.token).await;
    let auth = |id: u64| text(&json!({"id": id, "cmd": "auth", "d": {"token": ana.token}}).to_string());
    let mut codes = std::collections::BTreeMap::<String, u32>::new();
    for id in 2..102 {
        raw.send(&auth(id)).await;
        let Got::Frame(0x81, payload) = raw.got().await else { panic!("closed") };
        let reply: Value = serde_json::from_slice(&payload).unwrap();
        let code = reply["err"]["code"].as_str().unwrap_or("ok").to_owned();
        *codes.entry(code).or_default() += 1;
    }
    assert_eq!(codes, [("ok".to_owned(), 20), ("rate_limited".to_owned(), 80)].into());
    // Also before anything is known of the peer, and with commands that are refused anyway.
    let mut raw = Raw::greeted(address).await;
    let ping = json!({"id": 1, "cmd": "ping"});
    for _ in 0..60 {
        raw.send(&text(&json!(vec![&ping; 64]).to_string())).await;
    }
    assert_eq!(raw.closed().await, 4029);
    // Commands that do not exist are commands.
    let mut client = cluster.live(0, &ana).await;
    let mut last = String::new();
    for _ in 0..310 {
        last = client.refused("no.such", json!({"threadId": Uuid::nil()})).await;
    }
    assert_eq!(last, "rate_limited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_repeat_little_of_what_was_sent() {
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let long = "y".repeat(60_000);
    let mut raw = Raw::live(&cluster.nodes[0].address, &ana.token).await;
    for sent in [
        json!({"cmd": long}),
        json!({"cmd": "message.send", "d": {"threadId": Uuid::nil(), "mediaType": long}}),
        json!({"id": 3, "cmd": "history", "d": {"threadId": long}}),
        json!({"cmd": 1, "d": long}),
    ] {
        raw.send(&text(&sent.to_string())).await;
        let Got::Frame(0x81, payload) = raw.got().await else { panic!("closed") };
        assert!(payload.len() < 2_000, "{} bytes", payload.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_person_are_counted_over_all_nodes() {
    let mut cluster = cluster(2, &["--sessions-per-profile=3"]).await;
    let [ana] = cluster.persons().await;
    let mut sockets = std::collections::VecDeque::new();
    for node in [0, 1, 0, 1] {
        sockets.push_back(cluster.live(node, &ana).await);
    }
    assert_eq!(
        sockets.pop_front().unwrap().closed().await.code,
        4409,
        "the oldest of four, which is with the other node"
    );
    stay(&mut sockets).await;

    // Redis hangs: nobody waits for it, and each node counts alone.
    cluster.redis.as_mut().unwrap().freeze();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let began = Instant::now();
    for node in [0, 1] {
        sockets.push_back(cluster.live(node, &ana).await);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "a connect waited: {:?}", began.elapsed());
    stay(&mut sockets).await;
    cluster.redis.as_mut().unwrap().thaw();
    for _ in 0..2 {
        assert_eq!(sockets.pop_front().unwrap().closed().await.code, 4409, "made up for when it is back");
    }
    stay(&mut sockets).await;

    // It dies and comes back with nothing.
    cluster.redis.as_mut().unwrap().kill();
    sockets.push_back(cluster.live(1, &ana).await);
    stay(&mut sockets).await;
    cluster.redis.as_mut().unwrap().resume().unwrap();
    assert_eq!(sockets.pop_front().unwrap().closed().await.code, 4409);
    // One that left makes room for another.
    drop(sockets.pop_back());
    tokio::time::sleep(Duration::from_secs(2)).await;
    sockets.push_back(cluster.live(0, &ana).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stay(&mut sockets).await;
}

/// All of these are open.
async fn stay(sockets: &mut std::collections::VecDeque<crate::socket::Client>) {
    for socket in sockets {
        assert!(socket.call("ping", json!({})).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_tickets_and_refreshes_hold_nobody_up() {
    let cluster = cluster(1, &[]).await;
    let [ana, ben] = cluster.persons().await;
    // Refreshes with tickets that nobody made, from many sockets at once, for as long as it takes.
    let flooding = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut floods = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::live(&cluster.nodes[0].address, &ana.token).await;
        let flooding = flooding.clone();
        floods.push(tokio::spawn(async move {
            let ticket = "A".repeat(43);
            let frame = json!({"id": 2, "cmd": "auth", "d": {"ticket": ticket}}).to_string();
            while flooding.load(std::sync::atomic::Ordering::Relaxed) {
                raw.send(&text(&frame)).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    for _ in 0..20 {
        let mut other = cluster.live(0, &ben).await;
        assert!(other.call("threads.list", json!({})).await.is_ok());
    }
    // A good ticket gets through as well, once.
    let (status, body) = cluster.rest(0, "POST", "/v1/ws/ticket", &ben, None).await;
    assert_eq!(status, 201, "{body}");
    let mut other = cluster.connect(0).await;
    assert!(other.call("auth", json!({"ticket": body["ticket"]})).await.is_ok());
    flooding.store(false, std::sync::atomic::Ordering::Relaxed);
    for flood in floods {
        flood.await.unwrap();
    }
}
