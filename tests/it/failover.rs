//! The database changes under a running node: two promotions at one address, a pretended one, read-only for a while.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::services::Postgres;

/// Waits at most 15 s until `/readyz` answers `status` and its database check has `text` in it.
async fn readiness(cluster: &Cluster, status: u16, text: &str) {
    let url = format!("http://{}/readyz", cluster.nodes[0].address);
    let began = Instant::now();
    loop {
        let answer = cluster.http.get(&url).send().await.unwrap();
        let (found, body) = (answer.status(), answer.json::<serde_json::Value>().await.unwrap());
        if found == status && body["checks"]["database"].as_str().unwrap().contains(text) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn epoch(pool: &PgPool) -> Uuid {
    sqlx::query_scalar("SELECT epoch FROM stream_epoch").fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_promotions_at_one_address_within_a_moment_are_a_new_epoch() {
    let mut primary = Postgres::start();
    let cluster = Cluster::private(&primary, 1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let (mut here, mut there) = (cluster.live(0, &ana).await, cluster.live(0, &ben).await);
    here.say(thread, "kept").await;
    // What is committed after this is lost with the primary.
    let standby = primary.copy().unwrap();
    let first = epoch(&cluster.world.pool).await;
    here.say(thread, "lost").await;
    primary.crash();
    primary.become_promoted(standby, 2).unwrap();
    for client in [&mut here, &mut there] {
        assert_eq!(client.closed().await.code, 4010);
    }
    readiness(&cluster, 200, "ok").await;
    assert_ne!(epoch(&cluster.world.pool).await, first);
    let mut again = cluster.connect(0).await;
    let (_, _, resumed) = again.resume(&ana.token, &first.to_string(), json!({thread.to_string(): 3})).await;
    assert_eq!(resumed["reset"], json!([thread]));
    let mut there = cluster.live(0, &ben).await;
    assert_eq!(again.say(thread, "anew").await["seq"], 3, "after what was kept");
    assert_eq!(there.update(&thread.to_string()).await.json["d"]["message"]["content"], "anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_is_noticed_without_an_outage_and_kept_where_nothing_is_lost() {
    let cluster = crate::cluster::cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut here = cluster.live(0, &ana).await;
    here.say(thread, "one").await;
    let first = epoch(&cluster.world.pool).await;
    let elsewhere = "UPDATE stream_epoch SET timeline = timeline + 1";
    cluster.world.database.run(elsewhere.into()).await;
    assert_eq!(here.closed().await.code, 4010);
    let second = epoch(&cluster.world.pool).await;
    assert_ne!(second, first);
    // Synchronous failover: sockets stay.
    cluster.world.database.run("UPDATE stream_epoch SET keep = true, timeline = timeline + 1".into()).await;
    let mut here = cluster.live(0, &ana).await;
    let began = Instant::now();
    let place = "SELECT count(*) FROM stream_epoch WHERE timeline = 1";
    while sqlx::query_scalar::<_, i64>(place).fetch_one(&cluster.world.pool).await.unwrap() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "not looked at");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    here.say(thread, "two").await;
    assert_eq!(epoch(&cluster.world.pool).await, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_read_only_for_a_while_takes_no_sends_and_comes_back() {
    let postgres = Postgres::start();
    let cluster = Cluster::private(&postgres, 1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let (mut here, mut there) = (cluster.live(0, &ana).await, cluster.live(0, &ben).await);
    here.say(thread, "one").await;
    postgres.run("ALTER SYSTEM SET default_transaction_read_only = on");
    postgres.run("SELECT pg_reload_conf()");
    let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "two"});
    readiness(&cluster, 503, "read-only").await;
    let err = here.call("message.send", d.clone()).await.expect_err("no commit");
    assert_eq!((&err["code"], &err["retryable"]), (&json!("unavailable"), &json!(true)));
    let (status, body) = cluster
        .rest(
            0,
            "POST",
            &format!("/v1/threads/{thread}/messages"),
            &ana,
            Some(json!({"nonce": Uuid::now_v7(), "content": "x"})),
        )
        .await;
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")), "{body}");
    let made = cluster
        .rest(0, "POST", "/v1/threads", &ana, Some(json!({"type": "GROUP", "name": "more", "memberIds": [ben.id]})))
        .await;
    assert_eq!((made.0, &made.1["code"]), (503, &json!("unavailable")), "{}", made.1);
    // What is there can be read, by the sockets that stayed and by new ones.
    assert_eq!(
        here.call("history", json!({"threadId": thread})).await.unwrap()["messages"].as_array().unwrap().len(),
        1
    );
    let mut fresh = cluster.live(0, &ben).await;
    assert!(fresh.call("history", json!({"threadId": thread})).await.is_ok());

    postgres.run("ALTER SYSTEM RESET default_transaction_read_only");
    postgres.run("SELECT pg_reload_conf()");
    readiness(&cluster, 200, "ok").await;
    assert_eq!(here.call("message.send", d).await.expect("taken")["seq"], 3);
    for client in [&mut there, &mut fresh] {
        client.until(|json| json["s"] == thread.to_string() && json["seq"] == 3).await;
    }
}
