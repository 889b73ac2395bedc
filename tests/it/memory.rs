//! What a client that does not read costs: memory of a node of its own, measured from outside, for every command whose
//! answer may be large.

use std::fmt::Write;
use std::time::{Duration, Instant};

use haus::identity::{Identity, IdentitySettings, Keys, PasswordCost, binding, keys};
use haus::messaging::send::append;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use uuid::Uuid;

use crate::cluster::SECRET_KEY;
use crate::people::{World, request};
use crate::raw::{Raw, text};
use crate::rig::Folder;
use crate::rig::node::{Node, Settings};
use crate::socket::Client;

/// Most that a client that does not read may cost, bytes.
pub const MOST: u64 = 128 << 10;
/// Clients that do not read.
pub const DEAF: u64 = 120;

/// A node in a process of its own, and somebody whose answers are as large as they get.
pub struct Outside {
    node: Node,
    pub address: String,
    pub http: reqwest::Client,
    pub token: String,
    pub thread: Uuid,
    _logs: Folder,
    _world: World,
}

impl Outside {
    pub async fn start() -> Self {
        let world = World::new().await;
        let root = keys::parse_root_key(SECRET_KEY).unwrap();
        let settings = IdentitySettings {
            access_ttl_ms: 600_000,
            auto_activate: true,
            password_cost: PasswordCost { memory_kib: 64, passes: 1 },
            password_cores: 1,
        };
        let identity = Identity::new(world.pool.clone(), &Keys::derive(&root).unwrap(), settings).unwrap();
        // Before there are people: those of a test are made without a key.
        binding::bind(&world.pool, Keys::derive(&root).unwrap()).await.unwrap();
        let me = world.person().await;
        let others = world.people(120).await;
        let thread = world.group(me, &others).await;
        // 4,000 characters are 16,000 bytes.
        let content = "🔥".repeat(4000);
        let mut connection = world.pool.acquire().await.unwrap();
        for _ in 0..3 {
            let requests: Vec<_> = (0..50).map(|_| request(me, thread, &content)).collect();
            let (outcomes, _) = append(&mut connection, &requests).await.unwrap();
            assert!(outcomes.iter().all(Result::is_ok));
        }
        drop(connection);
        for _ in 0..110 {
            world.group(me, &others[..1]).await;
        }
        let large = "🔥".repeat(500);
        world
            .database
            .run(format!(
                "UPDATE threads SET description = '{large}', name = left('{large}', 100), avatar = 'https://example.org/{large}';
                 UPDATE profiles SET bio = '{large}', avatar = 'https://example.org/{large}', display_name = left('{large}', 80)"
            ))
            .await;
        let session = identity.create_session(me, "web").await.unwrap();
        let token = identity.issue_access(me, session, 600_000).unwrap();
        let logs = Folder::new("memory").unwrap();
        let database = &world.database;
        let settings = Settings {
            program: env!("CARGO_BIN_EXE_haus").into(),
            database_url: format!("postgres://haus_test@127.0.0.1:{}/{}", database.port, database.name),
            owner_url: String::new(),
            redis_url: None,
            logs: logs.path().to_owned(),
            extra: [("HAUS_LIMITS", "off"), ("HAUS_SECRET_KEY", SECRET_KEY), ("HAUS_WORKERS", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        };
        let node = tokio::task::spawn_blocking(move || Node::start(&settings, "outside").unwrap()).await.unwrap();
        let address = node.address().to_string();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { node, address, http, token, thread, _logs: logs, _world: world }
    }

    /// A gauge or counter of the node.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.http.get(format!("http://{}/metrics", self.address)).send().await.unwrap();
        let text = text.text().await.unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    }

    /// A live socket with a small receive window.
    async fn deaf(&self) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 << 10).unwrap();
        let raw = Raw { stream: socket.connect(self.address.parse().unwrap()).await.unwrap() };
        raw.into_live(&self.address, &self.token).await
    }

    /// Bytes that a client costs which sends `d` of `cmd` 64 times in a frame, twice, and reads no answer.
    async fn cost(&self, cmd: &str, d: &Value) -> u64 {
        // What the node keeps for itself after the first time is there before the count begins.
        let mut reader = Client::connect(&self.address).await;
        reader.auth(&self.token).await;
        for _ in 0..3 {
            reader.call(cmd, d.clone()).await.unwrap_or_else(|err| panic!("{cmd}: {err}"));
        }
        drop(reader);
        let mut deaf = Vec::new();
        for _ in 0..DEAF {
            deaf.push(self.deaf().await);
        }
        let before = self.metric("haus_process_resident_bytes").await;
        let mut batch = String::from("[");
        for id in 0..64 {
            let comma = if id == 0 { "" } else { "," };
            write!(batch, "{comma}{}", json!({"id": id + 2, "cmd": cmd, "d": d})).unwrap();
        }
        batch.push(']');
        for raw in &mut deaf {
            raw.send(&text(&batch)).await;
            raw.send(&text(&batch)).await;
        }
        // Until nothing changes any more.
        let deadline = Instant::now() + Duration::from_secs(40);
        let mut last = (0, 0);
        loop {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let waiting = self.metric("haus_outbox_pending").await;
            let statements = self.metric("haus_catch_up_pages_total").await;
            if (waiting, statements) == last && waiting > 0 {
                break;
            }
            last = (waiting, statements);
            assert!(Instant::now() < deadline, "{cmd}: answers wait for those who do not read ({waiting} bytes)");
        }
        let after = self.metric("haus_process_resident_bytes").await;
        let held = self.metric("haus_outbox_pending").await / DEAF;
        assert!(held <= MOST, "{cmd}: {held} bytes wait for each");
        drop(deaf);
        after.saturating_sub(before) / DEAF
    }
}

