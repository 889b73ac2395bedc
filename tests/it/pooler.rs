//! A real PgBouncer before the database, in transaction mode: a node works through one that keeps prepared statements, and
//! does not start, naming it, through one that does not. Which of the two is installed decides what is tested of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use haus::store::migrate::{self, Login, Target};
use haus::store::{admission, deadlines};
use serde_json::json;
use sqlx::Connection;
use uuid::Uuid;

use crate::cluster::{Cluster, SECRET_KEY};
use crate::rig::postgres::unprivileged;
use crate::rig::process::{Process, Stdout};
use crate::rig::{Folder, free_port};
use crate::services::Postgres;

/// The program: `PGBOUNCER`, else the installed one.
fn program() -> PathBuf {
    let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(PathBuf::from);
    let named = std::env::var_os("PGBOUNCER").map(PathBuf::from);
    named.into_iter().chain(installed).find(|path| path.is_file()).expect("Debian package pgbouncer")
}

/// Whether it knows prepared statements in transaction mode: from 1.21 on.
fn keeps_statements() -> bool {
    let output = Command::new(program()).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(1).unwrap();
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    minor >= 21
}

struct Pooler {
    port: u16,
    _process: Process,
    _folder: Folder,
}

/// PgBouncer before `postgres` with these further settings.
fn start(postgres: &Postgres, settings: &str) -> Pooler {
    let folder = Folder::new("pgbouncer").unwrap();
    let port = free_port().unwrap();
    let config = folder.path().join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\nauth_file = {}\nserver_round_robin = 0\n{settings}\n",
        postgres.port(),
        folder.path().join("users").display()
    );
    std::fs::write(&config, text.replace("* = host=127.0.0.1", "* = user=haus_test host=127.0.0.1")).unwrap();
    std::fs::write(folder.path().join("users"), "\"haus_test\" \"\"\n").unwrap();
    readable(folder.path());
    let mut command = unprivileged(&program());
    command.arg(&config);
    let log = folder.path().join("pgbouncer.log");
    let process = Process::spawn("pgbouncer", command, &log, Stdout::Log).unwrap();
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", std::fs::read_to_string(&log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(20));
    }
    Pooler { port, _process: process, _folder: folder }
}

fn readable(folder: &Path) {
    let status = Command::new("chmod").args(["-R", "a+rX"]).arg(folder).status().unwrap();
    assert!(status.success());
}

/// `haus serve` through the pooler: its exit code and what it said.
async fn refused(url: &str) -> (Option<i32>, String) {
    let folder = Folder::new("serve").unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_haus"));
    command.args(["serve", "--listen=127.0.0.1:0", "--data-dir"]).arg(folder.path());
    command.env("DATABASE_URL", url).env("HAUS_SECRET_KEY", SECRET_KEY).env_remove("REDIS_URL");
    let output = tokio::time::timeout(Duration::from_secs(20), command.kill_on_drop(true).output()).await;
    let output = output.expect("ends by itself").unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The deadlines as settings of the role, as `haus migrate` makes them.
async fn settle(cluster: &Cluster) {
    let url = format!("postgres://haus_test@127.0.0.1:1/{}", cluster.world.database.name);
    let login = Login::from_url(&url).unwrap();
    let mut owner = cluster.world.database.owner.acquire().await.unwrap();
    migrate::run(&mut owner, Some(&login), Target::Head, |_, _| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_in_transaction_mode_a_node_works_or_names_it() {
    let postgres = Postgres::start();
    let mut cluster = Cluster::private(&postgres, 0, &[]).await;
    let keeps = keeps_statements();
    let settings =
        if keeps { "pool_mode = transaction\nmax_prepared_statements = 200" } else { "pool_mode = transaction" };
    let pooler = start(&postgres, settings);
    let url = format!("postgres://haus_test@127.0.0.1:{}/{}", pooler.port, cluster.world.database.name);
    let (code, text) = refused(&url).await;
    assert_eq!(code, Some(3), "{text}");
    if !keeps {
        assert!(text.contains("prepared statements") && text.contains("1.21"), "{text}");
        return;
    }
    assert!(text.contains("deadlines") && text.contains("haus migrate"), "{text}");
    settle(&cluster).await;
    // The old one still holds connections from before.
    drop(pooler);
    let pooler = start(&postgres, settings);
    let url = format!("postgres://haus_test@127.0.0.1:{}/{}", pooler.port, cluster.world.database.name);
    cluster.database_port = Some(pooler.port);
    cluster.add(&["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let (mut here, mut there) = (cluster.live(0, &ana).await, cluster.live(0, &ben).await);
    let nonce = Uuid::now_v7();
    for text in 0..20 {
        here.say(thread, &text.to_string()).await;
    }
    let d = json!({"threadId": thread, "nonce": nonce, "content": "once"});
    let first = here.call("message.send", d.clone()).await.unwrap();
    let again = here.call("message.send", d).await.unwrap();
    assert_eq!((&again["messageId"], &again["dup"]), (&first["messageId"], &json!(true)));
    for seq in 2..23 {
        assert_eq!(there.update(&thread.to_string()).await.json["seq"], seq);
    }
    let mut many = Vec::new();
    for _ in 0..30 {
        many.push(cluster.live(0, &ben).await);
    }
    let answers = many.iter_mut().map(|client| client.call("history", json!({"threadId": thread})));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.unwrap()["messages"].as_array().unwrap().len(), 21);
    }
    // Whatever connection of the pooler it is: it has the deadlines.
    let mut client = admission::connect(&url, Duration::from_secs(5)).await.unwrap();
    assert!(deadlines::are_set(&mut client).await.unwrap());

    // The same program, told not to keep them.
    let forgetful = start(&postgres, "pool_mode = transaction\nmax_prepared_statements = 0");
    let (code, text) = refused(&url.replace(&pooler.port.to_string(), &forgetful.port.to_string())).await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("prepared statements") && text.contains("max_prepared_statements"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_in_session_mode_a_node_works_and_in_statement_mode_it_names_it() {
    let postgres = Postgres::start();
    let mut cluster = Cluster::private(&postgres, 0, &[]).await;
    settle(&cluster).await;
    let statements = start(&postgres, "pool_mode = statement");
    let url = format!("postgres://haus_test@127.0.0.1:{}/{}", statements.port, cluster.world.database.name);
    let (code, text) = refused(&url).await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("mode"), "{text}");

    let sessions = start(&postgres, "pool_mode = session\ndefault_pool_size = 40");
    cluster.database_port = Some(sessions.port);
    cluster.add(&["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let (mut here, mut there) = (cluster.live(0, &ana).await, cluster.live(0, &ben).await);
    here.say(thread, "through").await;
    assert_eq!(there.update(&thread.to_string()).await.json["seq"], 2);
}

#[tokio::test]
async fn migrate_gives_the_login_its_deadlines() {
    let postgres = Postgres::start();
    let cluster = Cluster::private(&postgres, 0, &[]).await;
    let mut before = sqlx::PgConnection::connect(&cluster.database_url()).await.unwrap();
    assert!(!deadlines::are_set(&mut before).await.unwrap());
    deadlines::ensure(&mut before).await.unwrap();
    assert!(deadlines::are_set(&mut before).await.unwrap(), "for this session");
    settle(&cluster).await;
    let mut after = sqlx::PgConnection::connect(&cluster.database_url()).await.unwrap();
    assert!(deadlines::are_set(&mut after).await.unwrap());
    let slow = sqlx::raw_sql("SELECT pg_sleep(8)").execute(&mut after).await.unwrap_err();
    assert_eq!(slow.as_database_error().unwrap().code().as_deref(), Some("57014"));
}
