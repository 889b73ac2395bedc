//! Rates that nodes share through a real Redis, and that need none.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use haus::deployment::Deployment;
use haus::limits::{RateLimiter, SessionBook, share_sessions};
use uuid::Uuid;

use crate::rig::Folder;
use crate::rig::proxy::{FaultProxy, Faults};
use crate::rig::redis::Redis;

fn node(redis: &Redis, per_10s: u32, deployment: &Arc<Deployment>) -> Arc<RateLimiter> {
    let limiter = Arc::new(RateLimiter::new(per_10s, true));
    limiter.share(&redis.url(), None, deployment.clone()).unwrap();
    limiter
}

/// How many of `most` pass at once.
fn passing(limiter: &RateLimiter, profile: Uuid, most: u32) -> u32 {
    (0..most).take_while(|_| limiter.check(profile, 1).is_ok()).count() as u32
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_a_profiles_rate_and_each_goes_on_without_redis() {
    let logs = Folder::new("limits").unwrap();
    let mut redis = Redis::start(logs.path()).unwrap();
    let deployment = Deployment::new(Uuid::new_v4(), Uuid::now_v7());
    let (one, two) = (node(&redis, 500, &deployment), node(&redis, 500, &deployment));
    let profile = Uuid::now_v7();
    // Both let the profile begin; as soon as they have spoken, it has spent its bucket twice.
    assert_eq!(passing(&one, profile, 500), 500);
    assert_eq!(passing(&two, profile, 400), 400);
    let deadline = Instant::now() + Duration::from_secs(10);
    let in_debt = loop {
        match two.check(profile, 1) {
            Err(wait_ms) if wait_ms > 3000 => break wait_ms,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(Instant::now() < deadline, "the second node hears of the first");
    };
    assert!(in_debt <= 20_000, "a debt is at most one bucket: {in_debt} ms");
    assert!(two.check(Uuid::now_v7(), 1).is_ok(), "others are not touched");

    // Silent or dead: decided at once, by the node alone.
    redis.freeze();
    decides_alone(&one).await;
    redis.thaw();
    redis.kill();
    decides_alone(&one).await;
    redis.resume().unwrap();

    // And shared again by itself.
    let resumed = Instant::now();
    loop {
        let later = Uuid::now_v7();
        assert_eq!(passing(&one, later, 500), 500);
        assert_eq!(passing(&two, later, 1), 1);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        // Alone it would have its whole bucket; together they have what came back in the meantime.
        if passing(&two, later, 500) < 250 {
            break;
        }
        assert!(resumed.elapsed() < Duration::from_secs(10), "shared again after Redis came back");
    }
}

async fn decides_alone(limiter: &RateLimiter) {
    let profile = Uuid::now_v7();
    assert!(limiter.check(profile, 1).is_ok());
    tokio::time::sleep(Duration::from_millis(700)).await;
    let began = Instant::now();
    let passed = passing(limiter, profile, 600);
    assert!(began.elapsed() < Duration::from_millis(200), "took {:?}", began.elapsed());
    assert!((499..=520).contains(&passed), "{passed} passed");
}

/// The sessions of a node that is nothing else.
#[derive(Default)]
pub struct Book {
    places: Mutex<HashMap<Uuid, Vec<u64>>>,
    changed: Mutex<HashSet<Uuid>>,
    replaced: Mutex<Vec<(Uuid, u64)>>,
}

impl Book {
    pub fn shared(url: &str, ca: Option<&str>, deployment: &Arc<Deployment>, most: usize) -> Arc<Self> {
        let book = Arc::new(Self::default());
        let shared: Arc<dyn SessionBook> = book.clone();
        let told: Weak<dyn SessionBook> = Arc::downgrade(&shared);
        share_sessions(url, ca.map(str::as_bytes), deployment.clone(), told, most).unwrap();
        book
    }

    pub fn set(&self, profile: Uuid, places: &[u64]) {
        self.places.lock().unwrap().insert(profile, places.to_vec());
        self.put_back(&[profile]);
    }

    pub fn has_replaced(&self, profile: Uuid, place: u64) -> bool {
        self.replaced.lock().unwrap().contains(&(profile, place))
    }

    fn is_told(&self) -> bool {
        self.changed.lock().unwrap().is_empty()
    }
}

impl SessionBook for Book {
    fn take_changed(&self, _most: usize) -> Vec<(Uuid, Vec<u64>)> {
        let places = self.places.lock().unwrap();
        self.changed.lock().unwrap().drain().map(|profile| (profile, places[&profile].clone())).collect()
    }

    fn put_back(&self, profiles: &[Uuid]) {
        self.changed.lock().unwrap().extend(profiles);
    }

    fn change_all(&self) {
        self.put_back(&self.places.lock().unwrap().keys().copied().collect::<Vec<_>>());
    }

    fn replace(&self, profile_id: Uuid, place: u64) {
        self.replaced.lock().unwrap().push((profile_id, place));
    }
}

pub async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn which_session_is_to_end_is_told_until_it_was_heard() {
    let logs = Folder::new("limits").unwrap();
    let redis = Redis::start(logs.path()).unwrap();
    let direct = redis.url();
    let target = direct.trim_start_matches("redis://").trim_end_matches('/').parse().unwrap();
    let proxy = FaultProxy::start(target, 1).await.unwrap();
    let deployment = Deployment::new(Uuid::new_v4(), Uuid::now_v7());
    let far = Book::shared(&format!("redis://{}", proxy.address()), None, &deployment, 2);
    let near = Book::shared(&direct, None, &deployment, 2);
    let (one, many) = (Uuid::now_v7(), Uuid::now_v7());
    far.set(one, &[1]);
    far.set(many, &(1..=3_000).collect::<Vec<_>>());
    near.set(many, &[4_000]);
    // More than one answer brings.
    until("all but the last two", || far.replaced.lock().unwrap().len() == 2_999).await;
    until("both are told", || far.is_told() && near.is_told()).await;

    // What the far node asks arrives; the answers come when it has given up waiting.
    proxy.set(Faults { latency_ms: 700, ..Faults::default() });
    near.set(one, &[2, 3]);
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    assert!(!far.has_replaced(one, 1), "an answer got through");
    proxy.set(Faults::default());
    until("told again", || far.has_replaced(one, 1)).await;
    assert!(near.replaced.lock().unwrap().is_empty());
    // Heard: not told for ever.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let heard = far.replaced.lock().unwrap().len();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(far.replaced.lock().unwrap().len(), heard);
}
