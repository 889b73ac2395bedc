//! The end of a stay: nothing from after it is told, and `resumed` names where it was.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Person, cluster};
use crate::gates::{At, Gate};
use crate::people;
use crate::socket::Frame;

async fn epoch(cluster: &Cluster, person: &Person) -> String {
    cluster.connect(0).await.auth(&person.token).await["epoch"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_tells_nothing_of_a_thread_from_after_the_leave() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let epoch = epoch(&cluster, &ana).await;
    let thread = cluster.group(&[&ben, &ana]).await;
    let path = format!("/v1/threads/{thread}");
    let rename = |name: &'static str| json!({"name": name});
    let mention = json!({"threadId": thread, "nonce": uuid::Uuid::now_v7(), "content": "x", "mentions": [ana.id]});
    let mut speaker = cluster.live(0, &ben).await;
    assert_eq!(cluster.rest(0, "PATCH", &path, &ben, Some(rename("in her time"))).await.0, 200);
    for _ in 0..3 {
        speaker.say(thread, "seen").await;
    }
    let mut reader = cluster.live(0, &ana).await;
    reader.call("read", json!({"threadId": thread, "no": 2})).await.unwrap();
    speaker.call("message.send", mention.clone()).await.unwrap();
    let name = thread.to_string();
    let page = cluster.log(0, &ben, thread).await;
    let left_at = page.len() as u64 + 1;
    cluster.remove_member(0, &ben, thread, &ana).await;
    for n in 0..4 {
        speaker.say(thread, &format!("after {n}")).await;
    }
    assert_eq!(cluster.rest(0, "PATCH", &path, &ben, Some(rename("behind her back"))).await.0, 200);

    let mut client = cluster.connect(0).await;
    let (_, frames, resumed) = client.resume(&ana.token, &epoch, json!({"user": 0})).await;
    let text: String = frames.iter().map(|frame| frame.text.as_str()).collect();
    assert!(!text.contains("behind her back") && !text.contains("after 0"), "{text}");
    let up = |up: &str| frames.iter().find(|frame| frame.json["up"] == up).expect(up).json["d"].clone();
    let state = up("thread.state");
    assert_eq!(state["atNo"], 4, "{state}");
    assert_eq!((&state["lastReadNo"], &state["mentions"]), (&json!(2), &json!(1)), "{state}");
    assert_eq!(up("thread.added")["thread"]["name"], "in her time");
    assert_eq!(up("thread.removed")["seq"], left_at);
    assert_eq!(resumed["denied"], json!([]));
    let last = frames.iter().rfind(|frame| frame.json["s"] == name).expect("the stay itself");
    assert_eq!((&last.json["seq"], &last.json["up"]), (&json!(left_at), &json!("member.left")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumed_names_the_leave_and_who_is_kicked_while_behind_gets_it() {
    // The position stands at a gate: the kick is committed between the judgement and the reading.
    for missed in [20_u64, 700] {
        let cluster = cluster(1, &["--limits=off"]).await;
        let [ana, ben] = cluster.persons().await;
        let thread = cluster.group(&[&ben, &ana]).await;
        let name = thread.to_string();
        cluster.world.send_many(ben.id, thread, missed as usize).await;
        let mut client = cluster.live(0, &ana).await;
        let mut speaker = cluster.live(0, &ben).await;
        cluster
            .world
            .database
            .run("CREATE TYPE engine.place AS (thread_id uuid, seq bigint, join_seq bigint)".to_owned())
            .await;
        let arguments = [("p_profile", "uuid"), ("p_threads", "uuid[]")];
        let mut gate = Gate::put(&cluster.world.database, "positions", &arguments, "engine.place").await;
        let key = gate.close(1, At::After).await;
        let sync = client.start("sync", json!({"streams": {&name: 1}})).await;
        gate.held(key).await;
        // Not live while it is judged: what follows has to come from the log.
        cluster.remove_member(0, &ben, thread, &ana).await;
        for n in 0..3 {
            speaker.say(thread, &format!("after {n}")).await;
        }
        client.up("thread.removed").await;
        gate.open(key).await;
        client.reply(sync).await.unwrap();
        let resumed: Value = client.up("resumed").await["d"].clone();
        assert_eq!(resumed["denied"], json!([thread]), "{missed} {resumed}");
        let frames = client.drain().await;
        let own: Vec<&Frame> = frames.iter().filter(|frame| frame.json["s"] == name).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!(own[0].json["up"], "member.left");

        // A resume that is judged before the kick and read after it.
        cluster.add_member(0, &ben, thread, &ana).await;
        let join = client.up("thread.added").await["d"]["thread"]["seq"].as_u64().unwrap();
        cluster.world.send_many(ben.id, thread, missed as usize).await;
        let epoch = epoch(&cluster, &ana).await;
        let mut later = cluster.connect(0).await;
        let people = [("p_profiles", "uuid[]"), ("p_listed", "integer")];
        drop(gate);
        cluster.world.database.run("DROP SEQUENCE engine.gate_calls CASCADE".to_owned()).await;
        let mut gate = Gate::put(&cluster.world.database, "people_threads", &people, "engine.person_threads").await;
        let key = gate.close(1, At::After).await;
        let resume = json!({"epoch": epoch, "streams": {&name: join}});
        let auth = later.start("auth", json!({"token": ana.token, "resume": resume})).await;
        gate.held(key).await;
        let kick = cluster.rest(0, "DELETE", &format!("/v1/threads/{thread}/members/{}", ana.id), &ben, None).await;
        assert_eq!(kick.0, 204);
        for n in 0..3 {
            speaker.say(thread, &format!("after {n}")).await;
        }
        gate.open(key).await;
        later.reply(auth).await.unwrap();
        let resumed = later.up("resumed").await["d"].clone();
        let leave = join + missed + 1;
        assert_eq!(resumed["streams"][&name], leave, "{missed} {resumed}");
        later.up("thread.removed").await;
        let frames = later.drain().await;
        let own: Vec<u64> = frames
            .iter()
            .filter(|frame| frame.json["s"] == name)
            .map(|frame| frame.json["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(own, (join + 1..=leave).collect::<Vec<_>>(), "{missed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_past_a_leave_waits_for_it_no_more() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ben, &ana]).await;
    let other = cluster.group(&[&ben, &ana]).await;
    cluster.world.send_many(ben.id, other, 1).await;
    let name = thread.to_string();
    let mut client = cluster.live(0, &ana).await;
    let mut speaker = cluster.live(0, &ben).await;
    // The polls that follow a subscription are over; the next comes in five seconds.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Nobody announces the kick. What the user stream gets next is announced, so it is read up to there, and its
    // `thread.removed` waits for a leave that the thread has not told of.
    people::remove(&cluster.world.pool, ben.id, thread, ana.id).await.unwrap();
    client.call("read", json!({"threadId": other, "no": 1})).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // She is let in again, and names a position in her present stay: the leave is behind her.
    let people = vec![ana.id];
    people::add(&cluster.world.pool, ben.id, thread, people).await.unwrap();
    let joined = cluster.log(0, &ben, thread).await.len();
    client.call("sync", json!({"streams": {&name: joined}})).await.unwrap();
    let resumed = client.up("resumed").await["d"].clone();
    assert_eq!(resumed["streams"][&name], joined, "{resumed}");
    for up in ["thread.removed", "thread.state", "thread.added"] {
        assert_eq!(client.until(|json| json["s"] == "user").await.json["up"], up);
    }
    let seq = speaker.say(thread, "live").await["seq"].clone();
    assert_eq!(client.update(&name).await.json["seq"], seq);
}
