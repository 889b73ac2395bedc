//! Members and stays: who sees what after leaving, coming back, being removed or coming late; the last ADMIN; sends while
//! members change.

use std::collections::HashSet;

use haus::messaging::history::{Range, history, open, snapshot};
use haus::messaging::log::{thread_pages, user_pages, visible_updates};
use haus::messaging::members::MemberPatch;
use haus::messaging::threads::{ThreadPatch, get};
use haus::protocol::codes::ErrorCode;
use haus::protocol::types::ThreadRole;
use haus::updates::{Touch, UpdateKind};
use serde_json::{Value, json as value};
use uuid::Uuid;

use crate::people::{World, add, change, code, json, one, patch, remove};

async fn seqs_seen(world: &World, actor: Uuid, thread: Uuid) -> Vec<i64> {
    let page = visible_updates(&world.pool, actor, thread, 0, 1000, 1 << 20).await.expect("visible");
    let seq = |frame: &str| serde_json::from_str::<Value>(frame).unwrap()["seq"].as_i64().unwrap();
    page.updates.iter().map(|frame| seq(frame.get())).collect()
}

async fn contents_seen(world: &World, actor: Uuid, thread: Uuid) -> Vec<String> {
    let page = history(&world.pool, actor, thread, Range::Before(i64::MAX), 100).await.expect("history");
    page.messages.into_iter().filter_map(|message| message.content).collect()
}

