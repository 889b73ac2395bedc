//! A thread that hundreds of sockets read: its next batch waits until most of them have got the last one, and it goes on
//! whoever of them leaves.

use serde_json::json;
use uuid::Uuid;

use crate::cluster::cluster;

/// Above the number from which a worker calls a thread wide.
const READERS: usize = 300;
const ROUNDS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_widely_read_thread_goes_on_while_its_readers_leave() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let name = thread.to_string();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(cluster.live(0, &ben).await);
    }
    let mut senders = Vec::new();
    for _ in 0..4 {
        senders.push(cluster.live(0, &ana).await);
    }
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            // Gone without a word, with updates on their way to them.
            readers.truncate(READERS / 3);
        }
        let mut ids = Vec::new();
        for sender in &mut senders {
            let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": format!("round {round}")});
            ids.push(sender.start("message.send", d).await);
        }
        for (sender, id) in senders.iter_mut().zip(ids) {
            sender.reply(id).await.unwrap();
        }
    }
    let last = 1 + ROUNDS * senders.len() as u64;
    for reader in &mut readers {
        for seq in 2..=last {
            assert_eq!(reader.update(&name).await.json["seq"], seq);
        }
    }
    // Nobody is left but one: narrow again.
    readers.truncate(1);
    senders[0].say(thread, "the end").await;
    assert_eq!(readers[0].update(&name).await.json["seq"], last + 1);
}
