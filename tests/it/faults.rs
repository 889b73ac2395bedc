//! Faults of the services below: the database gone, an unsafe database, Redis gone, Redis stopped.

use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use crate::cluster::{Cluster, Person, SECRET_KEY, cluster};
use crate::rig::Folder;
use crate::services::Postgres;
use crate::socket::Client;

fn nonce_send(thread: Uuid, nonce: Uuid) -> serde_json::Value {
    json!({"threadId": thread, "nonce": nonce, "content": nonce.to_string()})
}

/// A node, somebody, a thread with one message of theirs, their socket and that of its other member.
async fn talk(postgres: &Postgres) -> (Cluster, Person, Uuid, Client, Client) {
    let cluster = Cluster::private(postgres, 1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let (mut client, reader) = (cluster.live(0, &ana).await, cluster.live(0, &ben).await);
    client.say(thread, "before").await;
    (cluster, ana, thread, client, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_a_node_says_so_and_comes_back_by_itself() {
    let mut postgres = Postgres::start();
    let (cluster, ana, thread, mut client, mut reader) = talk(&postgres).await;
    for socket in [&mut client, &mut reader] {
        socket.update(&thread.to_string()).await;
    }

    postgres.crash();
    let nonces: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
    let began = Instant::now();
    let mut ids = Vec::new();
    for nonce in &nonces {
        ids.push(client.start("message.send", nonce_send(thread, *nonce)).await);
    }
    for id in ids {
        let err = client.reply(id).await.expect_err("no false ok");
        assert_eq!((&err["code"], &err["retryable"]), (&json!("unavailable"), &json!(true)));
        assert!(err["retryAfterMs"].as_u64().unwrap() > 0, "{err}");
    }
    assert!(began.elapsed() < Duration::from_millis(2_200), "{:?}", began.elapsed());
    let mut waiting = cluster.connect(0).await;
    let began = Instant::now();
    let err = waiting.call("auth", json!({"token": ana.token})).await.expect_err("no database");
    assert!(began.elapsed() < Duration::from_millis(2_200), "{:?}", began.elapsed());
    assert_eq!(err["code"], "unavailable");
    assert!(err["retryAfterMs"].as_u64().unwrap() > 0, "{err}");
    assert_eq!(client.refused("history", json!({"threadId": thread})).await, "unavailable");
    for socket in [&mut client, &mut reader] {
        assert!(socket.drain().await.is_empty(), "no update without a commit");
    }

    readiness(&cluster, 503).await;

    postgres.resume().unwrap();
    readiness(&cluster, 200).await;
    // The sockets stayed: the same ones go on, and a repeat of what failed is one message each.
    repeat_until_taken(&mut client, thread, &nonces).await;
    while waiting.call("auth", json!({"token": ana.token})).await.is_err() {}
    for seq in 3..13 {
        let update = reader.update(&thread.to_string()).await.json;
        assert_eq!((&update["seq"], &update["d"]["message"]["content"]), (&json!(seq), &json!(nonces[seq - 3])));
    }
    assert_eq!(cluster.log(0, &ana, thread).await.len(), 12);

    // The settings that make a commit worth its name, at run time.
    for (setting, safe) in [("fsync", "on"), ("synchronous_commit", "on")] {
        postgres.run(&format!("ALTER SYSTEM SET {setting} = off"));
        postgres.run("SELECT pg_reload_conf()");
        readiness(&cluster, 503).await;
        assert_eq!(client.refused("message.send", nonce_send(thread, Uuid::now_v7())).await, "unavailable");
        exit_of_serve(&cluster, setting).await;
        postgres.run(&format!("ALTER SYSTEM SET {setting} = {safe}"));
        postgres.run("SELECT pg_reload_conf()");
        readiness(&cluster, 200).await;
        client.say(thread, "safe again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_costs_answers_but_no_message_and_no_socket() {
    let mut postgres = Postgres::start();
    let (cluster, ana, thread, mut client, mut reader) = talk(&postgres).await;
    let mut waiting = cluster.connect(0).await;

    postgres.freeze();
    let nonces: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
    let began = Instant::now();
    let mut ids = Vec::new();
    for nonce in &nonces {
        ids.push(client.start("message.send", nonce_send(thread, *nonce)).await);
    }
    assert_eq!(waiting.refused("auth", json!({"token": ana.token})).await, "unavailable");
    let (status, body) = cluster.rest(0, "GET", &format!("/v1/threads/{thread}/messages"), &ana, None).await;
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")), "{body}");
    for id in ids {
        assert_eq!(client.reply(id).await.expect_err("no false ok")["code"], "unavailable");
    }
    // One after the other: the three doors share no queue, and none waits for the two before it.
    assert!(began.elapsed() < Duration::from_millis(4_200), "{:?}", began.elapsed());
    readiness(&cluster, 503).await;

    postgres.thaw();
    readiness(&cluster, 200).await;
    // What hung may have been committed after all: a repeat is the same message.
    repeat_until_taken(&mut client, thread, &nonces).await;
    let name = thread.to_string();
    let mut seen = Vec::new();
    for seq in 2..13 {
        let update = reader.update(&name).await.json;
        assert_eq!(update["seq"], seq);
        seen.push(update["d"]["message"]["nonce"].as_str().unwrap().to_owned());
    }
    seen.sort();
    let mut expected: Vec<String> = nonces.iter().map(Uuid::to_string).collect();
    expected.push(seen.iter().find(|nonce| !expected.contains(nonce)).unwrap().clone());
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(cluster.log(0, &ana, thread).await.len(), 12);
    assert!(waiting.call("auth", json!({"token": ana.token})).await.is_ok());
}

/// Sends each again until it is acknowledged; the database is back, so that is soon.
async fn repeat_until_taken(client: &mut Client, thread: Uuid, nonces: &[Uuid]) {
    for nonce in nonces {
        let began = Instant::now();
        while let Err(err) = client.call("message.send", nonce_send(thread, *nonce)).await {
            assert_eq!(err["code"], "unavailable");
            assert!(began.elapsed() < Duration::from_secs(5), "does not recover");
        }
    }
}

/// Waits at most 8 s until `/readyz` answers `status`.
async fn readiness(cluster: &Cluster, status: u16) {
    let url = format!("http://{}/readyz", cluster.nodes[0].address);
    let began = Instant::now();
    loop {
        let answer = cluster.http.get(&url).send().await.unwrap();
        if answer.status() == status {
            return;
        }
        let body = answer.text().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(8), "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `haus serve` on an unsafe database: exit code 3, the setting named.
async fn exit_of_serve(cluster: &Cluster, setting: &str) {
    let folder = Folder::new("serve").unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_haus"));
    command.args(["serve", "--listen=127.0.0.1:0", "--data-dir"]).arg(folder.path());
    command.env("DATABASE_URL", cluster.database_url()).env("HAUS_SECRET_KEY", SECRET_KEY).env_remove("REDIS_URL");
    let output = tokio::time::timeout(Duration::from_secs(20), command.kill_on_drop(true).output()).await;
    let output = output.expect("ends by itself").unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(setting), "{text}");
    assert!(output.stdout.is_empty(), "no ready line");
}

/// Sends here, waits there; returns how long it took.
async fn crossing(from: &mut Client, to: &mut Client, thread: Uuid) -> Duration {
    let seq = from.say(thread, "over").await["seq"].clone();
    let began = Instant::now();
    to.until(|json| json["s"] == thread.to_string() && json["seq"] == seq).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_updates_come_from_the_log() {
    let mut cluster = cluster(2, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut here = cluster.live(0, &ana).await;
    let mut there = cluster.live(1, &ben).await;
    courier(&cluster, "ok").await;
    crossing(&mut here, &mut there, thread).await;

    cluster.redis.as_mut().unwrap().kill();
    courier(&cluster, "unhealthy").await;
    for _ in 0..3 {
        let took = crossing(&mut here, &mut there, thread).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    cluster.redis.as_mut().unwrap().resume().unwrap();
    courier(&cluster, "ok").await;
    crossing(&mut here, &mut there, thread).await;

    // Stopped, not gone: connections stay open and nothing answers.
    cluster.redis.as_mut().unwrap().freeze();
    let began = Instant::now();
    let took = crossing(&mut here, &mut there, thread).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    courier(&cluster, "unhealthy").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let took = crossing(&mut here, &mut there, thread).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    cluster.redis.as_mut().unwrap().thaw();
    courier(&cluster, "ok").await;
    crossing(&mut there, &mut here, thread).await;
    for (client, log) in
        [(&mut here, cluster.log(0, &ana, thread).await), (&mut there, cluster.log(1, &ben, thread).await)]
    {
        client.drain().await;
        assert_eq!(log.len(), 9);
    }
}

/// Waits until both nodes say so of their courier; they stay ready.
async fn courier(cluster: &Cluster, state: &str) {
    let began = Instant::now();
    for node in &cluster.nodes {
        loop {
            let answer = cluster.http.get(format!("http://{}/readyz", node.address)).send().await.unwrap();
            assert_eq!(answer.status(), 200, "a courier that is down costs latency only");
            let body: serde_json::Value = answer.json().await.unwrap();
            if body["checks"]["courier"] == state {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
