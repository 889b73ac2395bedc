//! TLS under a private authority, and the ACL user that `docs/operations.md` names, for both clients of Redis and for
//! Postgres.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haus::courier::redis::RedisCourier;
use haus::courier::{Courier, EventSink, Health};
use haus::limits::RateLimiter;
use haus::store::admission;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::Connection;
use uuid::Uuid;

use crate::courier::Member;
use crate::limits::{Book, until};
use crate::rig::Folder;
use crate::services::Postgres;

/// Characters that a URL must quote.
const PASSWORD: &str = "p@ss:w/rd#1%";
const QUOTED: &str = "p%40ss%3Aw%2Frd%231%25";

/// An authority of one test, and a server it vouches for.
struct Authority {
    ca: String,
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { ca: issuer.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn write(&self, folder: &Path) -> [PathBuf; 3] {
        [("ca.pem", &self.ca), ("server.crt", &self.certificate), ("server.key", &self.key)].map(|(name, text)| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        })
    }
}

/// A Redis that speaks TLS alone, to the user of the documents alone.
struct Redis {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Redis {
    fn start(authority: &Authority) -> Self {
        let folder = Folder::new("tls").unwrap();
        let [ca, certificate, key] = authority.write(folder.path());
        let acl = folder.path().join("users.acl");
        std::fs::write(&acl, format!("user default off\nuser haus on >{PASSWORD} {}\n", documented_rules())).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--tls-auth-clients", "no"]);
        for (name, path) in
            [("--tls-ca-cert-file", ca), ("--tls-cert-file", certificate), ("--tls-key-file", key), ("--aclfile", acl)]
        {
            command.arg(name).arg(path);
        }
        let child = command.current_dir(folder.path()).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, _folder: folder }
    }

    fn url(&self) -> String {
        format!("rediss://haus:{QUOTED}@127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rules after the password in the documents' `ACL SETUSER`.
fn documented_rules() -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ACL SETUSER haus on >PASSWORD ")).unwrap();
    line.replace("<deployment>", &Member::of(1, 1, 1).deployment.id().simple().to_string())
}

fn node(url: &str, ca: Option<&str>) -> RedisCourier {
    let member = Member::of(1, 1, 1);
    let sink: EventSink = Arc::new(|_| {});
    RedisCourier::start(url, ca.map(str::as_bytes), member.deployment, &member.keys, sink).unwrap()
}

async fn becomes_healthy(node: &RedisCourier, most: Duration) -> bool {
    let deadline = Instant::now() + most;
    while node.health() != Health::Healthy {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_by_the_user_of_the_documents() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = Redis::start(&authority);
    let good = node(&redis.url(), Some(&authority.ca));
    assert!(becomes_healthy(&good, Duration::from_secs(10)).await, "the courier reaches it");
    for (why, ca) in [("an unknown authority", None), ("another authority", Some(stranger.ca.as_str()))] {
        let bad = node(&redis.url(), ca);
        assert!(!becomes_healthy(&bad, Duration::from_secs(2)).await, "{why} was trusted");
        bad.shutdown();
    }
    let wrong = redis.url().replace(QUOTED, "wrong");
    let bad = node(&wrong, Some(&authority.ca));
    assert!(!becomes_healthy(&bad, Duration::from_secs(2)).await, "a wrong password was let in");
    bad.shutdown();

    // The other client: what one node let pass the other hears of.
    let deployment = Member::of(1, 1, 1).deployment;
    let limiter = || {
        let limiter = Arc::new(RateLimiter::new(500, true));
        limiter.share(&redis.url(), Some(authority.ca.as_bytes()), deployment.clone()).unwrap();
        limiter
    };
    let (one, two) = (limiter(), limiter());
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let profile = Uuid::now_v7();
        assert_eq!((0..500).filter(|_| one.check(profile, 1).is_ok()).count(), 500);
        assert!(two.check(profile, 1).is_ok());
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let passing = (0..500).take_while(|_| two.check(profile, 1).is_ok()).count();
        if passing < 250 {
            break;
        }
        assert!(Instant::now() < deadline, "rates are shared: {passing} of 500 passed");
    }
    // And sessions are counted over nodes.
    let book = || Book::shared(&redis.url(), Some(&authority.ca), &deployment, 2);
    let (one, two, profile) = (book(), book(), Uuid::now_v7());
    one.set(profile, &[1, 2]);
    two.set(profile, &[3]);
    until("the oldest of three is to end", || one.has_replaced(profile, 1)).await;
    good.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_reached_over_tls_and_its_authority_is_checked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let folder = Folder::new("tls").unwrap();
    let [ca, certificate, key] = authority.write(folder.path());
    let data = postgres.folder().join("data");
    for (from, name) in [(&certificate, "server.crt"), (&key, "server.key")] {
        let to = data.join(name);
        // Written over a file of the server's own, so that it keeps its owner.
        std::fs::copy(data.join("PG_VERSION"), &to).unwrap();
        let copied = Command::new("cp").arg("-p").arg(data.join("PG_VERSION")).arg(&to).status().unwrap();
        assert!(copied.success());
        std::fs::write(&to, std::fs::read(from).unwrap()).unwrap();
    }
    postgres.run("ALTER SYSTEM SET ssl = on");
    postgres.run("SELECT pg_reload_conf()");
    let port = postgres.port();
    let url = |root: &Path| {
        let root = root.display();
        format!("postgres://haus_test@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={root}")
    };
    let mut connection = admission::connect(&url(&ca), Duration::from_secs(10)).await.unwrap();
    let is_tls: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(is_tls);
    connection.close().await.unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, &stranger.ca).unwrap();
    let refused = admission::connect(&url(&other), Duration::from_millis(100)).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}
