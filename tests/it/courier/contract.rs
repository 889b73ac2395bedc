//! The contract that every driver of the courier keeps, whatever it runs over. A driver of a single node has no peers:
//! there the suite checks what a node hears of itself.

use std::time::{Duration, Instant};

use haus::courier::SHARDS;

use super::nodes::{Nodes, Stream, by_stream, seqs, shard_of, wait};

/// All of it, each part on nodes of its own.
pub async fn all<Start, Starting>(start: Start)
where
    Start: Fn() -> Starting,
    Starting: Future<Output = Nodes>,
{
    subscriptions_are_confirmed_once(start().await).await;
    only_what_is_subscribed_is_heard(start().await).await;
    order_holds_and_nothing_is_echoed(start().await).await;
    big_updates_pass(start().await).await;
    a_burst_passes_whole(start().await).await;
    after_shutdown_nothing_is_heard(start().await).await;
}

async fn subscriptions_are_confirmed_once(nodes: Nodes) {
    for node in &nodes.0 {
        node.courier.subscribe(&[]);
        node.courier.subscribe(&[3, 5]);
        node.courier.subscribe(&[5, 3, 3, SHARDS, u16::MAX]);
        wait("3 and 5 confirmed", || node.heard().confirmed.len() == 2).await;
        node.courier.subscribe(&[5]);
        node.courier.subscribe(&[7]);
        wait("7 confirmed", || node.heard().confirmed.contains_key(&7)).await;
        let confirmed = node.heard().confirmed.clone();
        assert_eq!(confirmed, [(3, 1), (5, 1), (7, 1)].into());
        assert!(node.courier.canary_age_ms() < 1000);
    }
}

async fn only_what_is_subscribed_is_heard(nodes: Nodes) {
    let Some((origin, peers)) = nodes.0.split_first() else { return };
    let mut streams: Vec<Stream> = (0..2 * usize::from(SHARDS)).map(|_| Stream::new()).collect();
    let wanted = streams[0].id.shard(SHARDS);
    for peer in peers {
        peer.courier.subscribe(&[wanted]);
        wait("confirmed", || peer.heard().confirmed.contains_key(&wanted)).await;
    }
    // The first stream comes last, so that everything else had its time.
    let mut updates: Vec<_> = streams.iter_mut().map(|stream| stream.next(10)).collect();
    updates.rotate_left(1);
    origin.courier.publish(&updates);
    let last = streams[0].next(10);
    for peer in peers {
        origin.courier.publish(std::slice::from_ref(&last));
        wait("the last one", || !seqs(peer, last.stream).is_empty()).await;
        assert!(peer.heard().updates.iter().all(|update| shard_of(update) == wanted));
        assert_eq!(peer.heard().early, 0);
    }
}

async fn order_holds_and_nothing_is_echoed(nodes: Nodes) {
    for node in &nodes.0 {
        node.hear_all().await;
    }
    // Every node writes streams of its own, all at once, in groups like those of a send batcher.
    let written = 50 * 40;
    let mut streams: Vec<Vec<Stream>> = nodes.0.iter().map(|_| (0..50).map(|_| Stream::new()).collect()).collect();
    for _ in 0..20 {
        for (node, streams) in nodes.0.iter().zip(&mut streams) {
            let group: Vec<_> = streams.iter_mut().flat_map(|stream| [stream.next(200), stream.next(90)]).collect();
            node.courier.publish(&group);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let expected = written * (nodes.0.len() - 1);
    for (node, own) in nodes.0.iter().zip(&streams) {
        wait("all of the others", || node.heard().updates.len() >= expected).await;
        let heard = by_stream(&node.heard().updates);
        assert!(own.iter().all(|stream| !heard.contains_key(&stream.id)), "own updates came back");
        assert_eq!(heard.len(), 50 * (nodes.0.len() - 1));
        assert!(heard.values().all(|seqs| seqs.iter().copied().eq(1..=40)), "order or number");
        assert_eq!(node.heard().early, 0);
    }
}

async fn big_updates_pass(nodes: Nodes) {
    let Some((origin, peers)) = nodes.0.split_first() else { return };
    let mut stream = Stream::new();
    for peer in peers {
        peer.hear_all().await;
    }
    let sizes = [1, 65_536, 300_000, 0, 1_048_576, 2];
    let updates: Vec<_> = sizes.iter().map(|bytes| stream.next(*bytes)).collect();
    origin.courier.publish(&updates);
    for peer in peers {
        wait("all sizes", || peer.heard().updates.len() == sizes.len()).await;
        let heard: Vec<usize> = peer.heard().updates.iter().map(|update| update.frame.len()).collect();
        assert_eq!(heard, sizes);
    }
}

async fn a_burst_passes_whole(nodes: Nodes) {
    // Well within the queue: what is beyond it is dropped and counted (tests of the driver's own).
    const BURST: usize = 20_000;
    let Some((origin, peers)) = nodes.0.split_first() else { return };
    for peer in peers {
        peer.hear_all().await;
    }
    let mut streams: Vec<Stream> = (0..2000).map(|_| Stream::new()).collect();
    let updates: Vec<_> = (0..BURST).map(|n| streams[n % 2000].next(400)).collect();
    let began = Instant::now();
    // Twenty sends a call: as they come from commits.
    updates.chunks(20).for_each(|group| origin.courier.publish(group));
    let queued = began.elapsed();
    for peer in peers {
        wait("the burst", || peer.heard().updates.len() == BURST).await;
    }
    let rate = BURST as f64 / began.elapsed().as_secs_f64();
    if peers.is_empty() {
        return;
    }
    eprintln!("burst of {BURST} to {} peers: queued in {queued:?}, {rate:.0} updates/s", peers.len());
    for peer in peers {
        assert!(by_stream(&peer.heard().updates).values().all(|seqs| seqs.iter().copied().eq(1..=10)), "order");
    }
}

async fn after_shutdown_nothing_is_heard(nodes: Nodes) {
    let Some((origin, peers)) = nodes.0.split_first() else { return };
    let mut stream = Stream::new();
    for peer in peers {
        peer.hear_all().await;
        peer.courier.shutdown();
        peer.courier.shutdown();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gaps: Vec<u32> = peers.iter().map(|peer| peer.heard().gaps).collect();
    origin.courier.publish(&[stream.next(10)]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (peer, gaps) in peers.iter().zip(gaps) {
        assert!(peer.heard().updates.is_empty());
        assert_eq!(peer.heard().gaps, gaps);
        peer.courier.publish(&[stream.next(10)]);
        peer.courier.subscribe(&[1]);
    }
    origin.courier.shutdown();
}
