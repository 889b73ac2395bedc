//! The handshake: `hello`, credentials in every place they may stand, refusals before and after the upgrade, limits.

use std::time::{Duration, Instant};

use haus::identity::tokens::Tokens;
use haus::identity::{Keys, keys};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

use crate::cluster::{Cluster, Person, SECRET_KEY, cluster};
use crate::socket::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_speaks_first_and_every_credential_is_taken_once() {
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let mut client = cluster.connect(0).await;
    let limits =
        json!({"frameBytes": 65536, "contentChars": 4000, "sendsPer10s": 50, "sessions": 20, "spreadMs": 3000});
    let hello = client.hello.clone();
    assert_eq!((&hello["protocol"], &hello["node"], &hello["limits"]), (&json!(1), &json!("n1"), &limits));
    assert_eq!((&hello["heartbeatMs"], &hello["authTimeoutMs"]), (&json!(25000), &json!(5000)));
    assert_eq!(client.refused("ping", json!({})).await, "unauthenticated");
    let ok = client.auth(&ana.token).await;
    assert_eq!(ok["profile"]["id"], json!(ana.id));
    assert_eq!((&ok["session"], &ok["threads"], &ok["next"]), (&json!(ana.session), &json!([]), &Value::Null));
    assert_eq!((&ok["streams"], &ok["profile"]["role"]), (&json!({"user": 0}), &json!("MEMBER")));

    let bearer = offer(&cluster, &format!("haus.v1, bearer.{}", ana.token)).await;
    let (mut by_header, ticket) = (bearer, ticket(&cluster, &ana).await);
    assert!(by_header.call("auth", json!({})).await.is_ok());

    let mut by_frame = cluster.connect(0).await;
    assert!(by_frame.call("auth", json!({"ticket": ticket})).await.is_ok());
    let mut again = cluster.connect(0).await;
    assert_eq!(again.refused("auth", json!({"ticket": ticket})).await, "unauthenticated");
    assert_eq!(again.closed().await.code, 4401);

    let ticket = self::ticket(&cluster, &ana).await;
    let mut in_header = offer(&cluster, &format!("haus.v1, ticket.{ticket}")).await;
    assert!(in_header.call("auth", json!({})).await.is_ok());
    let mut again = offer(&cluster, &format!("haus.v1, ticket.{ticket}")).await;
    assert_eq!(again.refused("auth", json!({})).await, "unauthenticated");
    assert_eq!(again.closed().await.code, 4401);
}

async fn offer(cluster: &Cluster, protocols: &str) -> Client {
    let headers = [("sec-websocket-protocol", protocols.to_owned())];
    Client::connect_with(&cluster.nodes[0].address, &headers).await.expect("upgraded")
}

