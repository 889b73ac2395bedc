//! Streams and `seq`: joins, kicks, and a resume from anywhere, over nodes and under load.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};
use crate::socket::{Client, Frame};

/// Sends in a thread until it is aborted or refused.
fn chatter(mut client: Client, thread: Uuid) -> JoinHandle<()> {
    tokio::spawn(async move {
        for n in 0.. {
            let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": format!("load {n}")});
            if client.call("message.send", d).await.is_err() {
                return;
            }
        }
    })
}

fn seqs(frames: &[Frame], stream: &str) -> Vec<u64> {
    frames.iter().filter(|frame| frame.json["s"] == stream).map(|frame| frame.json["seq"].as_u64().unwrap()).collect()
}

/// Asserts that the updates of a thread in `frames` go on by one each.
fn contiguous(seqs: &[u64]) {
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_thread_comes_before_its_updates() {
    let cluster = cluster(2, &[]).await;
    let [ana, ben, cem] = cluster.persons().await;
    let mut maker = cluster.live(0, &ana).await;
    let mut others = [cluster.live(0, &ben).await, cluster.live(1, &ben).await];
    let body = json!({"type": "GROUP", "memberIds": [ben.id], "name": "new"});
    let (status, made) = cluster.rest(0, "POST", "/v1/threads", &ana, Some(body)).await;
    assert_eq!(status, 201, "{made}");
    let thread: Uuid = made["id"].as_str().unwrap_or_else(|| made["thread"]["id"].as_str().unwrap()).parse().unwrap();
    maker.say(thread, "first").await;
    for client in &mut others {
        client.update(&thread.to_string()).await;
        let added =
            client.kept.iter().position(|frame| frame.json["up"] == "thread.added").expect("thread.added first");
        let row = client.kept[added].json["d"]["thread"].clone();
        assert_eq!((&row["id"], &row["seq"]), (&json!(thread), &json!(1)));
    }

    // A join in a busy thread: the row says S, the first update is S + 1.
    let load = chatter(maker, thread);
    let mut joiner = cluster.live(1, &cem).await;
    others[0].update(&thread.to_string()).await;
    cluster.add_member(0, &ana, thread, &cem).await;
    let added = joiner.up("thread.added").await;
    let start = added["d"]["thread"]["seq"].as_u64().unwrap();
    assert!(joiner.kept.iter().all(|frame| frame.json["s"] != thread.to_string()), "nothing before thread.added");
    for seq in start + 1..start + 20 {
        assert_eq!(joiner.update(&thread.to_string()).await.json["seq"], seq);
    }
    load.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_is_the_last_of_a_thread_on_every_node() {
    let cluster = cluster(2, &["--limits=off"]).await;
    let [ana, ben, cem] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben, &cem]).await;
    let loads = [chatter(cluster.live(0, &ana).await, thread), chatter(cluster.live(1, &cem).await, thread)];
    let mut sockets = [cluster.live(0, &ben).await, cluster.live(1, &ben).await];
    for round in 0..50 {
        cluster.remove_member(round % 2, &ana, thread, &ben).await;
        for client in &mut sockets {
            let removed = client.up("thread.removed").await;
            let leave = removed["d"]["seq"].as_u64().unwrap();
            assert_eq!((&removed["d"]["threadId"], &removed["d"]["reason"]), (&json!(thread), &json!("removed")));
            let frames = client.drain().await;
            let seqs = seqs(&frames, &thread.to_string());
            contiguous(&seqs);
            assert_eq!(seqs.last(), Some(&leave), "round {round}: member.left is the last of the thread");
            let last = frames.iter().rfind(|frame| frame.json["s"] == thread.to_string()).unwrap();
            assert_eq!((&last.json["up"], &last.json["d"]["profileIds"]), (&json!("member.left"), &json!([ben.id])));
        }
        cluster.add_member((round + 1) % 2, &ana, thread, &ben).await;
        for client in &mut sockets {
            let added = client.up("thread.added").await;
            assert!(client.kept.is_empty(), "between leave and join: {:?}", client.kept);
            let start = added["d"]["thread"]["seq"].as_u64().unwrap();
            let first = client.update(&thread.to_string()).await;
            assert_eq!(first.json["seq"], start + 1, "round {round}");
            client.kept.push_front(first);
        }
    }
    loads.iter().for_each(JoinHandle::abort);
}

/// A thread with `count` messages besides its first update.
async fn filled(cluster: &Cluster, people: &[&Person], count: usize) -> Uuid {
    let thread = cluster.group(people).await;
    cluster.world.send_many(people[0].id, thread, count).await;
    thread
}

