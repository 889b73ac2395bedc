//! A snapshot of the user stream: the socket is live in every thread it was shown, and sees nothing older after it. Each
//! order of {snapshot read, join or leave committed, update delivered, attached} is forced by gates in the database.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};
use crate::gates::{At, Gate};
use crate::socket::{Client, Frame, PATIENCE};

const PEOPLE: [(&str, &str); 2] = [("p_profiles", "uuid[]"), ("p_listed", "integer")];

/// So many updates of a person's user stream that it is not replayed from the start.
async fn lengthen(cluster: &Cluster, person: &Person, thread: Uuid, count: usize) {
    let data = json!({"threadId": thread});
    let one = format!("PERFORM engine.append_user_updates(ARRAY['{}'::uuid], 34::smallint, '{data}')", person.id);
    cluster.world.database.run(format!("DO $$ BEGIN FOR i IN 1..{count} LOOP {one}; END LOOP; END $$")).await;
}

/// Asserts that nothing of a stream in `frames` is older than a snapshot of it before; returns the last position of each.
fn nothing_older(frames: &[Frame]) -> BTreeMap<String, u64> {
    let mut snapshots: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = BTreeMap::new();
    for frame in frames {
        let (Some(stream), Some(seq)) = (frame.json["s"].as_str(), frame.json["seq"].as_u64()) else { continue };
        if let Some(snapshot) = snapshots.get(stream) {
            let is_snapshot = frame.json["up"] == "snapshot";
            assert!(seq > *snapshot || (is_snapshot && seq >= *snapshot), "{stream} {seq} after {snapshot}");
        }
        if frame.json["up"] == "snapshot" {
            snapshots.insert(stream.to_owned(), seq);
        }
        last.insert(stream.to_owned(), seq);
    }
    last
}

fn row(snapshot: &Value, thread: Uuid) -> Option<&Value> {
    snapshot["d"]["threads"].as_array().into_iter().flatten().find(|row| row["id"] == json!(thread))
}

/// How the socket comes to need a snapshot of its user stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Sync,
    Resume,
}

/// A socket whose snapshot stands at a gate.
struct Held {
    client: Client,
    gate: Gate,
    key: i64,
}

