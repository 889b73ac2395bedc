//! Others on the same Redis: another deployment, a past that was lost, and whoever may publish there.

use futures_util::StreamExt;
use haus::telemetry;
use uuid::Uuid;

use super::nodes::{Member, Network, Node, Server, Stream, seqs, wait};

async fn node(server: &Server, member: &Member) -> Node {
    let node = Node::start(&Network::Redis(server.url(), member.clone()));
    node.hear_all().await;
    wait("healthy", || node.is_healthy()).await;
    node
}

/// Publishes from `origin` until `peer` has heard one, so that whatever was published before had its time everywhere.
async fn flows(origin: &Node, peer: &Node) {
    let mut stream = Stream::new();
    wait("updates flow", || {
        origin.courier.publish(&[stream.next(10)]);
        !seqs(peer, stream.id).is_empty()
    })
    .await;
}

fn forged() -> u64 {
    telemetry::metrics().dropped.with_label_values(&["courier_forged"]).get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_and_epochs_on_one_redis_hear_nothing_of_each_other() {
    let server = Server::start();
    let ours = Member::of(1, 1, 1);
    // The same root key everywhere: names alone must keep them apart.
    let (one, two) = (node(&server, &ours).await, node(&server, &Member::of(1, 1, 1)).await);
    let strangers = [Member::of(2, 1, 1), Member::of(1, 2, 1)];
    let mut others = Vec::new();
    for member in &strangers {
        others.push((node(&server, member).await, node(&server, member).await));
    }
    let mut stream = Stream::new();
    let updates: Vec<_> = (0..20).map(|_| stream.next(100)).collect();
    one.courier.publish(&updates);
    wait("the own deployment", || seqs(&two, stream.id).len() == 20).await;

    for (other, peer) in &others {
        flows(other, peer).await;
        assert!(seqs(other, stream.id).is_empty(), "another deployment or epoch heard it");
    }

    // A new epoch: whoever knows of it goes on there, and hears no more of the old one.
    let confirmed = one.heard().confirmed[&9];
    ours.deployment.keep_epoch(Uuid::from_u128(7));
    wait("subscribed anew", || one.heard().confirmed[&9] > confirmed && one.is_healthy()).await;
    let mut late = Stream::new();
    two.courier.publish(&[late.next(10)]);
    let follower = node(&server, &Member::of(1, 7, 1)).await;
    flows(&one, &follower).await;
    flows(&follower, &one).await;
    assert!(seqs(&one, late.id).is_empty() && seqs(&follower, late.id).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_publish_cannot_speak_for_a_node() {
    let server = Server::start();
    let ours = Member::of(1, 1, 1);
    let (one, two) = (node(&server, &ours).await, node(&server, &ours).await);
    let client = redis::Client::open(server.url()).unwrap();
    let mut pubsub = client.get_async_pubsub().await.unwrap();
    pubsub.psubscribe("haus:*").await.unwrap();
    let mut overheard = pubsub.into_on_message();
    let mut stream = Stream::new();
    one.courier.publish(&[stream.next(64)]);
    let (channel, message) = loop {
        let heard = overheard.next().await.unwrap();
        if heard.get_channel_name().contains(":s:") {
            break (heard.get_channel_name().to_owned(), heard.get_payload_bytes().to_vec());
        }
    };
    wait("the true one", || seqs(&two, stream.id).len() == 1).await;

    let impostor = Member::of(1, 1, 9);
    let stranger = Node::start(&Network::Redis(server.url(), impostor));
    let (before, gaps) = (forged(), two.heard().gaps);
    let mut told = Stream::new();
    stranger.courier.publish(&[told.next(64)]);
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (prefix, shard) = channel.rsplit_once(':').unwrap();
    let elsewhere = format!("{prefix}:{}", (shard.parse::<u16>().unwrap() + 1) % 128);
    let notice = format!("{}notice", prefix.strip_suffix('s').unwrap());
    let mut changed = message.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (channel, message) in [
        (&elsewhere, &message),
        (&notice, &message),
        (&channel, &changed),
        (&channel, &message[..30].to_vec()),
        (&channel, &Vec::new()),
        (&channel, &b"{\"up\":\"message.created\"}".to_vec()),
    ] {
        redis::cmd("PUBLISH").arg(channel).arg(message).query_async::<i64>(&mut connection).await.unwrap();
    }
    // All seven at the second node; the first does not read what names itself as its origin.
    wait("all seen and refused", || forged() >= before + 11).await;
    flows(&one, &two).await;
    assert_eq!(seqs(&two, stream.id).len(), 1);
    assert_eq!(two.heard().updates.iter().filter(|update| update.stream == stream.id).count(), 1);
    assert!(seqs(&two, told.id).is_empty() && seqs(&one, told.id).is_empty());
    assert_eq!(two.heard().gaps, gaps, "nobody can make nodes poll either");
    stranger.courier.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_root_key_is_changed_nodes_of_both_keys_understand_each_other() {
    let server = Server::start();
    let both = |present: u8, also: u8| {
        let mut member = Member::of(1, 1, present);
        member.keys.extend(Member::of(1, 1, also).keys);
        member
    };
    let (before, after) = (node(&server, &both(1, 2)).await, node(&server, &both(2, 1)).await);
    flows(&before, &after).await;
    flows(&after, &before).await;
}
