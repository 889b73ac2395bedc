//! History both ways, what a screen opens, read marks, and sending over REST.

use haus::messaging::history::{History, Range, history, open, snapshot, user_snapshot};

use haus::messaging::read_marks::read;
use haus::protocol::codes::ErrorCode;
use serde_json::{Value, json as value};
use uuid::Uuid;

use crate::identity::{register, text};
use crate::people::{World, add, code, json, remove};
use crate::support::{Database, Node};

fn numbers(page: &History) -> Vec<i64> {
    page.messages.iter().map(|message| message.no).collect()
}

#[tokio::test]
async fn history_pages_both_ways_across_stays() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    world.send_many(a, thread, 30).await; // 1…30
    remove(&world.pool, a, thread, b).await.expect("removed");
    world.send_many(a, thread, 40).await; // 31…70, not for b
    add(&world.pool, a, thread, vec![b]).await.expect("let in");
    world.send_many(a, thread, 30).await; // 71…100
    let of_b: Vec<i64> = (1..=30).chain(71..=100).collect();

    for (who, all) in [(a, (1..=100).collect::<Vec<i64>>()), (b, of_b)] {
        let mut down = Vec::new();
        let mut place = i64::MAX;
        loop {
            let page = history(&world.pool, who, thread, Range::Before(place), 7).await.expect("a page");
            down.splice(0..0, numbers(&page));
            assert_eq!(page.seq, 103);
            if !page.has_more {
                break;
            }
            assert_eq!(page.messages.len(), 7);
            place = page.messages[0].no;
        }
        assert_eq!(down, all);
        let mut up = Vec::new();
        loop {
            let place = up.last().copied().unwrap_or(0);
            let page = history(&world.pool, who, thread, Range::After(place), 7).await.expect("a page");
            up.extend(numbers(&page));
            if !page.has_more {
                break;
            }
        }
        assert_eq!(up, all);
    }
    let around = |who, no| history(&world.pool, who, thread, Range::Around(no), 6);
    let page = around(a, 50).await.expect("a page");
    assert_eq!((numbers(&page), page.has_more), (vec![48, 49, 50, 51, 52, 53], true));
    assert_eq!(numbers(&around(b, 71).await.expect("a page")), vec![29, 30, 71, 72, 73, 74]);
    assert_eq!(numbers(&around(b, 50).await.expect("a page")), vec![28, 29, 30, 71, 72, 73]);
    assert_eq!(numbers(&around(a, 1).await.expect("a page")), vec![1, 2, 3, 4]);
    let all = history(&world.pool, a, thread, Range::Around(50), 100).await.expect("a page");
    assert_eq!((all.messages.len(), all.has_more), (100, false));
}

#[tokio::test]
async fn a_screen_opens_in_one_snapshot() {
    let world = World::new().await;
    let people = world.people(103).await;
    let (a, b) = (people[0], people[50]);
    let thread = world.group(a, &people[1..]).await;
    world.send_many(a, thread, 60).await;
    let opened = open(&world.pool, b, thread, 20).await.expect("opened");
    assert_eq!((opened.seq, opened.no, opened.thread.seq, opened.thread.unread), (61, 60, 61, 60));
    let numbers: Vec<i64> = opened.messages.iter().map(|message| message.no).collect();
    assert_eq!(numbers, (41..=60).collect::<Vec<_>>());
    assert_eq!((opened.members.len(), opened.members[0].profile_id, opened.members[1].profile_id), (100, b, a));
    let json = serde_json::to_value(&opened).unwrap();
    assert_eq!(json["typing"], value!({"threadId": thread, "profileIds": []}));
    let first = &json["messages"][0];
    for field in ["threadId", "seq", "mediaUrl", "replyToId", "mentions", "editedAt", "reactions", "isPinned"] {
        assert!(first.get(field).is_some(), "replies give all fields: {field}");
    }
    let snapshot = snapshot(&world.pool, b, thread).await.expect("a snapshot");
    assert_eq!((snapshot.seq, snapshot.messages.len(), snapshot.member_count), (61, 50, 103));
    let user = user_snapshot(&world.pool, b).await.expect("a snapshot");
    assert_eq!((user.seq, user.threads.len(), user.next), (1, 1, None));
}

