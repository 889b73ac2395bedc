//! The log: replays equal what was sent live, the poll misses no late committer, heads.

use haus::messaging::log::{Poll, PollState, heads, poll, thread_pages, user_pages};
use haus::messaging::read_marks::read;
use haus::messaging::send::append;
use haus::store::restored;
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

/// A poll that has caught up.
async fn poll_whole(world: &World, position: Option<String>) -> Poll {
    let poll = poll(&world.pool, position, ROWS).await.expect("a poll");
    assert_eq!(poll.state, PollState::Whole);
    poll
}

/// Rows and entries of indexes of the logs that one poll reads.
async fn rows_read(world: &World, position: &str, rows: i32) -> i64 {
    let counted = "SELECT sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid))::bigint
        FROM pg_class WHERE relname ~ '^(thread|user)_updates'";
    let mut transaction = world.pool.begin().await.unwrap();
    // The counters hold what the connection did a moment ago, too.
    let before: i64 = sqlx::query_scalar(counted).fetch_one(&mut *transaction).await.unwrap();
    let poll = "SELECT count(*) FROM engine.poll($1, $2)";
    let _: i64 = sqlx::query_scalar(poll).bind(position).bind(rows).fetch_one(&mut *transaction).await.unwrap();
    sqlx::query_scalar::<_, i64>(counted).fetch_one(&mut *transaction).await.unwrap() - before
}

const ROWS: i32 = 1_000;

#[tokio::test]
async fn the_poll_tells_late_committers() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let (slow, quick) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    let first = poll_whole(&world, None).await;
    assert!(first.moved.is_empty());

    // Begun first, committed last.
    let mut connection = world.pool.acquire().await.unwrap();
    let mut late = connection.begin().await.unwrap();
    append(&mut late, &[request(a, slow, "late")]).await.unwrap();
    world.send(a, quick, "quick").await;
    let second = poll_whole(&world, Some(first.position)).await;
    assert_eq!(second.moved, vec![(StreamId::Thread(quick), 2)]);
    late.commit().await.unwrap();
    let third = poll_whole(&world, Some(second.position)).await;
    assert_eq!(third.moved, vec![(StreamId::Thread(slow), 2)]);
    read(&world.pool, b, slow, 1, None).await.expect("read");
    let fourth = poll_whole(&world, Some(third.position)).await;
    assert_eq!(fourth.moved, vec![(StreamId::User(b), 3)]);
    assert!(poll_whole(&world, Some(fourth.position)).await.moved.is_empty());

    let mut found = heads(&world.pool, &[slow, Uuid::now_v7()], &[b]).await.expect("heads");
    found.sort_unstable();
    assert_eq!(found, vec![(StreamId::Thread(slow), 2), (StreamId::User(b), 3)]);
    let page = user_pages(&world.pool, &[(b, 2)], 10).await.expect("a page").remove(0);
    assert_eq!((page.len(), page[0].kind), (1, UpdateKind::ThreadState));
    assert_eq!(json(&page[0])["d"]["lastReadNo"], 1);
}

#[tokio::test]
async fn a_transaction_that_stays_open_does_not_make_polls_read_again_what_they_told() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let (slow, quick) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    let mut connection = world.pool.acquire().await.unwrap();
    let mut late = connection.begin().await.unwrap();
    append(&mut late, &[request(a, slow, "late")]).await.unwrap();
    let mut position = poll_whole(&world, None).await.position;
    let mut read = Vec::new();
    for round in 0..4 {
        world.send_many(a, quick, 500).await;
        let poll = poll_whole(&world, Some(position)).await;
        assert_eq!(poll.moved, vec![(StreamId::Thread(quick), 1 + 500 * (round + 1))]);
        position = poll.position;
        read.push(rows_read(&world, &position, ROWS).await);
    }
    // What the open transaction wrote is looked at; 2,000 rows committed since are not.
    assert!(read.iter().all(|rows| (1..50).contains(rows)), "{read:?}");
    late.commit().await.unwrap();
    let last = poll_whole(&world, Some(position)).await;
    assert_eq!(last.moved, vec![(StreamId::Thread(slow), 2)]);
    assert!(rows_read(&world, &last.position, ROWS).await < 20);
}