async fn ticket(cluster: &Cluster, by: &Person) -> String {
    let (status, body) = cluster.rest(0, "POST", "/v1/ws/ticket", by, None).await;
    assert_eq!(status, 201, "{body}");
    body["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_end_the_socket() {
    let mut cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let keys = Keys::derive(&keys::parse_root_key(SECRET_KEY).unwrap()).unwrap();
    let hour_ago = chrono::Utc::now().timestamp_millis() - 3_600_000;
    let expired = Tokens::new(&keys).unwrap().issue(ana.id, ana.session, hour_ago, 600_000).unwrap();
    let foreign = "eyJhbGciOiJub25lIn0.e30.".to_owned();
    let stranger = cluster.identity.issue_access(Uuid::now_v7(), Uuid::now_v7(), 60_000).unwrap();
    for d in [
        json!({}),
        json!({"token": ""}),
        json!({"token": "nonsense"}),
        json!({"token": foreign}),
        json!({"token": expired}),
        json!({"token": stranger}),
        json!({"ticket": "nonsense"}),
    ] {
        let mut client = cluster.connect(0).await;
        let began = Instant::now();
        assert_eq!(client.refused("auth", d.clone()).await, "unauthenticated", "{d}");
        let closed = client.closed().await;
        assert!(began.elapsed() < Duration::from_secs(3), "{d}: not closed for its credential");
        assert_eq!((closed.code, closed.reason.as_str()), (4401, r#"{"c":"unauthenticated"}"#), "{d}");
    }
    for status in ["SUSPENDED", "BANNED"] {
        let bad = cluster.world.person_with(status, "MEMBER").await;
        let bad = cluster.sign_in(bad, 60_000).await;
        let mut client = cluster.connect(0).await;
        assert_eq!(client.refused("auth", json!({"token": bad.token})).await, "forbidden");
        assert_eq!(client.closed().await.code, 4403);
    }
    cluster.add(&["--auth-timeout-ms=300"]).await;
    let began = Instant::now();
    let mut silent = cluster.connect(1).await;
    assert_eq!(silent.closed().await.code, 4401);
    assert!((Duration::from_millis(250)..Duration::from_secs(2)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_refreshed_in_place_by_its_own_person_only() {
    let cluster = cluster(1, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let short = cluster.identity.issue_access(ana.id, ana.session, 30_000).unwrap();
    let mut client = cluster.connect(0).await;
    let ok = client.auth(&short).await;
    let told = client.up("auth.expiring").await;
    assert!((25_000..=31_000).contains(&told["d"]["inMs"].as_i64().unwrap()), "{told}");

    assert_eq!(client.refused("auth", json!({"token": ben.token})).await, "unauthenticated");
    assert_eq!(client.refused("auth", json!({"token": "nonsense"})).await, "unauthenticated");
    client.say(thread, "still here").await;
    let again = client.call("auth", json!({"token": ana.token, "resume": {"streams": {"user": 0}}})).await.unwrap();
    assert_eq!(again.as_object().unwrap().keys().collect::<Vec<_>>(), ["expiresAt"]);
    assert!(again["expiresAt"].as_str() > ok["expiresAt"].as_str());
    client.say(thread, "refreshed").await;
    assert!(client.drain().await.iter().all(|frame| frame.json["up"] != "resumed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_has_its_grace() {
    // Beats, so that something comes while a client here waits.
    let cluster = cluster(1, &["--heartbeat-ms=12000"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let token = |ttl_ms| cluster.identity.issue_access(ana.id, ana.session, ttl_ms).unwrap();
    let mut idle = cluster.connect(0).await;
    let ok = idle.auth(&token(200)).await;
    let expires: chrono::DateTime<chrono::Utc> = ok["expiresAt"].as_str().unwrap().parse().unwrap();
    let mut client = cluster.connect(0).await;
    client.auth(&token(200)).await;
    let left = (expires - chrono::Utc::now()).to_std().unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(300)).await;
    client.say(thread, "late").await;
    assert!(client.call("auth", json!({"token": ana.token})).await.is_ok());
    // Who does not renew goes when the grace is over; who did stays.
    let closed = idle.closed().await;
    let after = chrono::Utc::now() - expires;
    assert_eq!((closed.code, closed.reason.as_str()), (4401, r#"{"c":"unauthenticated"}"#));
    assert!((25..32).contains(&after.num_seconds()), "{after}");
    client.say(thread, "still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_cap_the_oldest_session_is_replaced() {
    let cluster = cluster(1, &["--sessions-per-profile=2"]).await;
    let [ana, ben] = cluster.persons().await;
    let mut first = cluster.live(0, &ana).await;
    let mut second = cluster.live(0, &ana).await;
    let mut other = cluster.live(0, &ben).await;
    let mut third = cluster.live(0, &ana).await;
    let closed = first.closed().await;
    assert_eq!((closed.code, closed.reason.as_str()), (4409, r#"{"c":"replaced"}"#));
    for client in [&mut second, &mut third, &mut other] {
        client.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_upgrade_is_refused_before_it() {
    let cluster = cluster(1, &["--origins=https://good.example", "--sockets-per-address=3"]).await;
    let address = cluster.nodes[0].address.clone();
    let origin = async |origin: &str| match Client::connect_with(&address, &[("origin", origin.to_owned())]).await {
        Ok(_) => 101,
        Err(error) => status(&error),
    };
    assert_eq!(origin("https://good.example").await, 101);
    assert_eq!(origin(&format!("http://{address}")).await, 101);
    for foreign in ["https://evil.example", "null", "https://good.example.evil.example", "https://good.example:444"] {
        assert_eq!(origin(foreign).await, 403, "{foreign}");
    }
    let plain = cluster.http.get(format!("http://{address}/v1/ws")).send().await.unwrap();
    assert_eq!(plain.status(), 400);

    // Sockets that ended free their places.
    let held = loop {
        let mut held = Vec::new();
        let last = loop {
            match Client::connect_with(&address, &[]).await {
                Ok(client) => held.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(status(&last), 503);
        assert!(matches!(*last, Error::Http(ref answer) if answer.headers().contains_key("retry-after")));
        if held.len() == 3 {
            break held;
        }
    };
    drop(held);
}

fn status(error: &Error) -> u16 {
    match error {
        Error::Http(answer) => answer.status().as_u16(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_sessions_lose_their_sockets_on_every_node() {
    let cluster = cluster(2, &[]).await;
    let [ana] = cluster.persons().await;
    let other = cluster.sign_in(ana.id, 60_000).await;
    let mut here = cluster.live(0, &ana).await;
    let mut there = cluster.live(1, &ana).await;
    let mut stays = cluster.live(1, &other).await;
    let (status, _) = cluster.rest(0, "POST", "/v1/auth/logout", &ana, None).await;
    let began = Instant::now();
    assert_eq!(status, 204);
    assert_eq!(here.closed().await.code, 4403);
    assert_eq!(there.closed().await.code, 4403);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    stays.drain().await;
    let mut back = cluster.connect(1).await;
    assert_eq!(back.refused("auth", json!({"token": ana.token})).await, "unauthenticated");
}
