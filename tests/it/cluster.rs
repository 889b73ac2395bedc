//! The true application on port 0: clusters of nodes over one Postgres and a private Redis, and people who may connect.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use haus::identity::{Identity, IdentitySettings, Keys, PasswordCost, keys};
use haus::startup::{self, Services};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::people::World;
use crate::rig::Folder;
use crate::rig::node::{self as process, Node as Process};
use crate::rig::postgres::OWNER;
use crate::rig::redis::Redis;
use crate::services::Postgres;
use crate::socket::Client;
use crate::support::{Database, Settings};

/// 32 bytes of 7, in base64.
pub const SECRET_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// A node that runs until the test ends or it is drained.
pub struct Running {
    /// Without scheme.
    pub address: String,
    /// The node drains when this is dropped.
    _drain: watch::Sender<bool>,
    _task: tokio::task::JoinHandle<Result<(), startup::StartupError>>,
}

/// Somebody with a token.
#[derive(Clone)]
pub struct Person {
    pub id: Uuid,
    pub session: Uuid,
    pub token: String,
}

/// Nodes over one database; `redis` where there is more than one.
pub struct Cluster {
    pub world: World,
    pub identity: Arc<Identity>,
    pub redis: Option<Redis>,
    pub nodes: Vec<Running>,
    pub http: reqwest::Client,
    /// Where nodes find the database, if not at its own port.
    pub database_port: Option<u16>,
    _logs: Folder,
}

/// Starts `count` nodes; `flags` as on the command line.
pub async fn cluster(count: usize, flags: &[&str]) -> Cluster {
    Cluster::on(Database::new().await, count, flags).await
}

impl Cluster {
    /// The same on the private Postgres of a test.
    pub async fn private(postgres: &Postgres, count: usize, flags: &[&str]) -> Self {
        Self::on(Database::on(postgres.port()).await, count, flags).await
    }

    /// The same over a database that is there.
    pub async fn on(database: Database, count: usize, flags: &[&str]) -> Self {
        let logs = Folder::new("logs").unwrap();
        let redis = (count > 1).then(|| Redis::start(logs.path()).unwrap());
        let pool: PgPool = database.app_pool(database.port);
        let root = keys::parse_root_key(SECRET_KEY).unwrap();
        let settings = IdentitySettings {
            access_ttl_ms: 600_000,
            auto_activate: true,
            password_cost: PasswordCost { memory_kib: 64, passes: 1 },
            password_cores: 1,
        };
        let identity = Arc::new(Identity::new(pool.clone(), &Keys::derive(&root).unwrap(), settings).unwrap());
        let world = World { database, pool };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut cluster = Self { world, identity, redis, nodes: Vec::new(), http, database_port: None, _logs: logs };
        for _ in 0..count {
            cluster.add(flags).await;
        }
        cluster
    }

    pub fn database_url(&self) -> String {
        let port = self.database_port.unwrap_or(self.world.database.port);
        format!("postgres://haus_test@127.0.0.1:{port}/{}", self.world.database.name)
    }

    /// One node more.
    pub async fn add(&mut self, flags: &[&str]) {
        let number = self.nodes.len() + 1;
        let name = format!("--node=n{number}");
        let given = ["haus", name.as_str(), "--workers=1"].into_iter().chain(flags.iter().copied());
        let config = Settings::parse_from(given).config;
        let services = Services {
            database_url: self.database_url(),
            redis_url: self.redis.as_ref().map(Redis::url),
            secret_key: SECRET_KEY.to_owned(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (drain, watched) = watch::channel(false);
        let (tell, ready) = oneshot::channel();
        let task = tokio::spawn(startup::run(config, listener, services, watched, move |address, _| {
            let _ = tell.send(address.to_string());
        }));
        let address =
            tokio::time::timeout(Duration::from_secs(20), ready).await.expect("ready in time").expect("ready");
        self.nodes.push(Running { address, _drain: drain, _task: task });
    }

    /// A node in a process of its own, with limits off; it writes its log to `logs`.
    pub fn process(&self, logs: &Folder, name: &str, extra: &[(&str, &str)]) -> Process {
        let database = &self.world.database;
        let given = [("HAUS_SECRET_KEY", SECRET_KEY), ("HAUS_LIMITS", "off")].into_iter().chain(extra.iter().copied());
        let settings = process::Settings {
            program: process::Settings::find_program(),
            database_url: self.database_url(),
            owner_url: format!("postgres://{OWNER}@127.0.0.1:{}/{}", database.port, database.name),
            redis_url: self.redis.as_ref().map(Redis::url),
            logs: logs.path().to_owned(),
            extra: given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        Process::start(&settings, name).unwrap()
    }

    /// A gauge or counter of the node at `address`.
    pub async fn metric(&self, address: &str, name: &str) -> f64 {
        let text = self.http.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// A new member with a token.
    pub async fn person(&self) -> Person {
        self.sign_in(self.world.person().await, 600_000).await
    }

    pub async fn persons<const N: usize>(&self) -> [Person; N] {
        let mut persons = Vec::new();
        for _ in 0..N {
            persons.push(self.person().await);
        }
        persons.try_into().unwrap_or_else(|_| panic!())
    }

    /// A new session of a profile.
    pub async fn sign_in(&self, id: Uuid, ttl_ms: u64) -> Person {
        let session = self.identity.create_session(id, "web").await.unwrap();
        Person { id, session, token: self.identity.issue_access(id, session, ttl_ms).unwrap() }
    }

    /// A GROUP of the first person (its ADMIN) and the others, made before anybody is connected.
    pub async fn group(&self, people: &[&Person]) -> Uuid {
        let others: Vec<Uuid> = people[1..].iter().map(|person| person.id).collect();
        self.world.group(people[0].id, &others).await
    }

    /// A socket at a node, `hello` read.
    pub async fn connect(&self, node: usize) -> Client {
        Client::connect(&self.nodes[node].address).await
    }

    /// A live socket at a node.
    pub async fn live(&self, node: usize, person: &Person) -> Client {
        let mut client = self.connect(node).await;
        client.auth(&person.token).await;
        client
    }

    /// A REST call; status and JSON.
    pub async fn rest(&self, node: usize, method: &str, path: &str, by: &Person, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.nodes[node].address);
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(&by.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    pub async fn add_member(&self, node: usize, by: &Person, thread: Uuid, who: &Person) {
        let body = json!({"profileIds": [who.id]});
        let (status, answer) = self.rest(node, "POST", &format!("/v1/threads/{thread}/members"), by, Some(body)).await;
        assert!((200..300).contains(&status), "{status} {answer}");
    }

    pub async fn remove_member(&self, node: usize, by: &Person, thread: Uuid, who: &Person) {
        let path = format!("/v1/threads/{thread}/members/{}", who.id);
        let (status, answer) = self.rest(node, "DELETE", &path, by, None).await;
        assert_eq!(status, 204, "{answer}");
    }

    /// The log of a thread, as the checker reads it.
    pub async fn log(&self, node: usize, by: &Person, thread: Uuid) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let since = all.last().map_or(0, |update| update["seq"].as_u64().unwrap());
            let path = format!("/v1/threads/{thread}/updates?since={since}&limit=1000");
            let (status, page) = self.rest(node, "GET", &path, by, None).await;
            assert_eq!(status, 200, "{page}");
            let updates = page["updates"].as_array().unwrap();
            if updates.is_empty() {
                return all;
            }
            all.extend(updates.iter().cloned());
        }
    }
}
