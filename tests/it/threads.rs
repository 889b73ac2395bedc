//! Threads: made, found again, bounded, changed; over the use cases and over REST.

use haus::messaging::history::open;
use haus::messaging::memberships::thread_row;
use haus::messaging::people::people;
use haus::messaging::rows::list;
use haus::messaging::threads::{NewThread, ThreadPatch, get};
use haus::protocol::codes::ErrorCode;
use haus::protocol::types::{ThreadRole, ThreadType};
use haus::updates::{StreamId, Touch, UpdateKind};
use serde_json::{Value, json as value};
use uuid::Uuid;

use crate::identity::{register, text};
use crate::people::{World, code, create, json, new_direct, new_group, patch};
use crate::support::{Database, Node};

#[tokio::test]
async fn a_group_is_told_to_everybody_in_it() {
    let world = World::new().await;
    let [a, b, c] = world.people(3).await[..] else { panic!() };
    let made = create(&world.pool, a, new_group(&[b, c, b, a])).await.expect("made");
    let row = &made.value.thread;
    assert!(made.value.is_new && row.can_send);
    assert_eq!(
        (row.kind, row.role, row.member_count, row.seq, row.no),
        (ThreadType::Group, ThreadRole::Admin, 3, 1, 0)
    );
    let kinds: Vec<_> = made.updates.iter().map(|update| (update.stream.is_user(), update.kind)).collect();
    assert_eq!(kinds[0], (false, UpdateKind::MemberJoined));
    assert_eq!(kinds[1..], [(true, UpdateKind::ThreadAdded); 3]);
    for update in &made.updates[1..] {
        let frame = json(update);
        assert_eq!((frame["up"].as_str(), frame["s"].as_str()), (Some("thread.added"), Some("user")));
        assert_eq!(frame["d"]["thread"]["seq"], 1);
        let role = if update.stream == StreamId::User(a) { "ADMIN" } else { "MEMBER" };
        assert_eq!(frame["d"]["thread"]["role"], role);
        assert_eq!(update.touch, Touch::Added { thread: row.id, seq: 1 });
    }
}

#[tokio::test]
async fn a_pair_has_one_direct_thread_under_parallel_creates() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let tasks: Vec<_> = (0..20)
        .map(|turn| {
            let (pool, me, other) = (world.pool.clone(), [a, b][turn % 2], [b, a][turn % 2]);
            tokio::spawn(async move { create(&pool, me, new_direct(other)).await.expect("made or found") })
        })
        .collect();
    let mut ids = Vec::new();
    let (mut new, mut updates) = (0, 0);
    for task in tasks {
        let made = task.await.unwrap();
        ids.push(made.value.thread.id);
        new += usize::from(made.value.is_new);
        updates += made.updates.len();
        assert_eq!(made.value.thread.role, ThreadRole::Member);
    }
    ids.dedup();
    assert_eq!((ids.len(), new, updates), (1, 1, 3));
    let row = get(&world.pool, a, ids[0]).await.expect("a member").row;
    assert_eq!(row.peer.expect("a peer").id, b);
}

#[tokio::test]
async fn who_may_make_what() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let pending = world.person_with("PENDING", "APPLICANT").await;
    let banned = world.person_with("BANNED", "MEMBER").await;
    let admin = world.person_with("ACTIVE", "ADMIN").await;
    let make = |actor, new: NewThread| create(&world.pool, actor, new);
    assert!(make(pending, new_direct(a)).await.is_ok());
    assert_eq!(code(make(pending, new_group(&[a])).await), ErrorCode::Forbidden);
    assert_eq!(code(make(banned, new_direct(a)).await), ErrorCode::Forbidden);
    assert_eq!(code(make(a, new_direct(banned)).await), ErrorCode::NotFound);
    assert_eq!(code(make(a, new_direct(Uuid::now_v7())).await), ErrorCode::NotFound);
    assert_eq!(code(make(a, new_direct(a)).await), ErrorCode::Invalid);
    assert_eq!(code(make(a, NewThread { name: Some(" ".into()), ..new_group(&[b]) }).await), ErrorCode::Invalid);
    let announce = || NewThread { kind: ThreadType::Announce, ..new_group(&[b]) };
    assert_eq!(code(make(a, announce()).await), ErrorCode::Forbidden);
    let thread = make(admin, announce()).await.expect("an ADMIN may").value.thread.id;
    assert!(!get(&world.pool, b, thread).await.expect("a member").row.can_send);
    assert_eq!(code(world.try_send(b, thread, "x").await), ErrorCode::ReadOnly);
    let house = NewThread { kind: ThreadType::House, house_id: Some(Uuid::now_v7()), ..new_group(&[b]) };
    assert_eq!(code(make(admin, house).await), ErrorCode::NotFound);
    assert_eq!(code(get(&world.pool, a, thread).await), ErrorCode::NotFound);
    assert_eq!(code(get(&world.pool, a, Uuid::now_v7()).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn changes_name_only_what_changed() {
    let world = World::new().await;
    let [a, b, stranger] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    let rename = |name: &str| ThreadPatch { name: Some(name.into()), ..ThreadPatch::default() };
    let done = patch(&world.pool, a, thread, rename(" new ")).await.expect("changed");
    assert_eq!(done.value.name.as_deref(), Some("new"));
    let frame = json(&done.updates[0]);
    assert_eq!((done.updates.len(), &frame["seq"]), (1, &value!(2)));
    assert_eq!(frame["d"], value!({"thread": {"name": "new"}, "byId": a}));
    assert!(patch(&world.pool, a, thread, rename("new")).await.expect("a repeat").updates.is_empty());
    assert_eq!(code(patch(&world.pool, b, thread, rename("x")).await), ErrorCode::Forbidden);
    assert_eq!(code(patch(&world.pool, stranger, thread, rename("x")).await), ErrorCode::NotFound);
    assert_eq!(code(patch(&world.pool, a, thread, rename(&"x".repeat(101))).await), ErrorCode::Invalid);
    let slow = ThreadPatch { slow_mode_s: Some(21_601), ..ThreadPatch::default() };
    assert_eq!(code(patch(&world.pool, a, thread, slow).await), ErrorCode::Invalid);
    let archive = ThreadPatch { is_archived: Some(true), ..ThreadPatch::default() };
    assert!(!patch(&world.pool, a, thread, archive).await.expect("archived").value.can_send);
    assert_eq!(code(world.try_send(a, thread, "x").await), ErrorCode::ThreadArchived);
    let direct = create(&world.pool, a, new_direct(b)).await.expect("made").value.thread.id;
    assert_eq!(code(patch(&world.pool, a, direct, rename("x")).await), ErrorCode::Forbidden);
}

#[tokio::test]
async fn lists_page_by_key_and_people_come_in_one_call() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let mut threads = Vec::new();
    for _ in 0..7 {
        threads.push(world.group(a, &[b]).await);
    }
    world.send(b, threads[2], "newest").await;
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = list(&world.pool, a, cursor.as_deref(), 3).await.expect("a page");
        seen.extend(page.threads.iter().map(|thread| thread.row.id));
        assert!(page.threads.len() <= 3);
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen[0], threads[2]);
    assert_eq!(seen.len(), 7);
    assert_eq!(code(list(&world.pool, a, Some("nonsense"), 3).await), ErrorCode::Invalid);

    let alone = world.person().await;
    let found = people(&world.pool, &[b, a, alone, a, Uuid::now_v7()]).await.expect("people");
    let of = |id| found.iter().find(|person| person.profile_id == id).expect("found");
    assert_eq!(found.len(), 3);
    assert_eq!((of(a).threads.len(), of(b).threads.len(), of(alone).threads.len()), (7, 7, 0));
    assert_eq!((of(a).user_seq, of(alone).user_seq), (7, 0));
    assert_eq!(of(a).threads.iter().map(|thread| thread.row.id).collect::<Vec<_>>(), seen);
    assert_eq!((of(a).threads[0].row.unread, of(b).threads[0].row.unread), (1, 0));
    assert!(thread_row(&world.pool, alone, threads[0]).await.expect("asked").is_none());
}