async fn held(cluster: &Cluster, person: &Person, door: Door, at: At) -> Held {
    let mut gate = Gate::put(&cluster.world.database, "people_threads", &PEOPLE, "engine.person_threads").await;
    let mut client = cluster.connect(0).await;
    let epoch = cluster.live(0, person).await.auth(&person.token).await;
    assert!(epoch["expiresAt"].is_string());
    let epoch = cluster.connect(0).await.auth(&person.token).await["epoch"].clone();
    let key = match door {
        Door::Sync => {
            client.auth(&person.token).await;
            let key = gate.close(1, at).await;
            client.start("sync", json!({"streams": {"user": 0}})).await;
            key
        }
        Door::Resume => {
            // The first call answers `auth`.
            let key = gate.close(2, at).await;
            let resume = json!({"epoch": epoch, "streams": {"user": 0}});
            client.call("auth", json!({"token": person.token, "resume": resume})).await.unwrap();
            key
        }
    };
    gate.held(key).await;
    Held { client, gate, key }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_around_a_snapshot_is_live_in_the_thread() {
    for door in [Door::Sync, Door::Resume] {
        for at in [At::Before, At::After] {
            let cluster = cluster(1, &["--limits=off"]).await;
            let [ana, ben] = cluster.persons().await;
            let old = cluster.group(&[&ana, &ben]).await;
            lengthen(&cluster, &ana, old, 600).await;
            let mut speaker = cluster.live(0, &ben).await;
            let new = cluster.group(&[&ben]).await;
            let Held { mut client, mut gate, key } = held(&cluster, &ana, door, at).await;
            speaker.say(new, "before").await;
            cluster.add_member(0, &ben, new, &ana).await;
            speaker.say(new, "after").await;
            speaker.say(old, "meanwhile").await;
            gate.open(key).await;

            // What is sent from here on is in no snapshot.
            let mut frames = vec![client.until(|json| json.get("up").is_some()).await];
            while frames.iter().all(|frame| frame.json["up"] != "snapshot") {
                frames.push(client.until(|json| json.get("up").is_some()).await);
            }
            let mut sent = BTreeMap::new();
            for thread in [new, old] {
                sent.insert(thread.to_string(), speaker.say(thread, "live").await["seq"].as_u64().unwrap());
            }
            until_live(&mut client, &mut frames, &sent, &format!("{door:?} {at:?}")).await;
            let resumed = &frames.iter().find(|frame| frame.json["up"] == "resumed").expect("resumed").json;
            let snapshot = frames.iter().position(|frame| frame.json["up"] == "snapshot").expect("a snapshot");
            assert!(resumed["d"]["streams"]["user"].as_u64() >= frames[snapshot].json["seq"].as_u64());
            assert_eq!(row(&frames[snapshot].json, new).is_some(), at == At::Before, "{door:?} {at:?}");
            let told = frames.iter().filter(|frame| frame.json["up"] == "thread.added").count();
            assert_eq!(told, usize::from(at == At::After), "{door:?} {at:?}");
            nothing_older(&frames);
            // Each goes on exactly where it was told to, or where it stood.
            for thread in [new, old] {
                let name = thread.to_string();
                let mut last = None;
                for frame in &frames {
                    let told = match frame.json["d"]["thread"]["id"] == name {
                        true => frame.json["d"]["thread"]["seq"].as_u64(),
                        false => row(&frame.json, thread).and_then(|row| row["seq"].as_u64()),
                    };
                    let came = frame.json["seq"].as_u64().filter(|_| frame.json["s"] == name);
                    if let (Some(last), Some(came)) = (last, came) {
                        assert_eq!(came, last + 1, "{door:?} {at:?}");
                    }
                    last = came.or(told.max(last));
                }
            }
        }
    }
}

/// Adds every frame until an update with each of these positions came, in the order of arrival.
async fn until_live(client: &mut Client, frames: &mut Vec<Frame>, sent: &BTreeMap<String, u64>, case: &str) {
    let is = |frame: &Frame, (thread, seq): (&String, &u64)| frame.json["s"] == *thread && frame.json["seq"] == *seq;
    while !sent.iter().all(|one| frames.iter().any(|frame| is(frame, one))) {
        let next = tokio::time::timeout(PATIENCE / 2, client.until(|json| json.get("up").is_some())).await;
        match next {
            Ok(frame) => frames.push(frame),
            Err(_) => panic!("{case}: {sent:?} did not all come: {frames:#?}"),
        }
    }
    frames.extend(client.drain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_or_comes_back_around_a_snapshot_sees_its_stays_and_no_more() {
    for door in [Door::Sync, Door::Resume] {
        for at in [At::Before, At::After] {
            for comes_back in [false, true] {
                let cluster = cluster(1, &["--limits=off"]).await;
                let [ana, ben] = cluster.persons().await;
                let thread = cluster.group(&[&ben, &ana]).await;
                lengthen(&cluster, &ana, thread, 600).await;
                let mut speaker = cluster.live(0, &ben).await;
                let Held { mut client, mut gate, key } = held(&cluster, &ana, door, at).await;
                speaker.say(thread, "seen").await;
                cluster.remove_member(0, &ben, thread, &ana).await;
                speaker.say(thread, "not for ana").await;
                if comes_back {
                    cluster.add_member(0, &ben, thread, &ana).await;
                    speaker.say(thread, "for ana again").await;
                }
                gate.open(key).await;
                client.up("resumed").await;
                let sent = speaker.say(thread, "live").await["seq"].as_u64().unwrap();
                let case = format!("{door:?} {at:?} {comes_back}");
                if comes_back {
                    let last = client.until(|json| json["s"] == json!(thread) && json["seq"] == sent).await;
                    client.kept.push_back(last);
                }
                if at == At::After {
                    let told = client.until(|json| json["up"] == "thread.removed").await;
                    client.kept.push_back(told);
                }
                let mut frames = client.drain().await;
                frames.sort_by_key(|frame| frame.json["s"] != json!(thread));
                let own: Vec<u64> = frames
                    .iter()
                    .filter(|frame| frame.json["s"] == json!(thread))
                    .map(|frame| frame.json["seq"].as_u64().unwrap())
                    .collect();
                assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "{case}: {own:?}");
                let text: String = frames.iter().map(|frame| frame.text.as_str()).collect();
                assert!(!text.contains("not for ana"), "{case}: {text}");
                assert!(text.contains("seen"), "{case}: {text}");
                // Where the thread was not live yet when the snapshot skipped the leave, a snapshot of it follows.
                let replaced = |frame: &Frame| frame.json["up"] == "snapshot" && frame.json["s"] == json!(thread);
                assert!(text.contains("member.left") || comes_back && frames.iter().any(replaced), "{case}: {text}");
                assert_eq!(own.contains(&sent), comes_back, "{case}: {own:?}");
                assert_eq!(text.contains("thread.removed"), at == At::After, "{case}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_and_came_back_unseen_is_shown_the_present_stay() {
    // The page of the thread stands at a gate while its reader is removed and let in again: the user stream's snapshot,
    // which comes next, has skipped both.
    for messages in [20, 700] {
        let cluster = cluster(1, &["--limits=off"]).await;
        let [ana, ben] = cluster.persons().await;
        let thread = cluster.group(&[&ben, &ana]).await;
        cluster.world.send_many(ben.id, thread, messages).await;
        lengthen(&cluster, &ana, thread, 600).await;
        let mut speaker = cluster.live(0, &ben).await;
        let mut client = cluster.live(0, &ana).await;
        let mut gate = Gate::put(&cluster.world.database, "people_threads", &PEOPLE, "engine.person_threads").await;
        let key = gate.close(1, At::Before).await;
        client.start("sync", json!({"streams": {"user": 0, thread.to_string(): messages - 10}})).await;
        gate.held(key).await;
        cluster.remove_member(0, &ben, thread, &ana).await;
        speaker.say(thread, "not for ana").await;
        cluster.add_member(0, &ben, thread, &ana).await;
        let seq = speaker.say(thread, "for ana").await["seq"].as_u64().unwrap();
        gate.open(key).await;
        client.up("resumed").await;
        let sent = speaker.say(thread, "live").await["seq"].as_u64().unwrap();
        let live = client.until(|json| json["s"] == json!(thread) && json["seq"] == sent).await;
        assert_eq!(live.json["up"], "message.created");
        let frames = client.drain().await;
        let text: String = frames.iter().map(|frame| frame.text.as_str()).collect();
        assert!(text.contains("for ana") && !text.contains("not for ana"), "{text}");
        let of_thread = |frame: &&Frame| frame.json["s"] == json!(thread);
        let snapshots: Vec<&Frame> =
            frames.iter().filter(of_thread).filter(|frame| frame.json["up"] == "snapshot").collect();
        assert_eq!(snapshots.len(), 1, "{text}");
        assert!(snapshots[0].json["seq"].as_u64() >= Some(seq), "{text}");
        nothing_older(&frames);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_crosses_a_snapshot_brings_nothing_older() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    cluster.world.send_many(ben.id, thread, 600).await;
    lengthen(&cluster, &ana, thread, 700).await;
    let mut client = cluster.live(0, &ana).await;
    let name = thread.to_string();
    // The second one asks from a position between that of the first and that of its snapshot.
    for (first, second) in [(0, 600), (0, 690), (650, 690)] {
        let one = client.start("sync", json!({"streams": {"user": first, &name: first.min(50)}})).await;
        let two = client.start("sync", json!({"streams": {"user": second, &name: 550}})).await;
        client.reply(one).await.unwrap();
        client.up("resumed").await;
        client.reply(two).await.unwrap();
        let resumed = client.up("resumed").await;
        assert_eq!((&resumed["d"]["streams"]["user"], &resumed["d"]["streams"][&name]), (&json!(701), &json!(601)));
    }
    let frames = client.drain().await;
    assert!(frames.iter().filter(|frame| frame.json["up"] == "snapshot").count() >= 4);
    nothing_older(&frames);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_joins_and_thousands_of_syncs_leave_no_thread_dead() {
    let cluster = cluster(2, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let old = cluster.group(&[&ben, &ana]).await;
    lengthen(&cluster, &ana, old, 1_000).await;
    let mut sockets = Vec::new();
    for node in [0, 1, 0, 1] {
        sockets.push(cluster.live(node, &ana).await);
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    // Two that ask again and again, from everywhere; two that read on.
    let readers: Vec<_> = sockets
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut frames = Vec::new();
                let mut cut = 7_u64;
                while number < 2 && !*stopped.borrow() {
                    cut = (cut * 181 + 83) % 1_201;
                    let id = client.start("sync", json!({"streams": {"user": cut}})).await;
                    client.reply(id).await.unwrap();
                    client.up("resumed").await;
                    frames.extend(client.kept.drain(..));
                }
                (client, frames)
            })
        })
        .collect();
    let mut threads = vec![old];
    for round in 0..150 {
        let thread = cluster.group(&[&ben]).await;
        cluster.add_member(round % 2, &ben, thread, &ana).await;
        if round % 5 == 4 {
            cluster.remove_member(round % 2, &ben, thread, &ana).await;
            cluster.add_member((round + 1) % 2, &ben, thread, &ana).await;
        }
        threads.push(thread);
    }
    stop.send(true).unwrap();
    let mut speaker = cluster.live(0, &ben).await;
    let mut read = Vec::new();
    for reader in readers {
        read.push(reader.await.unwrap());
    }
    let mut sent = Vec::new();
    for thread in &threads {
        sent.push((thread.to_string(), speaker.say(*thread, "live").await["seq"].as_u64().unwrap()));
    }
    for (number, (mut client, mut frames)) in read.into_iter().enumerate() {
        for (thread, seq) in &sent {
            let frame = client.until(|json| json["s"] == json!(thread) && json["seq"] == *seq).await;
            client.kept.push_back(frame);
        }
        frames.extend(client.drain().await.into_iter().filter(|frame| frame.json["s"] == "user"));
        nothing_older(&frames);
        let syncs = frames.iter().filter(|frame| frame.json["up"] == "snapshot").count();
        assert!(number >= 2 || syncs > 0, "no snapshot was sent");
    }
}
