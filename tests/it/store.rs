//! The private Postgres, migrations, admission, the epoch, and the commands that stand on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use haus::store::embedded::{EmbeddedError, EmbeddedOptions, EmbeddedPostgres, Urls};
use haus::store::migrate::{self, Login, MIGRATIONS, MigrateError, SchemaState, Target};
use haus::store::pools;
use haus::store::safety::{SafetyState, recheck};
use haus::store::{admission, epoch};
use sqlx::{PgConnection, PgPool};

/// A data folder of one test, reachable by the server's user and gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("haus-store-{name}-{}", uuid::Uuid::new_v4().simple()));
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(folder: &Folder, settings: &[(&str, &str)]) -> EmbeddedPostgres {
    let mut settings: Vec<(String, String)> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    settings.push(("shared_buffers".to_owned(), "32MB".to_owned()));
    EmbeddedPostgres::start(folder.path(), EmbeddedOptions { bin: None, settings }).await.unwrap()
}

async fn owner(urls: &Urls) -> PgConnection {
    admission::connect(&urls.owner, Duration::from_secs(5)).await.unwrap()
}

async fn migrate_to(urls: &Urls, target: Target) -> Result<(), MigrateError> {
    let login = Login::from_url(&urls.application).unwrap();
    migrate::run(&mut owner(urls).await, Some(&login), target, |_, _| {}).await
}

fn pool(urls: &Urls, safety: &SafetyState) -> PgPool {
    pools::connect(&urls.application, "test", 3, safety).unwrap()
}

fn haus(folder: &Folder, urls: Option<&Urls>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haus"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HAUS_DATA_DIR", folder.path()).env("HAUS_LISTEN", "127.0.0.1:0").env("HAUS_LOG", "error");
    if let Some(urls) = urls {
        command.env("DATABASE_URL", &urls.application).env("HAUS_SECRET_KEY", crate::cluster::SECRET_KEY);
    }
    command.output().unwrap()
}

