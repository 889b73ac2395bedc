//! Redis dies, hangs, or cuts connections: a node says so within seconds, loses nothing it does not admit, and recovers
//! by itself. The times asserted are promises of the architecture, with what a busy machine needs on top.

use std::time::{Duration, Instant};

use haus::courier::Health;

use super::nodes::{Member, Network, Node, Nodes, Server, Stream, seqs, wait};

/// Two nodes that hear everything, over a Redis of their own.
async fn pair() -> (Server, Nodes) {
    let server = Server::start();
    let nodes = Nodes::start(&Network::redis(server.url()), 2).await;
    for node in &nodes.0 {
        node.hear_all().await;
    }
    (server, nodes)
}

/// Publishes from the first node until the second hears one.
async fn flows_again(nodes: &Nodes) {
    let mut stream = Stream::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while seqs(&nodes.0[1], stream.id).is_empty() {
        assert!(Instant::now() < deadline, "updates flow again");
        nodes.0[0].courier.publish(&[stream.next(50)]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn gaps(nodes: &Nodes) -> Vec<u32> {
    nodes.0.iter().map(|node| node.heard().gaps).collect()
}

async fn command(server: &Server, words: &[&str]) -> redis::Value {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_is_noticed_at_once_and_comes_back() {
    let (mut server, nodes) = pair().await;
    let before = gaps(&nodes);
    server.redis.kill();
    let killed = Instant::now();
    wait("unhealthy", || nodes.0.iter().all(|node| !node.is_healthy())).await;
    assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
    assert!(gaps(&nodes).iter().zip(&before).all(|(now, before)| now > before), "a gap sets off the poll");
    // Nothing waits for it.
    let mut stream = Stream::new();
    let began = Instant::now();
    (0..1000).for_each(|_| nodes.0[0].courier.publish(&[stream.next(200)]));
    nodes.0[0].courier.subscribe(&[1]);
    assert!(began.elapsed() < Duration::from_millis(200));

    let before = gaps(&nodes);
    let confirmed: Vec<u32> = nodes.0.iter().map(|node| node.heard().confirmed[&9]).collect();
    server.redis.resume().unwrap();
    let resumed = Instant::now();
    wait("healthy", || nodes.0.iter().all(Node::is_healthy)).await;
    assert!(resumed.elapsed() < Duration::from_secs(3), "took {:?}", resumed.elapsed());
    wait("confirmed anew", || {
        nodes.0.iter().zip(&confirmed).all(|(node, before)| node.heard().confirmed[&9] == before + 1)
    })
    .await;
    assert!(gaps(&nodes).iter().zip(&before).all(|(now, before)| now > before), "a gap sets off the poll");
    flows_again(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_redis_is_found_within_five_seconds() {
    let (mut server, nodes) = pair().await;
    let before = gaps(&nodes);
    server.redis.freeze();
    let frozen = Instant::now();
    wait("unhealthy", || nodes.0.iter().all(|node| !node.is_healthy())).await;
    assert!(frozen.elapsed() < Duration::from_secs(5), "took {:?}", frozen.elapsed());
    assert!(gaps(&nodes).iter().zip(&before).all(|(now, before)| now > before));
    assert!(nodes.0[0].courier.canary_age_ms() >= 1_900);
    let Health::Unhealthy { since } = nodes.0[0].courier.health() else { panic!("unhealthy a moment ago") };
    assert!(since >= frozen);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(nodes.0.iter().all(|node| !node.is_healthy()), "connecting to a frozen one proves nothing");
    server.redis.thaw();
    wait("healthy", || nodes.0.iter().all(Node::is_healthy)).await;
    flows_again(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_are_made_anew_and_updates_in_flight_survive() {
    let (server, nodes) = pair().await;
    let before = gaps(&nodes);
    command(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    wait("gaps of both turns", || gaps(&nodes).iter().zip(&before).all(|(now, before)| *now >= before + 2)).await;
    wait("healthy", || nodes.0.iter().all(Node::is_healthy)).await;
    flows_again(&nodes).await;

    // Publishing connections alone: what was written meanwhile is written again.
    let mut stream = Stream::new();
    for round in 0..10 {
        (0..100).for_each(|_| nodes.0[0].courier.publish(&[stream.next(100)]));
        if round % 3 == 0 {
            command(&server, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait("all thousand", || seqs(&nodes.0[1], stream.id).len() == 1000).await;
    assert!(nodes.0[1].is_healthy(), "a cut of 50 ms is no illness");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_is_counted_and_does_nothing() {
    let (server, nodes) = pair().await;
    let before = gaps(&nodes);
    let forged = || haus::telemetry::metrics().dropped.with_label_values(&["courier_forged"]).get();
    let counted = forged();
    let channel = format!("{}s:5", Member::of(1, 1, 1).deployment.prefix());
    for payload in ["", "short", &"long enough to have a header ".repeat(10)] {
        command(&server, &["PUBLISH", &channel, payload]).await;
    }
    wait("counted", || forged() >= counted + 6).await;
    assert_eq!(gaps(&nodes), before, "whoever may publish could make every node poll");
    assert!(nodes.0.iter().all(|node| node.is_healthy() && node.heard().updates.is_empty()));
    flows_again(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_redis() {
    let mut server = Server::start();
    server.redis.kill();
    let node = Node::start(&Network::redis(server.url()));
    node.courier.subscribe(&[1, 2]);
    let mut stream = Stream::new();
    node.courier.publish(&[stream.next(10)]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!node.is_healthy() && node.heard().confirmed.is_empty());
    server.redis.resume().unwrap();
    wait("confirmed", || node.heard().confirmed.len() == 2).await;
    wait("healthy", || node.is_healthy()).await;
    node.courier.shutdown();
}
