//! What stands before the routes, byte by byte: requests that can be read in two ways, upgrades, addresses, headers of
//! every answer, and peers that do not take theirs.

use std::time::Duration;

use crate::cluster::cluster;
use crate::memory::{DEAF, MOST, Outside};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE: [&str; 5] =
    ["Host: h.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY];

/// The head of the answer to raw bytes, and what follows it until the peer closes or is silent for a moment.
async fn exchange(address: &str, bytes: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await {
        got.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&got);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = header(head, "content-length").and_then(|length| length.parse::<usize>().ok());
            length.map_or(head.starts_with("HTTP/1.1 101"), |length| body.len() >= length)
        });
        if count == 0 || whole {
            break;
        }
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    text.split_once("\r\n\r\n").map_or((text.clone(), String::new()), |(head, body)| (head.to_owned(), body.to_owned()))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Every answer names its request and keeps a browser from doing more with it than is meant.
fn assert_dressed(head: &str, body: &str) {
    for name in
        ["x-request-id", "x-content-type-options", "referrer-policy", "content-security-policy", "x-frame-options"]
    {
        assert!(header(head, name).is_some(), "{name} is missing: {head}");
    }
    if status(head) >= 400 && !body.is_empty() {
        assert_eq!(header(head, "content-type"), Some("application/problem+json"), "{head}\n{body}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["requestId"].as_str(), header(head, "x-request-id"), "{head}\n{body}");
        assert_eq!(problem["status"], status(head));
    }
}

async fn upgrade(address: &str, lines: &[&str]) -> u16 {
    let (head, body) =
        exchange(address, format!("GET /v1/ws HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await;
    assert_dressed(&head, if head.starts_with("HTTP/1.1 101") { "" } else { &body });
    status(&head)
}

fn with(change: impl Fn(&str) -> Vec<&str>) -> Vec<&'static str> {
    UPGRADE
        .iter()
        .flat_map(|line| {
            change(line).into_iter().map(|text| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_read_in_one_way() {
    let cluster = cluster(
        1,
        &[
            "--origins=https://app.example/,HTTP://other.example:80,http://[::1]:3000",
            "--public-url=https://chat.example",
        ],
    )
    .await;
    let address = cluster.nodes[0].address.as_str();
    assert_eq!(upgrade(address, &UPGRADE).await, 101);
    let two_lines = with(|line| {
        if line.starts_with("Connection") { vec!["Connection: keep-alive", "Connection: Upgrade"] } else { vec![line] }
    });
    assert_eq!(upgrade(address, &two_lines).await, 101);
    let one_line =
        with(|line| if line.starts_with("Connection") { vec!["Connection: keep-alive, upgrade"] } else { vec![line] });
    assert_eq!(upgrade(address, &one_line).await, 101);
    for (origin, expected) in [
        ("https://app.example", 101),
        ("https://APP.example:443", 101),
        ("http://other.example", 101),
        ("http://[::1]:3000", 101),
        ("https://chat.example", 101),
        ("http://h.example", 101),
        ("https://H.example", 101),
        ("http://h.example:80", 101),
        ("null", 403),
        ("https://app.example.evil", 403),
        ("http://app.example", 403),
        ("https://app.example:444", 403),
        ("", 403),
        ("http://h.example:81", 403),
    ] {
        let line = format!("Origin: {origin}");
        assert_eq!(upgrade(address, &[&UPGRADE[..], &[&line]].concat()).await, expected, "{origin}");
    }
    for key in [
        "",
        "Sec-WebSocket-Key: short",
        "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==",
    ] {
        let lines = with(|line| match line.starts_with("Sec-WebSocket-Key") {
            true if key.is_empty() => vec![],
            true => vec![key],
            false => vec![line],
        });
        assert_eq!(upgrade(address, &lines).await, 400, "{key:?}");
    }
    for twice in [KEY, "Host: h.example", "Sec-WebSocket-Version: 13"] {
        assert_eq!(upgrade(address, &[&UPGRADE[..], &[twice]].concat()).await, 400, "{twice} twice");
    }
    let origin = "Origin: http://h.example";
    assert_eq!(upgrade(address, &[&UPGRADE[..], &[origin, origin]].concat()).await, 400);
    let version = with(|line| if line.ends_with("13") { vec!["Sec-WebSocket-Version: 8"] } else { vec![line] });
    assert_eq!(upgrade(address, &version).await, 426);
    for (first, expected) in
        [("GET /v1/ws HTTP/1.0", 400), ("HEAD /v1/ws HTTP/1.1", 400), ("POST /v1/ws HTTP/1.1", 405)]
    {
        let (head, body) = exchange(address, format!("{first}\r\n{}\r\n\r\n", UPGRADE.join("\r\n")).as_bytes()).await;
        assert_eq!(status(&head), expected, "{first}: {head}");
        assert_dressed(&head, &body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let cluster = cluster(1, &[]).await;
    let address = cluster.nodes[0].address.as_str();
    let json = "Content-Type: application/json\r\n";
    let login =
        |headers: &str, body: &str| format!("POST /v1/auth/login HTTP/1.1\r\nHost: h\r\n{json}{headers}\r\n{body}");
    let cases = [
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("two hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("two lines of TE", login("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("TE beside a length", login("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        ("a length of 2^63", login("Content-Length: 9223372036854775808\r\n", ""), 413),
        ("a length of 2^64", login("Content-Length: 18446744073709551616\r\n", ""), 400),
        ("a negative length", login("Content-Length: -1\r\n", ""), 400),
        ("too large, expected", login("Content-Length: 300000\r\nExpect: 100-continue\r\n", ""), 413),
        ("an encoding", login("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"), 415),
        (
            "an encoding, expected",
            login("Content-Encoding: br\r\nContent-Length: 2\r\nExpect: 100-continue\r\n", ""),
            415,
        ),
        ("two types", login("Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}"), 400),
        (
            "two tokens",
            "GET /v1/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "two keys",
            "GET /v1/me HTTP/1.1\r\nHost: h\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n".to_owned(),
            400,
        ),
        ("no HTTP", "EHLO example.org\r\n\r\n".to_owned(), 400),
        ("a header without a colon", "GET /healthz HTTP/1.1\r\nHost h\r\n\r\n".to_owned(), 400),
        ("a space in a name", "GET /healthz HTTP/1.1\r\nHost : h\r\n\r\n".to_owned(), 400),
        ("a head of 64 KB", format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(64 << 10)), 431),
        ("nothing there", "GET /v1/nothing HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
        ("a method", "PUT /v1/me HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".to_owned(), 405),
        ("fine", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 200),
        (
            "identity",
            login("Content-Encoding: identity\r\nContent-Length: 32\r\n", r#"{"email":"a@b.co","password":""}"#),
            401,
        ),
    ];
    for (name, bytes, expected) in cases {
        let (head, body) = exchange(address, bytes.as_bytes()).await;
        assert_eq!(status(&head), expected, "{name}: {head}\n{body}");
        assert_dressed(&head, &body);
        assert!(!head.contains("100 Continue"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_operators_is_not_for_who_comes_through_a_proxy() {
    let ops = crate::rig::free_port().unwrap();
    let listen = format!("--ops-listen=127.0.0.1:{ops}");
    let cluster = cluster(1, &[&listen, "--trusted-proxies=127.0.0.1", "--origins=https://app.example"]).await;
    let address = cluster.nodes[0].address.as_str();
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    let (head, body) = exchange(address, get("/readyz", "").as_bytes()).await;
    assert!(status(&head) == 200 && body.contains("checks"), "{body}");
    assert_eq!(status(&exchange(address, get("/metrics", "").as_bytes()).await.0), 200);
    for line in
        ["X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=127.0.0.1\r\n", "Via: 1.1 x\r\n", "X-Real-IP: ::1\r\n"]
    {
        let (head, body) = exchange(address, get("/readyz", line).as_bytes()).await;
        assert_eq!((status(&head), body.as_str()), (200, r#"{"ready":true}"#), "{line}");
        let (head, body) = exchange(address, get("/metrics", line).as_bytes()).await;
        assert_eq!(status(&head), 404, "{line}");
        assert_dressed(&head, &body);
    }
    let own = format!("127.0.0.1:{ops}");
    for (path, expected) in [("/readyz", 200), ("/metrics", 200), ("/healthz", 200), ("/v1/me", 404)] {
        let (head, body) = exchange(&own, get(path, "X-Forwarded-For: 203.0.113.1\r\n").as_bytes()).await;
        assert_eq!(status(&head), expected, "{path}");
        assert_dressed(&head, if expected == 200 { "" } else { &body });
    }
    // Refusals of a socket can be read by an allowed page.
    let (head, _) = exchange(address, get("/v1/ws", "Origin: https://app.example\r\n").as_bytes()).await;
    assert_eq!((status(&head), header(&head, "access-control-allow-origin")), (400, Some("https://app.example")));
}

#[tokio::test]
async fn documents_are_made_once_and_asked_for_again() {
    let cluster = cluster(1, &[]).await;
    for path in ["/openapi.json", "/asyncapi.json"] {
        let url = format!("http://{}{path}", cluster.nodes[0].address);
        let plain = cluster.http.get(&url).send().await.unwrap();
        let tag = plain.headers()["etag"].clone();
        let size = plain.bytes().await.unwrap().len();
        for encoding in ["gzip", "br"] {
            let answer = cluster.http.get(&url).header("accept-encoding", encoding).send().await.unwrap();
            assert_eq!(answer.headers()["content-encoding"], encoding);
            assert!(answer.bytes().await.unwrap().len() * 3 < size);
        }
        let again = cluster.http.get(&url).header("if-none-match", tag).send().await.unwrap();
        assert_eq!(again.status(), 304);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_take_its_answers_holds_little_and_not_for_long() {
    let outside = Outside::start().await;
    let (address, thread) = (outside.address.as_str(), format!("/v1/threads/{}", outside.thread));
    let get = async |path: &str| -> Value {
        let url = format!("http://{address}{path}");
        outside.http.get(url).bearer_auth(&outside.token).send().await.unwrap().json().await.unwrap()
    };
    // Who reads gets all of it, in order.
    let page = get(&format!("{thread}/updates?since=0&limit=1000")).await;
    let seqs = |page: &Value| -> Vec<u64> {
        page["updates"].as_array().unwrap().iter().map(|update| update["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs(&page), (1..=151).collect::<Vec<_>>());
    assert!(page["head"] == 151 && page["epoch"].is_string());
    assert_eq!(seqs(&get(&format!("{thread}/updates?since=140&limit=10")).await), (141..=150).collect::<Vec<_>>());
    let past = get(&format!("{thread}/updates?since=151&limit=10")).await;
    assert_eq!((&past["updates"], &past["head"]), (&json!([]), &json!(151)));

    for path in [format!("{thread}/updates?since=0&limit=1000"), "/v1/threads?limit=100".to_owned()] {
        for _ in 0..8 {
            get(&path).await;
        }
        let before = outside.metric("haus_process_resident_bytes").await;
        let refused = "haus_connections_refused_total{reason=\"unread\"}";
        let closed = outside.metric(refused).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", outside.token);
        let mut deaf = Vec::new();
        for _ in 0..DEAF {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4 << 10).unwrap();
            let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
            // Pipelined: answers that nobody takes.
            stream.write_all(head.repeat(16).as_bytes()).await.unwrap();
            deaf.push(stream);
        }
        let mut most = 0;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        // The pace is looked at every ten seconds.
        while outside.metric(refused).await < closed + DEAF {
            assert!(
                std::time::Instant::now() < deadline,
                "{path}: {} were closed",
                outside.metric(refused).await - closed
            );
            most = most.max(outside.metric("haus_process_resident_bytes").await.saturating_sub(before) / DEAF);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(most <= MOST, "{path}: {most} bytes a connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_holds_so_many_connections() {
    let cluster = cluster(1, &["--sockets-per-address=20"]).await;
    let address = cluster.nodes[0].address.as_str();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (head, body) = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(status(&head), 503, "{head}");
    assert!(header(&head, "retry-after").is_some());
    assert_dressed(&head, &body);
    // Another network is not touched by that.
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.77:0".parse().unwrap()).unwrap();
    let mut stream = other.connect(address.parse().unwrap()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