fn refused(output: &Output, code: i32, name: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(name), "{name} is not named: {text}");
    assert!(output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_postgres_survives_kills_and_restarts() {
    let folder = Folder::new("kill");
    let postgres = start(&folder, &[]).await;
    let urls = postgres.urls().clone();
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 1 AS n").execute(&mut owner(&urls).await).await.unwrap();
    let again = EmbeddedPostgres::start(folder.path(), EmbeddedOptions::default()).await;
    assert!(matches!(again.err(), Some(EmbeddedError::InUse(_))), "two servers on one folder");
    let beside = EmbeddedPostgres::attach(folder.path(), &EmbeddedOptions::default()).unwrap().unwrap();
    assert_eq!(beside.application, urls.application);

    let killed = postgres.pid().unwrap();
    postgres.kill().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while postgres.pid().is_none_or(|pid| pid == killed) {
        assert!(Instant::now() < deadline, "it did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept: i32 = sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut owner(&urls).await).await.unwrap();
    assert_eq!(kept, 1);

    postgres.stop().await;
    assert!(!folder.path().join("postgres/cluster/postmaster.pid").exists(), "it was not stopped in order");
    let postgres = start(&folder, &[]).await;
    assert_eq!(postgres.urls().owner, urls.owner);
    sqlx::query("SELECT n FROM kept").fetch_one(&mut owner(&urls).await).await.unwrap();
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_goes_down_and_up_again_with_data_in_it() {
    let folder = Folder::new("steps");
    let postgres = start(&folder, &[]).await;
    let urls = postgres.urls().clone();
    let refusal = admission::admit(&urls.owner, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(refusal.exit_code(), 3, "a superuser was let in: {refusal}");

    migrate_to(&urls, Target::Head).await.unwrap();
    refused(
        &haus(&folder, Some(&Urls { application: urls.owner.clone(), ..urls.clone() }), &["serve"]),
        3,
        "haus_owner",
    );
    let seeded = haus(&folder, Some(&urls), &["seed"]);
    assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));

    for steps in 1..=MIGRATIONS.len() as u32 {
        migrate_to(&urls, Target::Down(steps)).await.unwrap();
        let left = migrate::state_on(&mut owner(&urls).await).await.unwrap();
        assert_eq!(left, SchemaState::Version(MIGRATIONS.len() as i32 - steps as i32));
        migrate_to(&urls, Target::Head).await.unwrap();
        admission::admit(&urls.application, Duration::from_secs(1)).await.unwrap();
    }

    migrate_to(&urls, Target::Version(1)).await.unwrap();
    refused(&haus(&folder, Some(&urls), &["serve"]), 4, "version 1");
    migrate_to(&urls, Target::Head).await.unwrap();
    // A function of another release: refused by the node, put right by `haus migrate`.
    sqlx::raw_sql(
        "DROP FUNCTION engine.may_see; UPDATE schema_functions SET checksum = 'x' WHERE name = 'sql/engine/may_see.sql'",
    )
    .execute(&mut owner(&urls).await)
    .await
    .unwrap();
    refused(&haus(&folder, Some(&urls), &["serve"]), 4, "sql/engine/may_see.sql");
    migrate_to(&urls, Target::Head).await.unwrap();
    let back: bool = sqlx::query_scalar("SELECT to_regproc('engine.may_see') IS NOT NULL")
        .fetch_one(&mut owner(&urls).await)
        .await
        .unwrap();
    assert!(back);
    sqlx::raw_sql("UPDATE schema_migrations SET checksum = 'x' WHERE version = 2")
        .execute(&mut owner(&urls).await)
        .await
        .unwrap();
    refused(&haus(&folder, Some(&urls), &["serve"]), 4, MIGRATIONS[1].name);
    let drift = migrate_to(&urls, Target::Head).await.unwrap_err();
    assert!(drift.to_string().contains(MIGRATIONS[1].name), "{drift}");
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_database_is_refused_and_noticed_while_running() {
    let folder = Folder::new("unsafe");
    let postgres = start(&folder, &[]).await;
    let urls = postgres.urls().clone();
    migrate_to(&urls, Target::Head).await.unwrap();
    let safety = SafetyState::default();
    let pool = pool(&urls, &safety);
    assert!(recheck(&pool).await.unwrap().verdict.is_ok() && safety.is_safe());

    let mut owner = owner(&urls).await;
    sqlx::raw_sql("ALTER ROLE haus_node SET synchronous_commit = off").execute(&mut owner).await.unwrap();
    refused(&haus(&folder, Some(&urls), &["serve"]), 3, "synchronous_commit");
    // The open connection keeps its setting; the next one is looked at and refused.
    let held = pool.acquire().await.unwrap();
    assert!(pool.acquire().await.is_err(), "a connection with synchronous_commit = off was given out");
    assert!(!safety.is_safe());
    drop(held);
    postgres.stop().await;

    let postgres = start(&folder, &[("fsync", "off")]).await;
    refused(&haus(&folder, Some(postgres.urls()), &["serve"]), 3, "fsync");
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_stays_until_history_is_lost() {
    let folder = Folder::new("epoch");
    let postgres = start(&folder, &[]).await;
    let urls = postgres.urls().clone();
    migrate_to(&urls, Target::Head).await.unwrap();
    let pool = pool(&urls, &SafetyState::default());
    let first = epoch::load(&pool).await.unwrap();
    assert_eq!(epoch::load(&pool).await.unwrap(), first);
    assert_eq!(epoch::current(&pool).await.unwrap(), Some(first));

    let elsewhere = "UPDATE stream_epoch SET system_identifier = system_identifier + 1";
    sqlx::raw_sql(elsewhere).execute(&mut owner(&urls).await).await.unwrap();
    let second = epoch::load(&pool).await.unwrap();
    assert_ne!(second, first, "another database, another epoch");
    assert_eq!(epoch::keep(&pool).await.unwrap(), second);
    sqlx::raw_sql(elsewhere).execute(&mut owner(&urls).await).await.unwrap();
    assert_eq!(epoch::load(&pool).await.unwrap(), second, "failover is synchronous");
    assert_ne!(epoch::renew(&pool).await.unwrap(), second);
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_may_be_repeated() {
    let folder = Folder::new("seed");
    let run = |arguments: &[&str]| {
        let output = haus(&folder, None, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["seed"]);
    let logins = std::fs::read_to_string(folder.path().join("logins.txt")).unwrap();
    let out = folder.path().join("crowd.jsonl");
    let out = out.to_str().unwrap();
    let crowd = ["seed", "--people", "30", "--threads", "6", "--members", "10", "--out", out];
    let read = || -> Vec<serde_json::Value> {
        std::fs::read_to_string(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    run(&crowd);
    let first = read();
    assert_eq!(first.len(), 30);
    assert!(first.iter().all(|line| line["threads"].as_array().unwrap().len() == 2), "6 × 10 memberships among 30");
    run(&crowd);
    for (one, other) in first.iter().zip(read()) {
        assert_eq!((&one["profileId"], &one["threads"]), (&other["profileId"], &other["threads"]));
        assert_ne!(one["token"], other["token"]);
    }
    let token = run(&["token", "--email", "Admin@HausOfBasquiat.com "]);
    assert_eq!(token.iter().filter(|byte| **byte == b'.').count(), 2, "a JWT");
    refused(&haus(&folder, None, &["token", "--email", "nobody@haus.example"]), 1, "nobody@haus.example");
    run(&["seed"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("logins.txt")).unwrap(), logins);

    let postgres = start(&folder, &[]).await;
    let urls = postgres.urls().clone();
    let counted: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM profiles), (SELECT count(*) FROM houses WHERE member_count > 0),
                (SELECT count(*) FROM threads t WHERE no <> (SELECT count(*) FROM messages m WHERE m.thread_id = t.id)
                     OR seq <> (SELECT count(*) FROM thread_updates u WHERE u.thread_id = t.id))",
    )
    .fetch_one(&mut owner(&urls).await)
    .await
    .unwrap();
    assert_eq!(counted, (46, 3, 0), "people, houses, threads whose counters do not match their rows");
    postgres.stop().await;
}