#[tokio::test]
async fn without_the_database_everything_is_unavailable_in_time() {
    let world = World::new().await;
    let person = world.person().await;
    // A listener that never answers: a database that hangs.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for port in [1, silent.local_addr().unwrap().port()] {
        let pool = world.database.app_pool(port);
        let (begun, ids) = (std::time::Instant::now(), [person]);
        let (read, made, opened) = tokio::join!(
            people(&pool, &ids),
            create(&pool, person, new_group(&[])),
            open(&pool, person, Uuid::now_v7(), 50)
        );
        assert_eq!(code(read), ErrorCode::Unavailable);
        assert_eq!(code(made), ErrorCode::Unavailable);
        assert_eq!(code(opened), ErrorCode::Unavailable);
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn rest_makes_threads_once_and_publishes_them() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--auto-activate=true"]).await;
    let (ana, bo, eve) = (register(&node, "ana").await, register(&node, "bo").await, register(&node, "eve").await);
    let token = |who: &Value| text(who, "accessToken").to_owned();
    let body = value!({"type": "GROUP", "name": "g", "memberIds": [bo["profile"]["id"]]});
    let post = |key: &str, body: &Value| {
        node.client
            .post(format!("{}/v1/threads", node.url))
            .bearer_auth(token(&ana))
            .header("idempotency-key", key)
            .json(body)
            .send()
    };
    let first = post("k1", &body).await.unwrap();
    assert_eq!(first.status(), 201);
    let thread: Value = first.json().await.unwrap();
    assert_eq!(node.published.take().len(), 3);
    let again = post("k1", &body).await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotency-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(again.json::<Value>().await.unwrap()["id"], thread["id"]);
    assert!(node.published.take().is_empty());
    let path = format!("/v1/threads/{}", text(&thread, "id"));
    let (status, answer) = node.call("GET", &path, Some(&token(&eve)), None).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")));
    let (status, answer) = node.call("GET", &path, Some(&token(&bo)), None).await;
    assert_eq!((status, &answer["memberCount"], &answer["canSend"]), (200, &value!(2), &value!(true)));
    let (status, answer) = node.call("PATCH", &path, Some(&token(&ana)), Some(value!({"slowModeS": -1}))).await;
    assert_eq!((status, answer["errors"][0]["path"].as_str()), (422, Some("slowModeS")));
    let (status, answer) = node.call("GET", "/v1/threads?limit=1", Some(&token(&bo)), None).await;
    assert_eq!((status, answer["items"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(answer["nextCursor"], Value::Null);
    for bad in ["/v1/threads?limit=0", "/v1/threads?limit=101", "/v1/threads/nonsense"] {
        assert_eq!(node.call("GET", bad, Some(&token(&bo)), None).await.0, 400, "{bad}");
    }
    let direct = value!({"type": "DIRECT", "memberIds": [bo["profile"]["id"]]});
    assert_eq!(node.call("POST", "/v1/threads", Some(&token(&ana)), Some(direct.clone())).await.0, 201);
    assert_eq!(node.call("POST", "/v1/threads", Some(&token(&ana)), Some(direct)).await.0, 200);
}
