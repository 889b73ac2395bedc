//! People in very many threads, and slow ones: they are their own trouble.

use std::time::Duration;

use haus::telemetry::metrics;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};

/// `count` GROUPs of these two, made in the database.
async fn groups(cluster: &Cluster, one: &Person, other: &Person, count: usize) {
    let (one, other) = (one.id, other.id);
    let make = format!(
        "PERFORM engine.create_thread(gen_random_uuid(), 'GROUP', 'g' || i, NULL, NULL, '{one}',
         ARRAY['{one}', '{other}']::uuid[], NULL, 5000)"
    );
    cluster.world.database.run(format!("DO $$ BEGIN FOR i IN 1..{count} LOOP {make}; END LOOP; END $$")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_thousands_of_threads_is_live_in_all_of_them() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    groups(&cluster, &ana, &ben, 1_500).await;
    // The second connect is read apart from everybody's.
    let mut clients = [cluster.connect(0).await, cluster.connect(0).await];
    let mut all: Vec<Uuid> = Vec::new();
    for client in &mut clients {
        let mut page = client.auth(&ana.token).await;
        all.clear();
        loop {
            all.extend(
                page["threads"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["id"].as_str().unwrap().parse::<Uuid>().unwrap()),
            );
            if page["next"].is_null() {
                break;
            }
            page = client.call("threads.list", json!({"cursor": page["next"], "limit": 100})).await.unwrap();
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1_500);
    }
    let mut speaker = cluster.live(0, &ben).await;
    let last: Vec<Uuid> = all.iter().copied().step_by(37).collect();
    for thread in &last {
        speaker.say(*thread, "to all").await;
    }
    for client in &mut clients {
        for thread in &last {
            assert_eq!(client.update(&thread.to_string()).await.json["seq"], 2);
        }
    }
    // A `sync` reads what it names, whatever else there is.
    let reads = metrics().statements.with_label_values(&["positions"]);
    let before = reads.get();
    let names: serde_json::Map<String, Value> = last.iter().map(|id| (id.to_string(), json!(1))).collect();
    clients[0].call("sync", json!({"streams": names})).await.unwrap();
    let resumed = clients[0].up("resumed").await["d"].clone();
    assert_eq!(resumed["streams"].as_object().unwrap().len(), last.len());
    assert!(reads.get() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_person_fails_nobody_else() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let people: [Person; 12] = cluster.persons().await;
    let slow = &people[0];
    cluster
        .world
        .database
        .run(format!(
            "ALTER FUNCTION engine.people_threads RENAME TO people_threads_at_once;
             CREATE FUNCTION engine.people_threads(p_profiles uuid[], p_listed integer) RETURNS SETOF engine.person_threads
             LANGUAGE plpgsql VOLATILE AS $$ BEGIN
                 PERFORM pg_sleep(CASE WHEN '{}' = ANY (p_profiles) THEN 4 ELSE 0.2 END);
                 RETURN QUERY SELECT * FROM engine.people_threads_at_once(p_profiles, p_listed);
             END $$;
             GRANT EXECUTE ON FUNCTION engine.people_threads TO haus_app;",
            slow.id
        ))
        .await;
    let mut waiting = Vec::new();
    for person in &people {
        let mut client = cluster.connect(0).await;
        let id = client.start("auth", json!({"token": person.token})).await;
        waiting.push((client, id));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    for (number, (mut client, id)) in waiting.into_iter().enumerate().rev() {
        let reply = client.reply(id).await;
        match number {
            0 => assert_eq!(reply.unwrap_err()["code"], "unavailable"),
            _ => assert!(reply.is_ok(), "{number}: {reply:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_named_twice_is_invalid() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let (plain, upper, bare) = (thread.to_string(), thread.to_string().to_uppercase(), thread.simple().to_string());
    let mut client = cluster.live(0, &ana).await;
    for (one, other) in [(&plain, &plain), (&plain, &upper), (&bare, &plain), (&"user".to_owned(), &"user".to_owned())]
    {
        let d = format!(r#"{{"streams":{{"{one}":0,"{other}":0}}}}"#);
        client.send_text(format!(r#"{{"id":900,"cmd":"sync","d":{d}}}"#)).await;
        assert_eq!(client.reply(900).await.unwrap_err()["code"], "invalid", "{d}");
        let mut fresh = cluster.connect(0).await;
        let token = &ana.token;
        fresh.send_text(format!(r#"{{"id":1,"cmd":"auth","d":{{"token":"{token}","resume":{d}}}}}"#)).await;
        assert_eq!(fresh.reply(1).await.unwrap_err()["code"], "invalid", "{d}");
    }
    client.call("sync", json!({"streams": {&upper: 1}})).await.unwrap();
    assert_eq!(client.up("resumed").await["d"]["streams"][&plain], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_session_moves_the_socket_to_it() {
    let cluster = cluster(1, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let other = cluster.sign_in(ana.id, 600_000).await;
    let end = |session: Uuid| format!("/v1/sessions/{session}");
    // Both stay usable until one ends; the socket goes with the one whose token it was given last.
    let mut moved = cluster.live(0, &ana).await;
    let mut stays = cluster.live(0, &ana).await;
    assert!(moved.auth(&other.token).await["expiresAt"].is_string());
    assert_eq!(moved.refused("auth", json!({"token": ben.token})).await, "unauthenticated");
    assert_eq!(cluster.rest(0, "DELETE", &end(ana.session), &other, None).await.0, 204);
    assert_eq!(stays.closed().await.code, 4403);
    moved.call("ping", json!({})).await.expect("it belongs to the other session");
    let third = cluster.sign_in(ana.id, 600_000).await;
    assert_eq!(cluster.rest(0, "DELETE", &end(other.session), &third, None).await.0, 204);
    assert_eq!(moved.closed().await.code, 4403);

    // A session that has ended takes no socket.
    let mut keeps = cluster.live(0, &third).await;
    assert_eq!(keeps.refused("auth", json!({"token": other.token})).await, "unauthenticated");
    keeps.call("ping", json!({})).await.expect("it keeps its own");
    assert_eq!(cluster.rest(0, "DELETE", &end(third.session), &third, None).await.0, 204);
    assert_eq!(keeps.closed().await.code, 4403);
}