#[tokio::test]
async fn a_person_sees_its_stays_and_nothing_else() {
    let world = World::new().await;
    let [a, b, c] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await; // 1
    world.send(a, thread, "one").await; // 2
    let left = remove(&world.pool, b, thread, b).await.expect("leaves"); // 3
    world.send(a, thread, "two").await; // 4
    assert_eq!(code(world.try_send(b, thread, "x").await), ErrorCode::NotFound);
    add(&world.pool, a, thread, vec![b, c]).await.expect("let in"); // 5
    world.send(b, thread, "three").await; // 6
    remove(&world.pool, a, thread, b).await.expect("removed"); // 7
    world.send(a, thread, "four").await; // 8

    let left: Vec<_> = left.updates.iter().map(json).collect();
    assert_eq!(left[0]["d"], value!({"profileIds": [b], "byId": b, "reason": "left"}));
    assert_eq!(left[1]["d"], value!({"threadId": thread, "seq": 3, "reason": "left"}));

    assert_eq!(seqs_seen(&world, a, thread).await, (1..=8).collect::<Vec<_>>());
    assert_eq!(seqs_seen(&world, b, thread).await, vec![1, 2, 3, 5, 6, 7]);
    assert_eq!(seqs_seen(&world, c, thread).await, vec![5, 6, 7, 8]);
    assert_eq!(contents_seen(&world, b, thread).await, ["one", "three"]);
    assert_eq!(contents_seen(&world, c, thread).await, ["three", "four"]);
    let head = visible_updates(&world.pool, b, thread, 0, 1000, 1 << 20).await.expect("visible").head;
    assert_eq!(head, 7, "the head of a stay that ended is its end");
    assert_eq!(code(open(&world.pool, b, thread, 50).await), ErrorCode::NotFound);
    assert_eq!(code(snapshot(&world.pool, b, thread).await.map(|_| ())), ErrorCode::NotFound);
    let stranger = world.person().await;
    assert_eq!(code(history(&world.pool, stranger, thread, Range::After(0), 9).await), ErrorCode::NotFound);
    assert_eq!(code(visible_updates(&world.pool, stranger, thread, 0, 9, 1 << 20).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn newcomers_see_the_past_where_the_thread_shows_it() {
    let world = World::new().await;
    let [a, b, c] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    world.send(a, thread, "old").await;
    add(&world.pool, a, thread, vec![c]).await.expect("let in");
    assert!(contents_seen(&world, c, thread).await.is_empty());
    let show = ThreadPatch { history_for_newcomers: Some(true), ..ThreadPatch::default() };
    patch(&world.pool, a, thread, show).await.expect("changed");
    assert_eq!(contents_seen(&world, c, thread).await, ["old"]);
    assert_eq!(seqs_seen(&world, c, thread).await, vec![1, 2, 3, 4]);
    remove(&world.pool, a, thread, c).await.expect("removed"); // 5
    world.send(a, thread, "after").await;
    assert_eq!(contents_seen(&world, c, thread).await, ["old"]);
    assert_eq!(seqs_seen(&world, c, thread).await, vec![1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn user_streams_tell_additions_and_removals_in_order() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let thread = world.group(a, &[]).await;
    let added = add(&world.pool, a, thread, vec![b]).await.expect("let in");
    assert_eq!(added.value.added, vec![b]);
    assert_eq!(added.updates[1].touch, Touch::Added { thread, seq: 2 });
    let removed = remove(&world.pool, a, thread, b).await.expect("removed");
    assert!(matches!(&removed.updates[0].touch, Touch::Left(who) if who[..] == [b]));
    assert_eq!(removed.updates[1].touch, Touch::Removed { thread, seq: 3 });
    add(&world.pool, a, thread, vec![b]).await.expect("let in again");

    let pages = user_pages(&world.pool, &[(b, 0), (a, 0), (b, 2)], 100).await.expect("pages");
    let told = |page: usize| pages[page].iter().map(|update| (update.seq, update.kind)).collect::<Vec<_>>();
    use UpdateKind::{ThreadAdded, ThreadRemoved};
    assert_eq!(told(0), vec![(1, ThreadAdded), (2, ThreadRemoved), (3, ThreadAdded)]);
    assert_eq!(told(1), vec![(1, ThreadAdded)]);
    assert_eq!(told(2), vec![(3, ThreadAdded)]);
    // A stay that ended tells no more than the name; the present one is the whole row at its join.
    let ended = json(&pages[0][0]);
    assert_eq!(ended["d"]["thread"], value!({"id": thread, "type": "GROUP", "name": "a group", "seq": 2}));
    let present = json(&pages[0][2]);
    assert_eq!((&present["d"]["thread"]["seq"], &present["d"]["thread"]["canSend"]), (&value!(4), &value!(true)));
    // What was sent live is what a replay gives.
    let log = thread_pages(&world.pool, &[(thread, 1)], 100).await.expect("a page");
    assert_eq!(log[0][0].frame, added.updates[0].frame);
    assert_eq!(log[0][1].frame, removed.updates[0].frame);
    assert_eq!(pages[0][1].frame, removed.updates[1].frame);
}

#[tokio::test]
async fn the_last_admin_hands_over() {
    let world = World::new().await;
    let [a, b, c] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b, c]).await;
    let role = |role| MemberPatch { role: Some(role), nickname: None };
    assert_eq!(code(change(&world.pool, b, thread, c, role(ThreadRole::Moderator)).await), ErrorCode::Forbidden);
    assert_eq!(code(change(&world.pool, a, thread, a, role(ThreadRole::Member)).await), ErrorCode::Forbidden);
    let done = change(&world.pool, a, thread, c, role(ThreadRole::Moderator)).await.expect("changed");
    assert_eq!((done.value.role, done.updates.len()), (ThreadRole::Moderator, 1));
    assert!(change(&world.pool, a, thread, c, role(ThreadRole::Moderator)).await.expect("same").updates.is_empty());
    assert_eq!(code(remove(&world.pool, c, thread, b).await), ErrorCode::Forbidden);
    let kinds: Vec<_> =
        remove(&world.pool, a, thread, a).await.expect("leaves").updates.iter().map(|update| update.kind).collect();
    assert_eq!(kinds, [UpdateKind::MemberChanged, UpdateKind::MemberLeft, UpdateKind::ThreadRemoved]);
    assert_eq!(one(&world.pool, b, thread, c).await.expect("a member").role, ThreadRole::Admin);
    let nick = |text: Option<&str>| MemberPatch { role: None, nickname: Some(text.map(str::to_owned)) };
    let done = change(&world.pool, b, thread, b, nick(Some(" Bee "))).await.expect("own nickname");
    assert_eq!(done.value.nickname.as_deref(), Some("Bee"));
    assert_eq!(change(&world.pool, b, thread, b, nick(None)).await.expect("cleared").value.nickname, None);
    assert_eq!(code(change(&world.pool, b, thread, b, nick(Some(&"x".repeat(51)))).await), ErrorCode::Invalid);
}

#[tokio::test]
async fn limits_and_wrong_people() {
    let world = World::new().await;
    let [a, b, stranger] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    let ids = |count| (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    assert_eq!(code(add(&world.pool, a, thread, ids(257)).await), ErrorCode::Invalid);
    assert_eq!(code(add(&world.pool, a, thread, vec![]).await), ErrorCode::Invalid);
    assert_eq!(code(add(&world.pool, a, thread, ids(1)).await), ErrorCode::NotFound);
    assert_eq!(code(add(&world.pool, b, thread, vec![stranger]).await), ErrorCode::Forbidden);
    assert_eq!(code(add(&world.pool, stranger, thread, vec![stranger]).await), ErrorCode::NotFound);
    assert_eq!(code(remove(&world.pool, a, thread, stranger).await), ErrorCode::NotFound);
    assert_eq!(code(remove(&world.pool, a, Uuid::now_v7(), b).await), ErrorCode::NotFound);
    assert!(add(&world.pool, a, thread, vec![b]).await.expect("in already").updates.is_empty());
    world.database.run(format!("UPDATE threads SET member_count = 10000 WHERE id = '{thread}'")).await;
    assert_eq!(code(add(&world.pool, a, thread, vec![stranger]).await), ErrorCode::TooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_while_members_change_leave_no_hole() {
    let world = std::sync::Arc::new(World::new().await);
    let people = world.people(6).await;
    let thread = world.group(people[0], &people[1..]).await;
    let mut tasks = Vec::new();
    for person in people[..4].iter().copied() {
        let world = world.clone();
        tasks.push(tokio::spawn(async move {
            let mut sent = 0;
            for _ in 0..40 {
                sent += usize::from(world.try_send(person, thread, "x").await.is_ok());
            }
            sent
        }));
    }
    let (admin, coming, going) = (people[0], people[4], people[3]);
    let changer = world.clone();
    tasks.push(tokio::spawn(async move {
        for _ in 0..15 {
            for who in [coming, going] {
                remove(&changer.pool, admin, thread, who).await.expect("removed");
                add(&changer.pool, admin, thread, vec![who]).await.expect("let in");
            }
        }
        0
    }));
    let mut sent = 0;
    for task in tasks {
        sent += task.await.unwrap();
    }
    let mut log = Vec::new();
    loop {
        let since = log.len() as i64;
        let page = thread_pages(&world.pool, &[(thread, since)], 1000).await.expect("the log").remove(0);
        if page.is_empty() {
            break;
        }
        log.extend(page);
    }
    let seqs: Vec<u64> = log.iter().map(|update| update.seq).collect();
    assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>());
    let numbers: Vec<u64> = log
        .iter()
        .filter(|update| update.kind == UpdateKind::MessageCreated)
        .map(|update| json(update)["d"]["message"]["no"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=sent as u64).collect::<Vec<_>>());
    let row = get(&world.pool, admin, thread).await.expect("a member").row;
    assert_eq!((row.seq, row.no, row.member_count), (log.len() as i64, sent as i64, 6));

    // Nobody's message stands outside a stay of its sender.
    let mut inside: HashSet<Uuid> = people.iter().copied().collect();
    for update in &log[1..] {
        let frame = json(update);
        let ids =
            || frame["d"]["profileIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().parse().unwrap());
        match update.kind {
            UpdateKind::MemberJoined => inside.extend(ids()),
            UpdateKind::MemberLeft => ids().for_each(|id: Uuid| assert!(inside.remove(&id))),
            _ => {
                let sender: Uuid = frame["d"]["message"]["senderId"].as_str().unwrap().parse().unwrap();
                assert!(inside.contains(&sender), "seq {}", update.seq);
            }
        }
    }
}

/// Rows of `thread_members` that a call reads do not grow with the thread.
#[tokio::test]
async fn the_first_members_of_a_large_thread_are_read_alone() {
    let world = World::new().await;
    let (a, b) = (world.person().await, world.person().await);
    let thread = world.group(a, &[b]).await;
    world
        .database
        .run(format!(
            "INSERT INTO users (id, email, email_bidx) SELECT gen_random_uuid(), 'x', sha256(('y' || n)::bytea) FROM generate_series(1, 3000) n;
             INSERT INTO profiles (id, user_id, display_name, status) SELECT id, id, 'Many', 'ACTIVE' FROM users
             WHERE id NOT IN (SELECT id FROM profiles);
             INSERT INTO thread_members (thread_id, profile_id, role, join_seq, join_no, joined_at)
             SELECT '{thread}', id, CASE WHEN right(id::text, 2) = '00' THEN 'MODERATOR' ELSE 'MEMBER' END::thread_role, 1, 0,
                    now() + random() * interval '1 day'
             FROM profiles WHERE display_name = 'Many';
             ANALYZE thread_members;"
        ))
        .await;
    let mut read = world.pool.begin().await.unwrap();
    let rows: Vec<(Uuid, String)> = sqlx::query_as("SELECT profile_id, role FROM engine.members($1, $2, NULL, 100)")
        .bind(b)
        .bind(thread)
        .fetch_all(&mut *read)
        .await
        .unwrap();
    let fetched: i64 = sqlx::query_scalar(
        "SELECT (coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0))::bigint FROM pg_stat_xact_user_tables WHERE relname = 'thread_members'",
    )
    .fetch_one(&mut *read)
    .await
    .unwrap();
    assert!(fetched < 400, "{fetched} rows were read for 100");
    drop(read);
    let ordered: Vec<Uuid> = sqlx::query_scalar(
        "SELECT profile_id FROM thread_members WHERE thread_id = $1 AND left_at IS NULL
         ORDER BY profile_id <> $2, role DESC, joined_at, profile_id LIMIT 100",
    )
    .bind(thread)
    .bind(b)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ordered, "the asker, then by role and joining");
}
