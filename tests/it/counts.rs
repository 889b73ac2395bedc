//! What the metrics count: updates are encoded once however many receive them, and a batch of sends is one statement.
//! Metrics are per process, so the test runs alone in a child of this binary.

use haus::telemetry::metrics;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::cluster;

fn in_a_process_of_its_own(test: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn counted_in_a_process_of_its_own() {
    in_a_process_of_its_own("counts::alone");
}

#[test]
fn sign_ins_are_counted_by_door_and_outcome() {
    in_a_process_of_its_own("counts::sign_ins_alone");
}

#[tokio::test]
#[ignore = "run by sign_ins_are_counted_by_door_and_outcome, alone in its process"]
async fn sign_ins_alone() {
    let cluster = cluster(1, &[]).await;
    let post = async |path: &str, token: Option<&str>, body: Value| {
        let mut request = cluster.http.post(format!("http://{}{path}", cluster.nodes[0].address)).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or(Value::Null))
    };
    let account = json!({"email": "ana@counts.example", "password": "a long enough secret 7", "displayName": "Ana"});
    let login = |password: &str| json!({"email": "ana@counts.example", "password": password});
    let (status, made) = post("/v1/auth/register", None, account.clone()).await;
    assert_eq!((status, post("/v1/auth/register", None, account).await.0), (201, 409));
    assert_eq!(post("/v1/auth/login", None, login("a long enough secret 7")).await.0, 200);
    for _ in 0..2 {
        assert_eq!(post("/v1/auth/login", None, login("a wrong secret 7")).await.0, 401);
    }
    let id = made["profile"]["id"].as_str().unwrap();
    cluster.world.database.run(format!("UPDATE profiles SET status = 'BANNED' WHERE id = '{id}'")).await;
    assert_eq!(post("/v1/auth/login", None, login("a long enough secret 7")).await.0, 403);
    cluster.world.database.run(format!("UPDATE profiles SET status = 'ACTIVE' WHERE id = '{id}'")).await;
    let token = json!({"refreshToken": made["refreshToken"]});
    let (status, next) = post("/v1/auth/refresh", None, token).await;
    assert_eq!((status, post("/v1/auth/refresh", None, json!({"refreshToken": "made up"})).await.0), (200, 401));
    assert_eq!(post("/v1/auth/logout", next["accessToken"].as_str(), Value::Null).await.0, 204);
    let count = |door: &str, outcome: &str| metrics().sign_ins.with_label_values(&[door, outcome]).get();
    for (door, outcome, times) in [
        ("register", "ok", 1),
        ("register", "conflict", 1),
        ("login", "ok", 1),
        ("login", "unauthenticated", 2),
        ("login", "forbidden", 1),
        ("refresh", "ok", 1),
        ("refresh", "unauthenticated", 1),
        ("logout", "ok", 1),
    ] {
        assert_eq!(count(door, outcome), times, "{door} {outcome}");
    }
    let text = haus::telemetry::render();
    assert!(text.contains("haus_sign_ins_total{door=\"login\",outcome=\"unauthenticated\"} 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by counted_in_a_process_of_its_own, alone in its process"]
async fn alone() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut sender = cluster.live(0, &ana).await;
    let mut readers = Vec::new();
    for _ in 0..5 {
        readers.push(cluster.live(0, &ben).await);
    }
    let sends = metrics().statements.with_label_values(&["send"]);
    let before =
        (metrics().updates_encoded.get(), metrics().deliveries.get(), sends.get(), metrics().feed_repairs.get());
    let frames: Vec<Value> = (0..64)
        .map(|id| {
            let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "x"});
            json!({"id": 100 + id, "cmd": "message.send", "d": d})
        })
        .collect();
    for _ in 0..2 {
        sender.send_text(json!(frames).to_string()).await;
        for id in 0..64 {
            sender.reply(100 + id).await.unwrap();
        }
    }
    let name = thread.to_string();
    for client in readers.iter_mut().chain([&mut sender]) {
        for seq in 2..66 {
            assert_eq!(client.update(&name).await.json["seq"], seq);
        }
    }
    // The second batch repeats the nonces of the first: 64 updates, each encoded once and delivered to six sockets.
    assert_eq!(metrics().updates_encoded.get() - before.0, 64);
    assert_eq!(metrics().deliveries.get() - before.1, 64 * 6);
    // What arrives while a call is under way joins the next: two frames are never a statement a message.
    let statements = sends.get() - before.2;
    assert!((2..=8).contains(&statements), "{statements} statements for 2 frames of 64");
    assert_eq!(metrics().feed_repairs.get(), before.3);

    // One send alone is one statement and one update.
    let before = (metrics().updates_encoded.get(), sends.get());
    sender.say(thread, "one").await;
    assert_eq!((metrics().updates_encoded.get() - before.0, sends.get() - before.1), (1, 1));
}