#[tokio::test]
async fn a_long_poll_goes_on_in_parts_and_misses_nothing() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let mut threads = Vec::new();
    for _ in 0..12 {
        threads.push(world.group(a, &[b]).await);
    }
    let first = poll_whole(&world, None).await;
    for (n, thread) in threads.iter().enumerate() {
        // Calls of 100 at most, so the largest transaction is twice a part.
        world.send_many(a, *thread, 30 + n * 10).await;
        read(&world.pool, b, *thread, 1, None).await.expect("read");
    }
    let mut found = std::collections::HashMap::new();
    let (mut position, mut parts) = (first.position, 0);
    loop {
        let part = poll(&world.pool, Some(position.clone()), 50).await.expect("a part");
        assert!(rows_read(&world, &position, 50).await < 2_000);
        for (stream, seq) in part.moved {
            let held = found.entry(stream).or_insert(seq);
            *held = seq.max(*held);
        }
        position = part.position;
        parts += 1;
        // A late one, while the parts are read.
        if parts == 3 {
            world.send(a, threads[0], "meanwhile").await;
        }
        match part.state {
            PollState::More => {}
            PollState::Whole => break,
            PollState::Lost => panic!("lost"),
        }
    }
    assert!(parts > 5, "{parts}");
    for (n, thread) in threads.iter().enumerate().skip(1) {
        assert_eq!(found[&StreamId::Thread(*thread)], 31 + n as u64 * 10);
    }
    assert_eq!(found[&StreamId::User(b)], 12 + 12);
    let next = poll_whole(&world, Some(position)).await;
    assert_eq!(next.moved, vec![(StreamId::Thread(threads[0]), 32)]);
}

#[tokio::test]
async fn rows_of_another_cluster_are_no_news_and_renumbered() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let (old, new) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    world.send_many(a, old, 2_000).await;
    // As a restore from the dump of an older cluster leaves them, some of them just above the counter.
    world
        .database
        .run(
            "UPDATE thread_updates SET xid = ((pg_current_xact_id()::text::bigint + 2 + seq * 1000)::text)::xid8;
             UPDATE user_updates SET xid = ((pg_current_xact_id()::text::bigint + 2 + seq * 1000)::text)::xid8"
                .into(),
        )
        .await;
    let first = poll_whole(&world, None).await;
    world.send(a, new, "new").await;
    assert!(rows_read(&world, &first.position, ROWS).await < 50);
    let second = poll_whole(&world, Some(first.position)).await;
    assert!(second.moved.contains(&(StreamId::Thread(new), 2)), "{:?}", second.moved);

    let count = "SELECT count(*) FROM (SELECT xid FROM thread_updates UNION ALL SELECT xid FROM user_updates) u
        WHERE u.xid >= pg_snapshot_xmax(pg_current_snapshot())";
    let foreign: i64 = sqlx::query_scalar(count).fetch_one(&world.pool).await.unwrap();
    assert!(foreign > 1_990, "{foreign}");
    let mut connection = world.pool.acquire().await.unwrap();
    assert_eq!(restored::foreign_rows(&mut connection, 10_000).await.unwrap(), foreign);
    assert_eq!(restored::renumber(&world.pool).await.unwrap(), foreign);
    assert_eq!(restored::foreign_rows(&mut connection, 10_000).await.unwrap(), 0);
    // What this cluster wrote is told as before.
    world.send(b, new, "newer").await;
    let third = poll_whole(&world, Some(second.position)).await;
    assert_eq!(third.moved, vec![(StreamId::Thread(new), 3)]);
    assert!(poll_whole(&world, Some(third.position)).await.moved.is_empty());
    // A position that the database has not reached yet is another one's.
    let ahead = poll(&world.pool, Some("900000000:900000000:".into()), ROWS).await.expect("a poll");
    assert_eq!((ahead.state, ahead.moved.len()), (PollState::Lost, 0));
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_every_ask_gets_its_own() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let (large, small) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    let mut connection = world.pool.acquire().await.unwrap();
    let text = "\u{1F525}".repeat(4_000);
    for _ in 0..5 {
        let requests: Vec<_> = (0..10).map(|_| request(a, large, &text)).collect();
        append(&mut connection, &requests).await.unwrap();
    }
    world.send_many(a, small, 20).await;
    let asked = [(large, 1), (small, 3), (large, 1), (large, 51), (large, 40), (small, 0), (Uuid::now_v7(), 0)];
    let pages = thread_pages(&world.pool, &asked, 250).await.expect("pages");
    let spans: Vec<_> =
        pages.iter().map(|page| (page.first().map(|u| u.seq), page.last().map(|u| u.seq), page.len())).collect();
    // Five messages of 16,000 bytes pass 64 KiB; a page takes what it began.
    let expected = [
        (Some(2), Some(6), 5),
        (Some(4), Some(21), 18),
        (Some(2), Some(6), 5),
        (None, None, 0),
        (Some(41), Some(45), 5),
        (Some(1), Some(21), 21),
        (None, None, 0),
    ];
    assert_eq!(spans, expected);
    let user = user_pages(&world.pool, &[(b, 1), (a, 9), (b, 0)], 1).await.expect("pages");
    assert_eq!(
        user.iter().map(|page| page.iter().map(|u| u.seq).collect()).collect::<Vec<Vec<_>>>(),
        [vec![2], vec![], vec![1]]
    );
}
