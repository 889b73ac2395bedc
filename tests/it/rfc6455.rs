//! RFC 6455 over a bare TCP connection: what a frame may look like, and the close code of each that may not.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::cluster::cluster;
use crate::raw::{Got, Raw, frame, text};

const PING: &str = r#"{"id":7,"cmd":"ping","d":{}}"#;

/// What must follow: a close code, or the answer to a `ping` command.
#[derive(Clone, Copy)]
enum Expect {
    Close(u16),
    Pong,
}
use Expect::{Close, Pong};

fn with_mask(mut bytes: Vec<u8>, mask: bool) -> Vec<u8> {
    if !mask {
        bytes[1] &= 0x7F;
    }
    bytes
}

/// A header with a length in a chosen encoding, the payload masked with zeros.
fn encoded(first: u8, marker: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | marker], length, &[0; 4], payload].concat()
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// Name, bytes, expectation; more than a hundred.
fn cases() -> Vec<(String, Vec<u8>, Expect)> {
    let mut cases: Vec<(String, Vec<u8>, Expect)> = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>, expect| cases.push((name, bytes, expect));
    // 5.2: reserved bits, with every opcode that is known.
    for rsv in [0x10, 0x20, 0x40, 0x30, 0x70] {
        for opcode in [0x0, 0x1, 0x8, 0x9, 0xA] {
            add(format!("rsv {rsv:02x} opcode {opcode:x}"), frame(0x80 | rsv | opcode, b"{}"), Close(1002));
        }
    }
    // 5.2: reserved opcodes.
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        for fin in [0x80, 0x00] {
            add(format!("opcode {opcode:x} fin {fin:02x}"), frame(fin | opcode, b""), Close(1002));
        }
    }
    // 5.1: a client that does not mask.
    for first in [0x81, 0x88, 0x89, 0x8A, 0x80, 0x01] {
        add(format!("unmasked {first:02x}"), with_mask(frame(first, b""), false), Close(1002));
    }
    // 5.5: control frames are short and whole.
    for first in [0x88, 0x89, 0x8A] {
        for length in [126, 127, 200, 65_535, 65_536] {
            add(format!("control {first:02x} of {length}"), frame(first, &vec![b'x'; length]), Close(1002));
        }
        add(format!("control {first:02x} in parts"), frame(first & 0x0F, b""), Close(1002));
    }
    // Binary is not spoken.
    for first in [0x82, 0x02] {
        add(format!("binary {first:02x}"), frame(first, b"x"), Close(1003));
    }
    // 5.4: fragments.
    let joined = |parts: &[&[u8]]| parts.concat();
    add("continuation of nothing".into(), frame(0x80, b"x"), Close(1002));
    add("open continuation of nothing".into(), frame(0x00, b"x"), Close(1002));
    add("text inside text".into(), joined(&[&frame(0x01, b"{"), &text("{}")]), Close(1002));
    add("continuation after the end".into(), joined(&[&text(PING), &frame(0x80, b"")]), Close(1002));
    let (a, b) = PING.as_bytes().split_at(9);
    add("two parts".into(), joined(&[&frame(0x01, a), &frame(0x80, b)]), Pong);
    add("empty parts".into(), joined(&[&frame(0x01, b""), &frame(0, a), &frame(0, b""), &frame(0x80, b)]), Pong);
    for control in [frame(0x89, b"?"), frame(0x8A, b""), frame(0x89, &[b'x'; 125])] {
        let parts = [&frame(0x01, a)[..], &control, &frame(0x80, b)];
        add(format!("control {:02x} between parts", control[0]), parts.concat(), Pong);
    }
    add("close between parts".into(), joined(&[&frame(0x01, a), &frame(0x88, &close_payload(1000, b""))]), Close(1000));
    let bytes: Vec<u8> = std::iter::once(frame(0x01, &PING.as_bytes()[..1]))
        .chain(PING.as_bytes()[1..PING.len() - 1].iter().map(|byte| frame(0x00, &[*byte])))
        .chain([frame(0x80, &PING.as_bytes()[PING.len() - 1..])])
        .flatten()
        .collect();
    add("a part for each byte".into(), bytes, Pong);
    // 5.2: lengths. The shortest encoding is demanded of a sender; a longer one may be taken or refused, never misread.
    let spaces = |count: usize| format!("{PING}{}", " ".repeat(count - PING.len()));
    for length in [125, 126, 127, 1000, 65_535, 65_536] {
        add(format!("text of {length}"), text(&spaces(length)), Pong);
    }
    add("text of 65537".into(), text(&spaces(65_537)), Close(1009));
    add("1 MB".into(), text(&spaces(1 << 20)), Close(1009));
    add("1 MB in parts".into(), [frame(0x01, &[b' '; 60_000]), frame(0x00, &[b' '; 60_000])].concat(), Close(1009));
    for claim in [1_u64 << 20, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX] {
        let code = if claim >> 63 == 1 { 1002 } else { 1009 };
        add(format!("claims {claim}"), encoded(0x81, 127, &claim.to_be_bytes(), b""), Close(code));
    }
    // 8.1: text is UTF-8.
    let bad: [&[u8]; 10] = [
        b"\xFF",
        b"\xC0\x80",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xE2\x82",
        b"\x80",
        b"{\"a\":\"\xC3\"}",
        b"\xF8\x88\x80\x80\x80",
        b"\xC1\xBF",
        b"\xF0\x80\x80\xAF",
    ];
    for bytes in bad {
        add(format!("{bytes:02x?}"), frame(0x81, bytes), Close(1007));
        add(format!("{bytes:02x?} in parts"), [frame(0x01, b" "), frame(0x80, bytes)].concat(), Close(1007));
    }
    let split = r#"{"id":7,"cmd":"ping","d":{"x":"é"}}"#.as_bytes();
    let at = split.iter().position(|byte| *byte == 0xC3).unwrap() + 1;
    add("a character over two parts".into(), [frame(0x01, &split[..at]), frame(0x80, &split[at..])].concat(), Pong);
    // 7.4: close codes.
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        add(format!("close {code}"), frame(0x88, &close_payload(code, b"bye")), Close(1000));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        add(format!("close {code}"), frame(0x88, &close_payload(code, b"")), Close(1002));
    }
    add("close without code".into(), frame(0x88, b""), Close(1000));
    add("close of one byte".into(), frame(0x88, b"\x03"), Close(1002));
    add("close with bad UTF-8".into(), frame(0x88, &close_payload(1000, b"\xFF")), Close(1002));
    add("close of 125".into(), frame(0x88, &close_payload(1000, &[b'x'; 123])), Close(1000));
    add("nothing after a close".into(), [frame(0x88, b""), text(PING)].concat(), Close(1000));
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_taken_or_closed_with_its_code() {
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let address = &cluster.nodes[0].address;
    let cases = cases();
    assert!(cases.len() > 100, "{}", cases.len());
    let mut wrong = Vec::new();
    // Sockets of one person are capped; strangers to `auth` meet the same rules.
    for (name, bytes, expect) in &cases {
        let mut raw = match expect {
            Close(_) => Raw::greeted(address).await,
            Pong => Raw::live(address, &ana.token).await,
        };
        raw.send(bytes).await;
        match expect {
            Close(code) => {
                let got = raw.closed().await;
                if got != *code {
                    wrong.push(format!("{name}: closed with {got}, not {code}"));
                }
            }
            Pong => {
                let answered = loop {
                    match raw.got().await {
                        Got::Frame(0x81, reply) => break reply.starts_with(br#"{"id":7,"ok""#),
                        Got::Frame(0x8A, _) => {}
                        _ => break false,
                    }
                };
                if !answered {
                    wrong.push(format!("{name}: not answered"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_in_order_with_their_payload() {
    let cluster = cluster(1, &[]).await;
    let mut raw = Raw::greeted(&cluster.nodes[0].address).await;
    let mut all = Vec::new();
    for length in [0, 1, 124, 125] {
        all.extend(frame(0x89, &vec![length as u8; length]));
    }
    // Any way in which TCP cuts the bytes gives the same frames.
    for piece in all.chunks(3) {
        raw.send(piece).await;
        raw.stream.flush().await.unwrap();
    }
    for length in [0, 1, 124, 125] {
        assert_eq!(raw.got().await, Got::Frame(0x8A, vec![length as u8; length]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_in_a_longer_encoding_are_never_misread() {
    let cluster = cluster(1, &[]).await;
    let [ana] = cluster.persons().await;
    let short = PING.len() as u16;
    for (marker, length) in [(126, short.to_be_bytes().to_vec()), (127, u64::from(short).to_be_bytes().to_vec())] {
        let mut raw = Raw::live(&cluster.nodes[0].address, &ana.token).await;
        raw.send(&encoded(0x81, marker, &length, PING.as_bytes())).await;
        match raw.got().await {
            Got::Frame(0x81, reply) => assert!(reply.starts_with(br#"{"id":7,"ok""#)),
            Got::Close(code) => assert_eq!(code, 1002),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_carry_nothing_are_closed() {
    let cluster = cluster(1, &[]).await;
    for flood in [frame(0x89, b"").repeat(1000), frame(0x8A, b"").repeat(1000), {
        [frame(0x01, b""), frame(0x00, b"").repeat(1000)].concat()
    }] {
        let mut raw = Raw::greeted(&cluster.nodes[0].address).await;
        raw.send(&flood).await;
        assert_eq!(raw.closed().await, 4029);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_or_half_are_closed() {
    let cluster = cluster(1, &[]).await;
    let address = &cluster.nodes[0].address;
    let mut silent = Raw { stream: TcpStream::connect(address).await.unwrap() };
    let mut half = Raw { stream: TcpStream::connect(address).await.unwrap() };
    half.send(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnec").await;
    let mut unauthenticated = Raw::open(address).await;
    let mut half_frame = Raw::open(address).await;
    half_frame.send(&text(PING)[..5]).await;
    let most = Duration::from_millis(6500);
    let (a, b, c, d) = tokio::join!(
        silent.ended_within(most),
        half.ended_within(most),
        unauthenticated.ended_within(most),
        half_frame.ended_within(most)
    );
    for open in [a, b, c, d] {
        assert!(open > Duration::from_secs(4), "{open:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_pongs_is_closed_and_one_with_them_is_not() {
    let cluster = cluster(1, &["--heartbeat-ms=300"]).await;
    let [ana] = cluster.persons().await;
    let address = &cluster.nodes[0].address;
    let (mut mute, mut alive) = (Raw::live(address, &ana.token).await, Raw::live(address, &ana.token).await);
    let answering = tokio::spawn(async move {
        for _ in 0..5 {
            let ping = loop {
                match alive.got().await {
                    Got::Frame(0x89, payload) => break payload,
                    Got::Frame(..) => {}
                    end => panic!("{end:?}"),
                }
            };
            alive.send(&frame(0x8A, &ping)).await;
        }
        alive
    });
    let mut beats = 0;
    let code = loop {
        match mute.got().await {
            Got::Frame(0x89, _) => beats += 1,
            Got::Frame(..) => {}
            Got::Close(code) => break code,
            Got::End => panic!("no close frame"),
        }
    };
    assert_eq!((code, beats), (4008, 2));
    let mut alive = answering.await.unwrap();
    alive.send(&text(PING)).await;
    loop {
        match alive.got().await {
            Got::Frame(0x81, reply) if reply.starts_with(br#"{"id":7,"ok""#) => break,
            Got::Frame(..) => {}
            end => panic!("{end:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_subprotocol_is_told_by_a_close_code() {
    let cluster = cluster(1, &[]).await;
    let address = &cluster.nodes[0].address;
    let mut raw = Raw { stream: TcpStream::connect(address).await.unwrap() };
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: haus.v2\r\n\r\n"
    );
    raw.send(head.as_bytes()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(raw.got().await, Got::Close(4426));
    assert_eq!(raw.got().await, Got::End);

    for (wrong, status) in [
        (head.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), "426"),
        (head.replace("Upgrade: WebSocket\r\n", ""), "400"),
        (head.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), "400"),
    ] {
        let mut raw = Raw { stream: TcpStream::connect(address).await.unwrap() };
        raw.send(wrong.as_bytes()).await;
        let answer = raw.head().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}
