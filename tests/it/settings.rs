//! Settings and the other devices of a person.

use serde_json::{Value, json};

use crate::cluster::{Cluster, Person, cluster};

async fn change(cluster: &Cluster, node: usize, by: &Person, privacy: Value) -> Value {
    let body = Some(json!({"privacy": privacy}));
    let (status, settings) = cluster.rest(node, "PATCH", "/v1/settings", by, body).await;
    assert_eq!(status, 200, "{settings}");
    settings["privacy"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_settings_is_told_to_every_own_device_and_to_nobody_else() {
    let cluster = cluster(2, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let phone = cluster.sign_in(ana.id, 600_000).await;
    let group = cluster.group(&[&ana, &ben]).await;
    let mut devices = [cluster.live(0, &ana).await, cluster.live(1, &phone).await];
    let mut other = cluster.live(0, &ben).await;

    let whole = json!({"profile": "public", "posts": "public", "messages": "nobody"});
    assert_eq!(change(&cluster, 0, &ana, json!({"messages": "nobody"})).await, whole);
    let mut frames = Vec::new();
    for device in &mut devices {
        let frame = device.update("user").await.json;
        assert_eq!(
            (frame["up"].as_str(), &frame["d"]),
            (Some("settings.changed"), &json!({"changed": {"privacy": whole}}))
        );
        frames.push(frame);
    }
    assert_eq!(frames[0], frames[1], "one update for both");
    // Nothing asked for is nothing told; the next one follows without a hole.
    change(&cluster, 1, &phone, json!({})).await;
    change(&cluster, 1, &phone, json!({"profile": "members"})).await;
    for device in &mut devices {
        let frame = device.update("user").await.json;
        assert_eq!(frame["seq"], frames[0]["seq"].as_i64().unwrap() + 1);
        assert_eq!(
            frame["d"]["changed"]["privacy"],
            json!({"profile": "members", "posts": "public", "messages": "nobody"})
        );
    }
    // Whoever was away is told the same.
    let since = frames[0]["seq"].as_u64().unwrap() - 1;
    devices[0].call("sync", json!({"streams": {"user": since}})).await.unwrap();
    assert_eq!(devices[0].update("user").await.json, frames[0]);
    // The first thing another person hears is a message sent after all that.
    devices[0].say(group, "hello").await;
    let first = other.until(|frame| frame["up"] == "settings.changed" || frame["up"] == "message.created").await;
    assert_eq!(first.json["up"], "message.created");
}