/// One test, as the measures would disturb each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_one_page_whatever_it_asks_for() {
    let mut outside = Outside::start().await;
    let thread = outside.thread;
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM profiles LIMIT 100").fetch_all(&outside._world.pool).await.unwrap();
    let asked = [
        ("history", json!({"threadId": thread, "limit": 100})),
        ("history", json!({"threadId": thread, "around": 75, "limit": 100})),
        ("thread.open", json!({"threadId": thread, "limit": 100})),
        ("threads.list", json!({"limit": 100})),
        ("profiles.get", json!({"ids": ids[..15]})),
    ];
    for (cmd, d) in asked {
        let cost = outside.cost(cmd, &d).await;
        assert!(cost <= MOST, "{cmd}: {cost} bytes for each client that does not read");
    }
    // Pages of the log are shared: of these only what waits for each socket is judged (in `cost`).
    outside.cost("sync", &json!({"streams": {thread.to_string(): 3}})).await;
    outside.cost("sync", &json!({"streams": {"user": 0}})).await;
    assert!(outside.node.is_running());
}

/// A node in this process, and somebody with a live socket whose next pages are large.
async fn with_large_pages(flags: &[&str]) -> (crate::cluster::Cluster, Raw, u16) {
    let cluster = crate::cluster::cluster(1, flags).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut connection = cluster.world.pool.acquire().await.unwrap();
    let requests: Vec<_> = (0..100).map(|_| request(ana.id, thread, &"x".repeat(4000))).collect();
    append(&mut connection, &requests).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let address = &cluster.nodes[0].address;
    let raw = Raw { stream: socket.connect(address.parse().unwrap()).await.unwrap() };
    let mut raw = raw.into_live(address, &ben.token).await;
    let frame = |id| json!({"id": id, "cmd": "history", "d": {"threadId": thread, "limit": 100}});
    raw.send(&text(&json!((2..66).map(frame).collect::<Vec<_>>()).to_string())).await;
    let port = raw.stream.local_addr().unwrap().port();
    (cluster, raw, port)
}

/// Takes `bytes` of `raw` every `pause` for `time`; false when the server has ended it.
async fn sip(raw: &mut Raw, bytes: usize, pause: Duration, time: Duration) -> bool {
    use tokio::io::AsyncReadExt;
    let until = Instant::now() + time;
    let mut buffer = vec![0; bytes];
    while Instant::now() < until {
        match tokio::time::timeout(Duration::from_secs(20), raw.stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => tokio::time::sleep(pause).await,
            _ => return false,
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poor_link_is_served_and_a_trickle_is_closed() {
    let (_cluster, mut poor, port) = with_large_pages(&["--limits=off", "--slow-close-ms=6000"]).await;
    // 20 KB a second, for several times as long as a pace is counted.
    assert!(sip(&mut poor, 4 << 10, Duration::from_millis(200), Duration::from_secs(20)).await);
    assert!(crate::input::established(port));

    let (_cluster, mut trickle, port) = with_large_pages(&["--limits=off", "--slow-close-ms=2000"]).await;
    // Never nothing for long, and never enough: some bytes ten times a second.
    let deadline = Instant::now() + Duration::from_secs(30);
    while crate::input::established(port) {
        assert!(Instant::now() < deadline, "a trickle keeps its socket");
        sip(&mut trickle, 40, Duration::from_millis(100), Duration::from_millis(500)).await;
    }
}
