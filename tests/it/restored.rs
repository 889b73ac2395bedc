//! A database restored from the dump of another cluster, whose transaction numbers lie far above the new one's.

use std::time::{Duration, Instant};

use haus::messaging::log;
use haus::messaging::send::append;
use haus::protocol::types::UserStatus;
use haus::store::restored;
use haus::updates::StreamId;
use sqlx::Connection;

use crate::cluster::{Cluster, SECRET_KEY};
use crate::people::request;
use crate::rig::Folder;
use crate::services::Postgres;
use crate::support::Database;

/// Uses up transaction numbers of a cluster.
async fn spend_numbers(database: &Database, count: u32) {
    let spend = format!("DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    database.run("SET synchronous_commit = off".into()).await;
    database.run(spend).await;
}

/// `haus` with these arguments on the database of a cluster: exit code and output.
async fn haus(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = Folder::new("haus").unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_haus"));
    command.args(arguments).arg("--listen=127.0.0.1:0").arg("--data-dir").arg(folder.path());
    command.env("DATABASE_URL", cluster.database_url()).env("HAUS_SECRET_KEY", SECRET_KEY).env_remove("REDIS_URL");
    let output = command.kill_on_drop(true).output().await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_into_a_younger_cluster_closes_nobody_and_hides_nothing() {
    let (old, new) = (Postgres::start(), Postgres::start());
    let before = Cluster::private(&old, 1, &["--limits=off"]).await;
    spend_numbers(&before.world.database, 20_000).await;
    let [ana, ben] = before.persons().await;
    let thread = before.group(&[&ana, &ben]).await;
    before.world.send_many(ana.id, thread, 300).await;
    // Both are free again; what told the nodes of it stays in the table for a day.
    for person in [&ana, &ben] {
        before.identity.set_status(person.id, UserStatus::Suspended, None).await.unwrap();
        before.identity.set_status(person.id, UserStatus::Active, None).await.unwrap();
    }
    let name = before.world.database.name.clone();
    old.dump_into(&name, &new).unwrap();
    drop(before);

    let after = Cluster::on(Database::existing(new.port(), &name).await, 0, &[]).await;
    let (code, findings) = haus(&after, &["doctor"]).await;
    assert_eq!(code, Some(1), "{findings}");
    assert!(findings.contains("haus epoch new"), "{findings}");
    let mut after = after;
    after.add(&["--limits=off"]).await;
    let (ana, ben) = (after.sign_in(ana.id, 600_000).await, after.sign_in(ben.id, 600_000).await);
    let (mut here, mut there) = (after.live(0, &ana).await, after.live(0, &ben).await);

    // The counter passes by the numbers of the old rows while both are connected.
    let count = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let began = Instant::now();
    while sqlx::query_scalar::<_, i64>(count).fetch_one(&after.world.database.owner).await.unwrap() < 25_000 {
        spend_numbers(&after.world.database, 4_000).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    // A late commit that nobody announces.
    let mut connection = after.world.pool.acquire().await.unwrap();
    let mut late = connection.begin().await.unwrap();
    append(&mut late, &[request(ana.id, thread, "late")]).await.unwrap();
    spend_numbers(&after.world.database, 100).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    late.commit().await.unwrap();
    let update = there.update(&thread.to_string()).await.json;
    assert_eq!((&update["seq"], &update["d"]["message"]["content"]), (&302.into(), &"late".into()));
    here.say(thread, "all well").await;
    assert_eq!(there.update(&thread.to_string()).await.json["seq"], 303);

    let mut connection = after.world.pool.acquire().await.unwrap();
    assert_eq!(restored::foreign_rows(&mut connection, 10).await.unwrap(), 0);
    let (code, findings) = haus(&after, &["doctor"]).await;
    assert_eq!(code, Some(0), "{findings}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epoch_new_renumbers_what_another_cluster_wrote() {
    let cluster = crate::cluster::cluster(0, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    cluster.world.send_many(ana.id, thread, 100).await;
    cluster.identity.set_status(ben.id, UserStatus::Suspended, None).await.unwrap();
    for table in ["thread_updates", "user_updates", "revocations"] {
        cluster.world.database.run(format!("UPDATE {table} SET xid = '900000000'")).await;
    }
    assert_eq!(haus(&cluster, &["epoch", "new"]).await.0, Some(0));
    let mut connection = cluster.world.pool.acquire().await.unwrap();
    assert_eq!(restored::foreign_rows(&mut connection, 10).await.unwrap(), 0);
    let poll = log::poll(&cluster.world.pool, None, 100).await.expect("a poll");
    cluster.world.send(ana.id, thread, "new").await;
    let poll = log::poll(&cluster.world.pool, Some(poll.position), 100).await.expect("a poll");
    assert_eq!(poll.moved, [(StreamId::Thread(thread), 102)]);
}
