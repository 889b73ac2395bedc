//! `Idempotency-Key`: one piece of work per key, the first answer again, another body refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use haus::http::Problem;
use haus::http::idempotency::{IdempotencyKey, Once, once};
use haus::messaging::{Committed, Publisher};
use haus::protocol::ErrorCode;
use haus::protocol::codes::Refusal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::identity::{register, text};
use crate::support::{Database, Node};
use haus::store::migrate::Target;

struct Bench {
    node: Node,
    profile_id: Uuid,
    runs: Arc<AtomicUsize>,
}

impl Bench {
    async fn new(database: &Database) -> Self {
        let node = Node::start(database, &[]).await;
        let profile_id = text(&register(&node, "ana").await["profile"], "id").parse().unwrap();
        Self { node, profile_id, runs: Arc::default() }
    }

    /// Creates something under `key`; `refused` work says no.
    async fn create(&self, key: Option<&str>, body: u8, refused: bool) -> Result<Response, Problem> {
        let request = Once {
            profile_id: self.profile_id,
            route: "POST /v1/things",
            key: IdempotencyKey(key.map(str::to_owned)),
            body_sha256: [body; 32],
        };
        let runs = Arc::clone(&self.runs);
        let publisher: Arc<dyn Publisher> = self.node.published.clone();
        once(&self.node.pool, &publisher, request, move |_| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                match refused {
                    true => Err(Refusal::new(ErrorCode::Conflict, "no").into()),
                    false => Ok(Committed { value: (StatusCode::CREATED, json!({"run": run})), updates: Vec::new() }),
                }
            })
        })
        .await
    }
}

async fn run_of(response: Response) -> (StatusCode, bool, Value) {
    let (status, replayed) = (response.status(), response.headers().contains_key("idempotency-replayed"));
    let bytes = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    (status, replayed, serde_json::from_slice::<Value>(&bytes).unwrap()["run"].clone())
}

#[tokio::test]
async fn a_key_is_worked_on_once() {
    let database = Database::new().await;
    let bench = Bench::new(&database).await;
    let answers = futures_util::future::join_all((0..10).map(|_| bench.create(Some("k"), 1, false))).await;
    assert_eq!(bench.runs.load(Ordering::SeqCst), 1);
    for answer in answers {
        match answer {
            Ok(response) => assert_eq!(run_of(response).await.2, 1),
            Err(problem) => assert_eq!(problem.code(), ErrorCode::Unavailable, "still at work"),
        }
    }
    let again = run_of(bench.create(Some("k"), 1, false).await.unwrap()).await;
    assert_eq!(again, (StatusCode::CREATED, true, json!(1)));
    let other = bench.create(Some("k"), 2, false).await.unwrap_err();
    assert_eq!(other.code(), ErrorCode::NonceConflict);
    let fresh = run_of(bench.create(Some("k2"), 1, false).await.unwrap()).await;
    assert_eq!(fresh, (StatusCode::CREATED, false, json!(2)));
    let without = run_of(bench.create(None, 1, false).await.unwrap()).await;
    assert_eq!(without, (StatusCode::CREATED, false, json!(3)));
}

#[tokio::test]
async fn a_refusal_and_an_abandoned_claim_free_the_key() {
    let database = Database::new().await;
    let bench = Bench::new(&database).await;
    assert_eq!(bench.create(Some("k"), 1, true).await.unwrap_err().code(), ErrorCode::Conflict);
    assert_eq!(run_of(bench.create(Some("k"), 1, false).await.unwrap()).await.2, 2);

    database.run("UPDATE idempotency_keys SET status = NULL, response = NULL".into()).await;
    assert_eq!(bench.create(Some("k"), 1, false).await.unwrap_err().code(), ErrorCode::Unavailable);
    database.run("UPDATE idempotency_keys SET created_at = now() - interval '61 s'".into()).await;
    assert_eq!(run_of(bench.create(Some("k"), 1, false).await.unwrap()).await.2, 3);
}

#[tokio::test]
async fn the_schema_goes_down_and_up_again_with_data_in_it() {
    let database = Database::new().await;
    register(&Node::start(&database, &[]).await, "ana").await;
    database.migrate(Target::Version(0)).await;
    // The runner's own books stay, with their keys and row types.
    let books = "^_?(schema_migrations|schema_functions|schema_reverted|stream_epoch|deployment|root_keys)(_pkey)?$";
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT n.name FROM (
             SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace
             UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
             UNION ALL SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace) n
         WHERE n.name !~ $1",
    )
    .bind(books)
    .fetch_all(&database.owner)
    .await
    .unwrap();
    assert!(left.is_empty(), "left: {left:?}");
    database.migrate(Target::Head).await;
    register(&Node::start(&database, &[]).await, "ana").await;
}

#[tokio::test]
async fn the_application_role_owns_nothing_and_touches_no_schema() {
    let database = Database::new().await;
    let pool = database.app_pool(database.port);
    for sql in ["DROP TABLE users", "DELETE FROM users", "CREATE TABLE mine (x int)", "TRUNCATE revocations"] {
        let error = sqlx::raw_sql(sql).execute(&pool).await.expect_err(sql);
        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default();
        assert_eq!(code, "42501", "{sql}: {error}");
    }
}