#[tokio::test]
async fn a_read_mark_only_moves_forward() {
    let world = World::new().await;
    let [a, b, stranger] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    world.send_many(a, thread, 10).await;
    let done = read(&world.pool, b, thread, 4, None).await.expect("read");
    assert_eq!((done.value.last_read_no, done.value.unread), (4, 6));
    let state = json(&done.updates[0]);
    assert_eq!((state["up"].as_str(), &state["seq"]), (Some("thread.state"), &value!(2)));
    let d = value!({"threadId": thread, "lastReadNo": 4, "readRev": 0, "mentions": 0, "atNo": 10, "mutedUntil": null});
    assert_eq!(state["d"], d);
    for (no, expected) in [(3, 4), (4, 4)] {
        let done = read(&world.pool, b, thread, no, None).await.expect("read");
        assert_eq!((done.value.last_read_no, done.updates.len()), (expected, 0));
    }
    let done = read(&world.pool, b, thread, 9, Some(-1)).await.expect("an old revision");
    assert_eq!((done.value.last_read_no, done.updates.len()), (4, 0));
    let done = read(&world.pool, b, thread, i64::MAX, Some(i32::MAX)).await.expect("read");
    assert_eq!((done.value.last_read_no, done.value.unread, done.value.read_rev), (10, 0, 0));
    assert_eq!(code(read(&world.pool, stranger, thread, 1, None).await), ErrorCode::NotFound);
    assert_eq!(code(read(&world.pool, b, thread, -1, None).await), ErrorCode::Invalid);
}

#[tokio::test]
async fn messages_over_rest() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--auto-activate=true"]).await;
    let (ana, bo, eve) = (register(&node, "ana").await, register(&node, "bo").await, register(&node, "eve").await);
    let token = |who: &Value| text(who, "accessToken").to_owned();
    let body = value!({"type": "GROUP", "name": "g", "memberIds": [bo["profile"]["id"]]});
    let (_, thread) = node.call("POST", "/v1/threads", Some(&token(&ana)), Some(body)).await;
    let path = format!("/v1/threads/{}", text(&thread, "id"));
    let messages = format!("{path}/messages");
    let nonce = Uuid::now_v7().to_string();
    let post = |who: &Value, key: Option<&str>, body: Value| {
        let mut request = node.client.post(format!("{}{messages}", node.url)).bearer_auth(token(who)).json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (status, first) = post(&ana, Some(&nonce), value!({"content": "hi"})).await;
    assert_eq!((status, &first["seq"], &first["no"], &first["dup"]), (201, &value!(2), &value!(1), &value!(false)));
    let (status, again) = post(&ana, None, value!({"content": "hi", "nonce": nonce})).await;
    assert_eq!((status, &again["messageId"], &again["dup"]), (200, &first["messageId"], &value!(true)));
    let (status, other) = post(&ana, Some(&nonce), value!({"content": "ho"})).await;
    assert_eq!((status, other["code"].as_str()), (409, Some("nonce_conflict")));
    for (key, body) in [(None, value!({"content": "x"})), (Some("not-a-uuid"), value!({"content": "x"}))] {
        let (status, answer) = post(&ana, key, body).await;
        assert_eq!((status, answer["errors"][0]["path"].as_str()), (422, Some("nonce")), "{answer}");
    }
    let key = Uuid::now_v7().to_string();
    assert_eq!(post(&eve, Some(&key), value!({"content": "x"})).await.0, 404);
    let call = |who: &Value, method: &'static str, path: String, body: Option<Value>| {
        let (token, node) = (token(who), &node);
        async move { node.call(method, &path, Some(&token), body).await }
    };
    let (status, page) = call(&bo, "GET", messages.clone(), None).await;
    assert_eq!(
        (status, &page["messages"][0]["content"], &page["hasMore"], &page["seq"]),
        (200, &value!("hi"), &value!(false), &value!(2))
    );
    assert_eq!(call(&bo, "GET", format!("{messages}?before=5&after=1"), None).await.0, 400);
    let (status, log) = call(&bo, "GET", format!("{path}/updates?since=1&limit=10"), None).await;
    assert_eq!((status, &log["head"], &log["epoch"]), (200, &value!(2), &value!("epoch-1")));
    assert_eq!(
        (&log["updates"][0]["up"], &log["updates"][0]["d"]["message"]["content"]),
        (&value!("message.created"), &value!("hi"))
    );
    assert_eq!(call(&eve, "GET", format!("{path}/updates"), None).await.0, 404);
    let (status, read) = call(&bo, "PUT", format!("{path}/read"), Some(value!({"no": 1}))).await;
    assert_eq!((status, &read["lastReadNo"], &read["unread"]), (200, &value!(1), &value!(0)));
    let members = format!("{path}/members");
    let added = call(&ana, "POST", members.clone(), Some(value!({"profileIds": [eve["profile"]["id"]]}))).await;
    assert_eq!((added.0, &added.1["thread"]["memberCount"]), (201, &value!(3)));
    let eve_member = format!("{members}/{}", text(&eve["profile"], "id"));
    let role = call(&ana, "PATCH", eve_member.clone(), Some(value!({"role": "MODERATOR"}))).await;
    assert_eq!((role.0, &role.1["role"]), (200, &value!("MODERATOR")));
    assert_eq!(call(&bo, "DELETE", eve_member.clone(), None).await.0, 403);
    assert_eq!(call(&eve, "DELETE", eve_member.clone(), None).await.0, 204);
    assert_eq!(call(&eve, "DELETE", eve_member, None).await.0, 404);
}
