//! `message.send` over sockets: commit before `ok`, one encoding for everybody, nonces, order, and REST as the same
//! operation.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::cluster;
use haus::limits::Work;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_the_same_bytes_the_sender_too() {
    let cluster = cluster(2, &[]).await;
    let [ana, ben, cem] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben, &cem]).await;
    let mut clients = Vec::new();
    for (node, person) in [(0, &ana), (0, &ana), (0, &ben), (1, &ben), (1, &cem)] {
        clients.push(cluster.live(node, person).await);
    }
    let nonce = Uuid::now_v7();
    let d = json!({"threadId": thread, "nonce": nonce, "content": "héllo \u{1F3E0} \"x\"", "mentions": [cem.id]});
    let ok = clients[0].call("message.send", d).await.unwrap();
    assert_eq!((&ok["seq"], &ok["no"], &ok["dup"]), (&json!(2), &json!(1), &json!(false)));
    // After commit: the row is there for anybody who asks once `ok` is.
    let (status, page) = cluster.rest(1, "GET", &format!("/v1/threads/{thread}/messages"), &cem, None).await;
    assert_eq!((status, &page["messages"][0]["id"]), (200, &ok["messageId"]));

    let mut texts = HashSet::new();
    for client in &mut clients {
        let frame = client.update(&thread.to_string()).await;
        assert_eq!((&frame.json["up"], &frame.json["seq"]), (&json!("message.created"), &json!(2)));
        let message = &frame.json["d"]["message"];
        assert_eq!((&message["nonce"], &message["senderId"]), (&json!(nonce), &json!(ana.id)));
        assert_eq!(message["mentions"], json!([cem.id]));
        texts.insert(frame.text);
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    // The log gives the same update, too.
    let log = cluster.log(1, &cem, thread).await;
    assert_eq!(log[1], serde_json::from_str::<Value>(texts.iter().next().unwrap()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_is_one_message_for_ever() {
    let cluster = cluster(1, &["--sends-per-10s=3"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut client = cluster.live(0, &ben).await;
    let nonce = Uuid::now_v7();
    let d = json!({"threadId": thread, "nonce": nonce, "content": "once"});
    let other = json!({"threadId": thread, "nonce": nonce, "content": "twice"});
    let first = client.call("message.send", d.clone()).await.unwrap();
    let same = |again: Value| {
        assert_eq!(again["dup"], true, "{again}");
        for field in ["messageId", "seq", "no", "sentAt"] {
            assert_eq!(again[field], first[field], "{field}");
        }
    };
    same(client.call("message.send", d.clone()).await.unwrap());
    assert_eq!(client.refused("message.send", other.clone()).await, "nonce_conflict");

    // Rate limit: fresh sends are refused with a time, the repeat is not.
    let fresh = || json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "more"});
    let err = loop {
        if let Err(err) = client.call("message.send", fresh()).await {
            break err;
        }
    };
    assert_eq!((&err["code"], &err["retryable"]), (&json!("rate_limited"), &json!(true)));
    assert!((1..=10_000).contains(&err["retryAfterMs"].as_u64().unwrap()), "{err}");
    same(client.call("message.send", d.clone()).await.unwrap());

    cluster.world.database.run(format!("UPDATE threads SET is_archived = true WHERE id = '{thread}'")).await;
    same(client.call("message.send", d.clone()).await.unwrap());
    cluster.world.database.run(format!("UPDATE threads SET is_archived = false WHERE id = '{thread}'")).await;

    cluster.remove_member(0, &ana, thread, &ben).await;
    client.up("thread.removed").await;
    same(client.call("message.send", d).await.unwrap());
    assert_eq!(client.refused("message.send", other).await, "nonce_conflict");
    assert_eq!(client.refused("message.send", fresh()).await, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_above_the_rate_takes_no_lock_and_a_repeat_is_answered_all_the_same() {
    let cluster = cluster(1, &["--sends-per-10s=2"]).await;
    let ana = cluster.person().await;
    let thread = cluster.group(&[&ana]).await;
    let mut client = cluster.live(0, &ana).await;
    let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "once"});
    let first = client.call("message.send", d.clone()).await.unwrap();
    client.say(thread, "two").await;
    // Whoever waits for the lock of the thread gets no answer but `unavailable` now.
    let mut held = cluster.world.database.owner.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM threads FOR UPDATE").execute(&mut *held).await.unwrap();
    let fresh = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "three"});
    assert_eq!(client.refused("message.send", fresh).await, "rate_limited");
    let again = client.call("message.send", d.clone()).await.unwrap();
    assert_eq!((&again["dup"], &again["seq"]), (&json!(true), &first["seq"]));
    let (status, again) = cluster
        .rest(0, "POST", &format!("/v1/threads/{thread}/messages"), &ana, {
            let mut body = d.clone();
            body.as_object_mut().unwrap().remove("threadId");
            Some(body)
        })
        .await;
    assert_eq!((status, &again["seq"]), (200, &first["seq"]));
    let other = json!({"threadId": thread, "nonce": d["nonce"], "content": "other"});
    assert_eq!(client.refused("message.send", other).await, "nonce_conflict");
    let nowhere = json!({"threadId": Uuid::now_v7(), "nonce": d["nonce"], "content": "once"});
    assert_eq!(client.refused("message.send", nowhere).await, "not_found");
    held.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_reads_have_rates_over_both_doors() {
    let cluster = cluster(1, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let path = format!("/v1/threads/{thread}");
    let create = json!({"type": "GROUP", "name": "one of many", "memberIds": []});
    let calls = [
        (Work::Create, "POST", "/v1/threads", create),
        (Work::Change, "PATCH", path.as_str(), json!({"isMuted": true})),
    ];
    for (work, method, path, body) in calls {
        let mut passed = 0;
        let refused = loop {
            let (status, answer) = cluster.rest(0, method, path, &ana, Some(body.clone())).await;
            match status {
                200 | 201 => passed += 1,
                _ => break (status, answer["code"].clone()),
            }
            assert!(passed < 4 * work.shape().0, "{method} {path} has no rate");
        };
        assert_eq!(refused, (429, json!("rate_limited")));
        assert!(passed >= work.shape().0, "{method} {path}: {passed}");
    }
    // The other one has buckets of their own, and a socket spends from the same as requests do.
    let (status, _) =
        cluster.rest(0, "POST", "/v1/threads", &ben, Some(json!({"type": "DIRECT", "memberIds": [ana.id]}))).await;
    assert_eq!(status, 201);
    let mut client = cluster.live(0, &ben).await;
    let mut rounds = 0;
    while {
        let calls = (0..16).map(|_| cluster.rest(0, "GET", "/v1/threads?limit=1", &ben, None));
        futures_util::future::join_all(calls).await.iter().all(|(status, _)| *status == 200)
    } {
        rounds += 1;
        assert!(rounds < 1_000, "lists have no rate");
    }
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(client.start("threads.list", json!({"limit": 1})).await);
    }
    let mut last = String::new();
    for id in ids {
        if let Err(err) = client.reply(id).await {
            assert!(err["retryAfterMs"].as_u64().is_some_and(|ms| ms < 1_000), "{err}");
            last = err["code"].as_str().unwrap().to_owned();
        }
    }
    assert_eq!(last, "rate_limited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_sent_is_refused_by_its_code() {
    let cluster = cluster(1, &[]).await;
    let [ana, ben, eve] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let archived = cluster.group(&[&ana, &ben]).await;
    cluster.world.database.run(format!("UPDATE threads SET is_archived = true WHERE id = '{archived}'")).await;
    let mut client = cluster.live(0, &ben).await;
    let mut stranger = cluster.live(0, &eve).await;
    let send = |thread: Uuid, content: &str| json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": content});
    assert_eq!(stranger.refused("message.send", send(thread, "x")).await, "not_found");
    assert_eq!(client.refused("message.send", send(Uuid::now_v7(), "x")).await, "not_found");
    assert_eq!(client.refused("message.send", send(archived, "x")).await, "thread_archived");
    assert_eq!(client.refused("message.send", send(thread, " ")).await, "invalid");
    assert_eq!(client.refused("message.send", send(thread, &"ü".repeat(4001))).await, "too_large");
    assert_eq!(client.refused("message.send", json!({"threadId": thread, "content": "x"})).await, "invalid");
    assert_eq!(client.refused("message.send", json!({"threadId": "x", "content": "x"})).await, "invalid");
    let mut reply = send(thread, "x");
    reply["replyToId"] = json!(Uuid::now_v7());
    assert_eq!(client.refused("message.send", reply).await, "not_found");
    let mut mention = send(thread, "x");
    mention["mentions"] = json!([eve.id]);
    assert_eq!(client.refused("message.send", mention).await, "not_found");
    assert_eq!(client.call("message.send", send(thread, &"ü".repeat(4000))).await.unwrap()["seq"], 2);
    assert_eq!(cluster.log(0, &ben, thread).await.len(), 2, "refused sends left nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_keeps_its_order_over_frames_and_batches() {
    let cluster = cluster(2, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut senders = [cluster.live(0, &ana).await, cluster.live(1, &ben).await];
    let mut reader = cluster.live(1, &ana).await;
    let frame = |id: usize, name: &str| {
        let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": format!("{name} {id}")});
        json!({"id": 1000 + id, "cmd": "message.send", "d": d})
    };
    const EACH: usize = 300;
    for (sender, name) in senders.iter_mut().zip(["a", "b"]) {
        let mut id = 0;
        for size in [1, 64, 1, 7, 1, 1].into_iter().cycle() {
            if id == EACH {
                break;
            }
            let frames: Vec<Value> = (id..(id + size).min(EACH)).map(|id| frame(id, name)).collect();
            id += frames.len();
            let text = if size == 1 { frames[0].to_string() } else { json!(frames).to_string() };
            sender.send_text(text).await;
        }
    }
    for sender in &mut senders {
        let mut last = 0;
        for id in 0..EACH {
            let ok = sender.reply(1000 + id as u64).await.unwrap();
            let seq = ok["seq"].as_u64().unwrap();
            assert!(seq > last, "{id}: {seq} after {last}");
            last = seq;
        }
    }
    let mut next = [0, 0];
    for seq in 2..2 + 2 * EACH as u64 {
        let update = reader.update(&thread.to_string()).await.json;
        assert_eq!((&update["seq"], &update["d"]["message"]["no"]), (&json!(seq), &json!(seq - 1)));
        let content = update["d"]["message"]["content"].as_str().unwrap().to_owned();
        let who = usize::from(content.starts_with('b'));
        assert_eq!(content, format!("{} {}", ["a", "b"][who], next[who]));
        next[who] += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_thread_take_effect_in_the_order_received() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut client = cluster.live(0, &ana).await;
    let mut frames = Vec::new();
    for round in 0..16_u64 {
        let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": round.to_string()});
        frames.push(json!({"id": 100 + round * 3, "cmd": "message.send", "d": d}));
        frames.push(json!({"id": 101 + round * 3, "cmd": "history", "d": {"threadId": thread, "limit": 1}}));
        frames.push(json!({"id": 102 + round * 3, "cmd": "read", "d": {"threadId": thread, "no": round + 1}}));
    }
    client.send_text(json!(frames).to_string()).await;
    for round in 0..16_u64 {
        assert_eq!(client.reply(100 + round * 3).await.unwrap()["no"], round + 1);
        let history = client.reply(101 + round * 3).await.unwrap();
        assert_eq!(history["messages"][0]["content"], round.to_string(), "{history}");
        assert_eq!(client.reply(102 + round * 3).await.unwrap()["lastReadNo"], round + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_is_the_same_operation_on_the_same_table() {
    let cluster = cluster(2, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut client = cluster.live(0, &ana).await;
    let mut reader = cluster.live(1, &ben).await;
    let post = async |nonce: Uuid, content: &str| {
        let url = format!("http://{}/v1/threads/{thread}/messages", cluster.nodes[1].address);
        let request = cluster.http.post(url).bearer_auth(&ana.token).header("idempotency-key", nonce.to_string());
        let answer = request.json(&json!({"content": content})).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (by_rest, by_socket) = (Uuid::now_v7(), Uuid::now_v7());
    let (status, made) = post(by_rest, "rest").await;
    assert_eq!((status, &made["dup"]), (201, &json!(false)));
    let d = json!({"threadId": thread, "nonce": by_rest, "content": "rest"});
    let again = client.call("message.send", d).await.unwrap();
    assert_eq!((&again["dup"], &again["messageId"]), (&json!(true), &made["messageId"]));
    let sent =
        client.call("message.send", json!({"threadId": thread, "nonce": by_socket, "content": "s"})).await.unwrap();
    let (status, again) = post(by_socket, "s").await;
    assert_eq!((status, &again["dup"], &again["messageId"]), (200, &json!(true), &sent["messageId"]));
    let (status, problem) = post(by_socket, "other").await;
    assert_eq!((status, &problem["code"]), (409, &json!("nonce_conflict")));
    for (seq, content) in [(2, "rest"), (3, "s")] {
        let update = reader.update(&thread.to_string()).await.json;
        assert_eq!((&update["seq"], &update["d"]["message"]["content"]), (&json!(seq), &json!(content)));
    }
}