async fn epoch(cluster: &Cluster, person: &Person) -> String {
    let mut client = cluster.connect(0).await;
    client.auth(&person.token).await["epoch"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_from_anywhere_equals_the_log() {
    let cluster = cluster(3, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = filled(&cluster, &[&ana, &ben], 200).await;
    let name = thread.to_string();
    let epoch = epoch(&cluster, &ana).await;
    let mut speaker = cluster.live(1, &ben).await;
    // Cuts that a linear congruence deals over the stream, on each node in turn, while messages are being sent.
    let mut cut = 7_u64;
    let mut read: Vec<(u64, Vec<Frame>)> = Vec::new();
    for round in 0..45 {
        cut = (cut * 181 + 83) % 201;
        let mut client = cluster.connect(round % 3).await;
        let mut sends = Vec::new();
        for n in 0..4 {
            let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": format!("{round} {n}")});
            sends.push(speaker.start("message.send", d).await);
        }
        let (ok, before, resumed) = client.resume(&ana.token, &epoch, json!({ &name: cut })).await;
        assert_eq!((&resumed["reset"], &resumed["denied"]), (&json!([]), &json!([])), "{resumed}");
        let head = ok["threads"][0]["seq"].as_u64().unwrap();
        let told = resumed["streams"][&name].as_u64().unwrap();
        assert!(told >= head, "{resumed} {head}");
        let mut frames: Vec<Frame> = before.into_iter().filter(|frame| frame.json["s"] == name).collect();
        assert_eq!(seqs(&frames, &name), (cut + 1..=told).collect::<Vec<_>>(), "cut {cut}");
        let mut last = 0;
        for send in sends {
            last = speaker.reply(send).await.unwrap()["seq"].as_u64().unwrap();
        }
        for seq in told + 1..=last {
            let live = client.update(&name).await;
            assert_eq!(live.json["seq"], seq);
            frames.push(live);
        }
        read.push((cut, frames));
    }
    let log = cluster.log(2, &ana, thread).await;
    for (cut, frames) in read {
        for (frame, logged) in frames.iter().zip(&log[cut as usize..]) {
            assert_eq!(frame.json, *logged);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replayed_is_said_so() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben, eve] = cluster.persons().await;
    let long = filled(&cluster, &[&ana, &ben], 560).await;
    let short = filled(&cluster, &[&ana, &ben], 5).await;
    let foreign = filled(&cluster, &[&eve, &ben], 5).await;
    let epoch = epoch(&cluster, &ana).await;
    let mut client = cluster.connect(0).await;
    let streams = json!({"user": 0, long.to_string(): 60, short.to_string(): 99, foreign.to_string(): 1, "junk": 1});
    let (_, frames, resumed) = client.resume(&ana.token, &epoch, streams).await;
    let snapshot = frames.iter().find(|frame| frame.json["up"] == "snapshot").expect("a snapshot");
    assert_eq!((&snapshot.json["s"], &snapshot.json["seq"]), (&json!(long), &json!(561)));
    let d = &snapshot.json["d"];
    assert_eq!((d["messages"].as_array().unwrap().len(), &d["memberCount"]), (50, &json!(2)));
    assert_eq!((&d["thread"]["id"], d["members"].as_array().unwrap().len()), (&json!(long), 2));
    assert_eq!(resumed["streams"][long.to_string()], 561);
    assert_eq!(resumed["reset"], json!([short]));
    let mut denied: Vec<&str> =
        resumed["denied"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    denied.sort_unstable();
    let mut expected = [foreign.to_string(), "junk".to_owned()];
    expected.sort_unstable();
    assert_eq!(denied, expected);
    assert!(seqs(&frames, &foreign.to_string()).is_empty() && seqs(&frames, &short.to_string()).is_empty());
    // Reset and snapshot streams are live all the same.
    for (thread, seq) in [(long, 562), (short, 7)] {
        client.say(thread, "on").await;
        assert_eq!(client.update(&thread.to_string()).await.json["seq"], seq);
    }

    let mut client = cluster.connect(0).await;
    let streams = json!({"user": 0, short.to_string(): 2});
    let (_, frames, resumed) = client.resume(&ana.token, &Uuid::now_v7().to_string(), streams).await;
    assert!(frames.is_empty(), "{frames:?}");
    assert_eq!((resumed["reset"].as_array().unwrap().len(), &resumed["streams"]), (2, &json!({})));

    // `sync` later does the same for a live socket.
    assert_eq!(
        client.call("sync", json!({"streams": {short.to_string(): 4, foreign.to_string(): 0}})).await,
        Ok(json!({}))
    );
    let resumed = client.up("resumed").await["d"].clone();
    assert_eq!((&resumed["streams"], &resumed["denied"]), (&json!({short.to_string(): 7}), &json!([foreign])));
    let frames: Vec<Frame> = client.kept.drain(..).collect();
    assert_eq!(seqs(&frames, &short.to_string()), [5, 6, 7]);
    let many: serde_json::Map<String, Value> = (0..501).map(|_| (Uuid::now_v7().to_string(), json!(0))).collect();
    assert_eq!(client.refused("sync", json!({"streams": many})).await, "invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_catch_up_is_bounded_and_the_rest_is_reset() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let mut threads = Vec::new();
    for _ in 0..12 {
        threads.push(filled(&cluster, &[&ana, &ben], 480).await);
    }
    let epoch = epoch(&cluster, &ana).await;
    let mut client = cluster.connect(0).await;
    let streams: serde_json::Map<String, Value> = threads.iter().map(|id| (id.to_string(), json!(1))).collect();
    let (_, frames, resumed) = client.resume(&ana.token, &epoch, streams.into()).await;
    let reset: Vec<&str> = resumed["reset"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!((resumed["streams"].as_object().unwrap().len(), reset.len()), (10, 2));
    for thread in &threads {
        let name = thread.to_string();
        let expected: Vec<u64> = if reset.contains(&name.as_str()) { vec![] } else { (2..=481).collect() };
        assert_eq!(seqs(&frames, &name), expected);
        client.say(*thread, "on").await;
        assert_eq!(client.update(&name).await.json["seq"], 482);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_and_came_back_resumes_with_the_present_stay() {
    let cluster = cluster(2, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = filled(&cluster, &[&ana, &ben], 3).await;
    let name = thread.to_string();
    let epoch = epoch(&cluster, &ben).await;
    let user = cluster.live(0, &ben).await.auth(&ben.token).await;
    assert!(user["expiresAt"].is_string());
    cluster.remove_member(0, &ana, thread, &ben).await;
    let mut ana_socket = cluster.live(0, &ana).await;
    ana_socket.say(thread, "not for ben").await;
    cluster.add_member(0, &ana, thread, &ben).await;
    ana_socket.say(thread, "for ben").await;
    for streams in [json!({"user": 0}), json!({"user": 0, &name: 4})] {
        for node in 0..2 {
            let mut client = cluster.connect(node).await;
            let (ok, frames, resumed) = client.resume(&ben.token, &epoch, streams.clone()).await;
            let head = ok["streams"]["user"].as_u64().unwrap();
            assert_eq!(resumed["streams"]["user"], head, "{resumed}");
            assert_eq!(seqs(&frames, "user"), (1..=head).collect::<Vec<_>>(), "the whole user stream: {frames:?}");
            assert!(!frames.iter().any(|frame| frame.text.contains("not for ben")), "{frames:?}");
            let snapshots = frames.iter().filter(|frame| frame.json["up"] == "snapshot").count();
            assert_eq!(snapshots, streams.as_object().unwrap().len() - 1);
            let seq = ana_socket.say(thread, "live").await["seq"].clone();
            assert_eq!(client.update(&name).await.json["seq"], seq);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_go_round_all_streams_with_what_was_delivered() {
    let cluster = cluster(1, &["--limits=off", "--heartbeat-ms=300"]).await;
    let [ana, ben] = cluster.persons().await;
    let mut heads = BTreeMap::new();
    for _ in 0..40 {
        heads.insert(cluster.group(&[&ana, &ben]).await.to_string(), 1);
    }
    let mut client = cluster.live(0, &ana).await;
    let user = client.up("hb").await["d"]["heads"]["user"].as_u64().unwrap();
    let busy: Uuid = heads.keys().next().unwrap().parse().unwrap();
    for round in 2..5 {
        let seq = client.say(busy, "on").await["seq"].as_u64().unwrap();
        assert_eq!(seq, round);
        client.update(&busy.to_string()).await;
    }
    heads.insert(busy.to_string(), 4);
    client.drain().await;
    let mut told = BTreeMap::new();
    for _ in 0..2 {
        let beat = client.up("hb").await;
        let beat = beat["d"]["heads"].as_object().unwrap();
        assert_eq!((beat.len(), &beat["user"]), (33, &json!(user)), "32 threads a beat, and the user stream");
        told.extend(beat.iter().map(|(stream, head)| (stream.clone(), head.as_u64().unwrap())));
    }
    told.remove("user");
    assert_eq!(told, heads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_beyond_the_first_page_are_live_too() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let mut all = BTreeSet::new();
    for _ in 0..230 {
        all.insert(cluster.group(&[&ana, &ben]).await.to_string());
    }
    let mut client = cluster.connect(0).await;
    let mut page = client.auth(&ana.token).await;
    let mut listed = Vec::new();
    let last: Vec<String> = loop {
        let ids = page["threads"].as_array().unwrap().iter().map(|thread| thread["id"].as_str().unwrap().to_owned());
        let ids: Vec<String> = ids.collect();
        listed.extend(ids.iter().cloned());
        if page["next"].is_null() {
            break ids;
        }
        page = client.call("threads.list", json!({"cursor": page["next"]})).await.unwrap();
    };
    assert_eq!(listed.len(), 230, "none twice");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
    assert!(last.len() < 230);
    let mut sender = cluster.live(0, &ben).await;
    for thread in &last {
        sender.say(thread.parse().unwrap(), "to the last page").await;
        assert_eq!(client.update(thread).await.json["seq"], 2);
    }
}
