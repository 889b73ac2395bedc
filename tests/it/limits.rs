//! Rates that nodes share through a real Redis, and that need none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haus::deployment::Deployment;
use haus::limits::RateLimiter;
use uuid::Uuid;

use crate::rig::Folder;
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
