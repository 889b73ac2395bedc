//! The log: replays equal what was sent live, the poll misses no late committer, heads.

use haus::messaging::log::{heads, poll, thread_pages, user_pages};
use haus::messaging::read_marks::read;
use haus::messaging::send::append;
use haus::updates::{StreamId, UpdateKind};
use serde_json::json as value;
use sqlx::Connection;
use uuid::Uuid;

use crate::people::{World, json, request};

#[tokio::test]
async fn a_replay_is_what_was_sent_live_but_for_removed_text() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let (thread, other) = (world.group(a, &[b]).await, world.group(b, &[]).await);
    let mut connection = world.pool.acquire().await.unwrap();
    let (_, live) =
        append(&mut connection, &[request(a, thread, "first"), request(b, thread, "second")]).await.unwrap();
    let pages = thread_pages(&world.pool, &[(thread, 1), (other, 0), (Uuid::now_v7(), 0)], 10).await.expect("pages");
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!((&pages[0][0].frame, &pages[0][1].frame), (&live[0].frame, &live[1].frame));

    world
        .database
        .run(format!(
            "UPDATE messages SET content = NULL, is_deleted = true, type = 'DELETED', rev = 2, deleted_at = now()
             WHERE thread_id = '{thread}' AND no = 1"
        ))
        .await;
    let page = thread_pages(&world.pool, &[(thread, 1)], 1).await.expect("a page").remove(0);
    let message = &json(&page[0])["d"]["message"];
    assert_eq!((page.len(), &message["isDeleted"], &message["type"]), (1, &value!(true), &value!("DELETED")));
    assert!(message.get("content").is_none() && message["rev"] == 2);
}

#[tokio::test]
async fn the_poll_tells_late_committers() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let (slow, quick) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    let first = poll(&world.pool, None).await.expect("a poll");
    assert!(first.moved.is_empty());

    // Begun first, committed last.
    let mut connection = world.pool.acquire().await.unwrap();
    let mut late = connection.begin().await.unwrap();
    append(&mut late, &[request(a, slow, "late")]).await.unwrap();
    world.send(a, quick, "quick").await;
    let second = poll(&world.pool, Some(first.snapshot)).await.expect("a poll");
    assert_eq!(second.moved, vec![(StreamId::Thread(quick), 2)]);
    late.commit().await.unwrap();
    let third = poll(&world.pool, Some(second.snapshot)).await.expect("a poll");
    assert_eq!(third.moved, vec![(StreamId::Thread(slow), 2)]);
    read(&world.pool, b, slow, 1, None).await.expect("read");
    let fourth = poll(&world.pool, Some(third.snapshot)).await.expect("a poll");
    assert_eq!(fourth.moved, vec![(StreamId::User(b), 3)]);
    assert!(poll(&world.pool, Some(fourth.snapshot)).await.expect("a poll").moved.is_empty());

    let mut found = heads(&world.pool, &[slow, Uuid::now_v7()], &[b]).await.expect("heads");
    found.sort_unstable();
    assert_eq!(found, vec![(StreamId::Thread(slow), 2), (StreamId::User(b), 3)]);
    let page = user_pages(&world.pool, &[(b, 2)], 10).await.expect("a page").remove(0);
    assert_eq!((page.len(), page[0].kind), (1, UpdateKind::ThreadState));
    assert_eq!(json(&page[0])["d"]["lastReadNo"], 1);
}
