//! Sixteen accounts that send as much as they can, over sockets and over HTTP: they are refused, and who writes a message now
//! and then notices nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Person, cluster};
use crate::raw::{Got, Raw, text};

const FLOODERS: usize = 16;
/// Sends that each of them may make in ten seconds.
const PER_10S: u32 = 100;
/// Sends of the quiet account, and the time between them.
const SENDS: usize = 60;
const PAUSE: Duration = Duration::from_millis(50);
/// Longest that 99 of 100 quiet sends may take. One that waits for its turn behind the flood takes several seconds.
const P99: Duration = Duration::from_secs(1);

/// Answers by code.
type Codes = BTreeMap<String, u64>;

fn send(thread: Uuid) -> Value {
    json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "again and again"})
}

const SENT: [&str; 2] = ["ok", "201"];
const REFUSED: [&str; 3] = ["rate_limited", "429", "4029"];

fn count(codes: &Codes, wanted: &[&str]) -> u64 {
    wanted.iter().filter_map(|code| codes.get(*code)).sum()
}

/// As long as the quiet account is at it, and in any case until there was a refusal.
fn goes_on(flooding: &AtomicBool, codes: &Codes) -> bool {
    flooding.load(Ordering::Relaxed) || count(codes, &REFUSED) == 0
}

/// Frames of 64 sends, the next as soon as there is an answer to each; a socket that is closed is opened again.
async fn over_sockets(address: String, person: Person, thread: Uuid, flooding: Arc<AtomicBool>) -> Codes {
    let mut codes = Codes::new();
    while goes_on(&flooding, &codes) {
        let mut raw = Raw::live(&address, &person.token).await;
        let mut owed = 0;
        while goes_on(&flooding, &codes) {
            if owed == 0 {
                let frame = |id: u64| json!({"id": id, "cmd": "message.send", "d": send(thread)});
                raw.send(&text(&json!((2..66).map(frame).collect::<Vec<_>>()).to_string())).await;
                owed = 64;
            }
            let code = match raw.got().await {
                Got::Frame(0x81, payload) => {
                    let frame: Value = serde_json::from_slice(&payload).unwrap();
                    if frame["id"].is_null() {
                        continue;
                    }
                    owed -= 1;
                    frame["err"]["code"].as_str().unwrap_or("ok").to_owned()
                }
                Got::Frame(..) => continue,
                Got::Close(code) => code.to_string(),
                Got::End => "ended".to_owned(),
            };
            let is_over = code == "ended" || code.starts_with('4');
            *codes.entry(code).or_default() += 1;
            if is_over {
                break;
            }
        }
    }
    codes
}

/// One request after the other.
async fn over_http(url: String, person: Person, flooding: Arc<AtomicBool>) -> Codes {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut codes = Codes::new();
    while goes_on(&flooding, &codes) {
        let key = Uuid::now_v7().to_string();
        let post = http.post(&url).bearer_auth(&person.token).header("Idempotency-Key", key);
        let status = post.json(&json!({"content": "again and again"})).send().await.unwrap().status();
        *codes.entry(status.as_str().to_owned()).or_default() += 1;
    }
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_flooding_accounts_are_refused_and_a_quiet_one_is_served() {
    let cluster = cluster(1, &[&format!("--sends-per-10s={PER_10S}")]).await;
    let address = cluster.nodes[0].address.clone();
    let [quiet, friend] = cluster.persons().await;
    let calm = cluster.group(&[&quiet, &friend]).await;
    let mut flooders = Vec::new();
    for _ in 0..FLOODERS {
        let person = cluster.person().await;
        let thread = cluster.group(&[&person, &friend]).await;
        flooders.push((person, thread));
    }
    let mut client = cluster.live(0, &quiet).await;
    let flooding = Arc::new(AtomicBool::new(true));
    let (began, mut floods) = (Instant::now(), Vec::new());
    for (number, (person, thread)) in flooders.into_iter().enumerate() {
        let (address, flooding) = (address.clone(), flooding.clone());
        floods.push(if number % 4 == 3 {
            let url = format!("http://{address}/v1/threads/{thread}/messages");
            tokio::spawn(over_http(url, person, flooding))
        } else {
            tokio::spawn(over_sockets(address, person, thread, flooding))
        });
    }
    let mut taken = Vec::new();
    for number in 0..SENDS {
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        let sent = client.call("message.send", send(calm)).await;
        taken.push(began.elapsed());
        assert!(sent.is_ok(), "{number}: {sent:?}");
    }
    flooding.store(false, Ordering::Relaxed);
    for flood in floods {
        let codes = tokio::time::timeout(Duration::from_secs(30), flood).await.expect("refused in time").unwrap();
        // A bucket, and what came back of it meanwhile.
        let most = u64::from(PER_10S) * (10 + began.elapsed().as_secs() + 2) / 10;
        let sent = count(&codes, &SENT);
        assert!((u64::from(PER_10S) * 8 / 10..=most).contains(&sent), "{codes:?}");
        assert_eq!(sent + count(&codes, &REFUSED), codes.values().sum::<u64>(), "{codes:?}");
    }
    taken.sort_unstable();
    assert!(taken[SENDS * 99 / 100] <= P99, "{taken:?}");
}
