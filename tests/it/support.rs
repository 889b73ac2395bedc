//! A private Postgres for this test binary, a database per test, and the application on port 0. Nothing is mocked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::ports::{Published, ports};
use crate::rig::postgres::OWNER;
use crate::services::Postgres;
use clap::Parser;
use haus::config::Config;
use haus::http::{AppState, api_router};
use haus::identity::keys::Keys;
use haus::identity::{Identity, IdentitySettings, PasswordCost};
use haus::store::migrate::{self, Target};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

pub const ROOT_KEY: [u8; 32] = [7; 32];

static NEXT_DATABASE: AtomicU32 = AtomicU32::new(0);

/// The port of the one cluster of this process.
fn cluster() -> u16 {
    static CLUSTER: OnceLock<Postgres> = OnceLock::new();
    CLUSTER.get_or_init(Postgres::lasting).port()
}

/// What the nodes of a test log is printed where the test fails.
fn keep_logs() {
    // Only the first call finds the place free.
    let _ =
        tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN).with_test_writer().try_init();
}

/// A database of its own, migrated.
pub struct Database {
    pub name: String,
    pub port: u16,
    /// As the owner.
    pub owner: PgPool,
}

impl Database {
    pub async fn new() -> Self {
        Self::on(tokio::task::spawn_blocking(cluster).await.unwrap()).await
    }

    /// The same in another cluster.
    pub async fn on(port: u16) -> Self {
        keep_logs();
        let number = NEXT_DATABASE.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{number}");
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username(OWNER);
        let mut admin = PgConnection::connect_with(&options.clone().database("postgres")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        let owner = PgPoolOptions::new().max_connections(2).connect_with(options.database(&name)).await.unwrap();
        let database = Self { name, port, owner };
        database.migrate(Target::Head).await;
        database
    }

    /// One that is there already.
    pub async fn existing(port: u16, name: &str) -> Self {
        keep_logs();
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username(OWNER);
        let owner = PgPoolOptions::new().max_connections(2).connect_with(options.database(name)).await.unwrap();
        Self { name: name.to_owned(), port, owner }
    }

    /// Moves the schema with the product's own runner.
    pub async fn migrate(&self, target: Target) {
        let mut owner = self.owner.acquire().await.unwrap();
        migrate::run(&mut owner, None, target, |_, _| {}).await.unwrap();
    }

    /// Connections as the application role, to `port` (its own, or a proxy's).
    pub fn app_pool(&self, port: u16) -> PgPool {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
        PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(2))
            .connect_lazy_with(options.username("haus_test").database(&self.name))
    }

    pub async fn run(&self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.owner).await.unwrap();
    }
}

/// One node: identity, its routes on a port of its own, a client.
pub struct Node {
    pub identity: Arc<Identity>,
    pub pool: PgPool,
    pub url: String,
    pub client: reqwest::Client,
    /// What this node published.
    pub published: Arc<Published>,
}

#[derive(Parser)]
pub struct Settings {
    #[command(flatten)]
    pub config: Config,
}

impl Node {
    /// A node on `database`; `settings` are flags such as `--auto-activate=true`.
    pub async fn start(database: &Database, settings: &[&str]) -> Self {
        Self::start_through(database, database.port, settings).await
    }

    /// The same, its database connections going to `port`.
    pub async fn start_through(database: &Database, port: u16, settings: &[&str]) -> Self {
        let pool = database.app_pool(port);
        let flags = std::iter::once("haus").chain(settings.iter().copied());
        let config = Arc::new(Settings::parse_from(flags).config);
        let settings = IdentitySettings {
            access_ttl_ms: config.access_ttl_ms,
            auto_activate: config.auto_activate,
            password_cost: PasswordCost { memory_kib: 64, passes: 1 },
            password_cores: 2,
        };
        let keys = Keys::derive(&ROOT_KEY).unwrap();
        let identity = Arc::new(Identity::new(pool.clone(), &keys, settings).unwrap());
        let (ports, published) = ports(pool.clone());
        let state = AppState::new(Arc::clone(&identity), config, pool.clone(), ports).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = api_router(state).0.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { identity, pool, url, client, published }
    }

    /// Sends a request; returns status and JSON (null without a body).
    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
        let answer = self.send(method, path, token, body).await;
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    pub async fn send(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> reqwest::Response {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }
}
