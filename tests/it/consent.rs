//! Who may put whom into a thread: consent, the cap on threads, standing, the house of an ANNOUNCE. And that a change whose
//! answer fails has not happened.

use haus::messaging::threads::NewThread;
use haus::protocol::codes::ErrorCode;
use haus::protocol::types::ThreadType;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};
use crate::people::{World, add, change, code, create, create_within, new_direct, new_group, patch, remove};
use haus::messaging::members::MemberPatch;
use haus::messaging::threads::ThreadPatch;

async fn set(world: &World, profile: Uuid, column: &str, value: &str) {
    world.database.run(format!("UPDATE profiles SET {column} = {value} WHERE id = '{profile}'")).await;
}

async fn house(world: &World, members: &[(Uuid, &str)]) -> Uuid {
    let id = Uuid::now_v7();
    world.database.run(format!("INSERT INTO houses (id, name, founded) VALUES ('{id}', 'House {id}', now())")).await;
    for (member, role) in members {
        let row = format!("gen_random_uuid(), '{member}', '{id}', '{role}'");
        world.database.run(format!("INSERT INTO house_members (id, profile_id, house_id, role) VALUES ({row})")).await;
    }
    id
}

async fn takes_messages_from(world: &World, profile: Uuid, who: &str) {
    world
        .database
        .run(format!(
            "INSERT INTO user_settings (id, user_id, privacy) VALUES (gen_random_uuid(), '{profile}', '{{\"messages\": \"{who}\"}}')
             ON CONFLICT (user_id) DO UPDATE SET privacy = excluded.privacy"
        ))
        .await;
}

#[tokio::test]
async fn privacy_of_messages_governs_direct_threads_and_groups() {
    let world = World::new().await;
    let [a, b, mate] = world.people(3).await[..] else { panic!() };
    let group = world.group(a, &[]).await;
    let before = create(&world.pool, a, new_direct(b)).await.expect("public is the default").value.thread.id;
    house(&world, &[(b, "MEMBER"), (mate, "CHILD")]).await;
    for (who, mate_may) in [("friends", true), ("followers", false), ("nobody", false)] {
        takes_messages_from(&world, b, who).await;
        let other = world.person().await;
        assert_eq!(code(create(&world.pool, other, new_direct(b)).await), ErrorCode::Blocked, "{who}");
        assert_eq!(code(create(&world.pool, other, new_group(&[a, b])).await), ErrorCode::Blocked, "{who}");
        assert_eq!(code(add(&world.pool, a, group, vec![b]).await), ErrorCode::Blocked, "{who}");
        let mates = create(&world.pool, mate, new_group(&[b])).await;
        assert_eq!(mates.is_ok(), mate_may, "{who}");
        // What is there goes on, and one's own doors are open.
        let again = create(&world.pool, a, new_direct(b)).await.expect("found again");
        assert!(!again.value.is_new && again.value.thread.id == before);
        world.send(a, before, "still").await;
        create(&world.pool, b, new_direct(other)).await.expect("the one who asks");
    }
    takes_messages_from(&world, b, "public").await;
    add(&world.pool, a, group, vec![b]).await.expect("let in");
}

#[tokio::test]
async fn nobody_is_in_more_threads_than_the_cap_however_many_ask_at_once() {
    let world = World::new().await;
    let [victim, other] = world.people(2).await[..] else { panic!() };
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = world.pool.clone();
            tokio::spawn(async move { create_within(&pool, other, new_group(&[victim]), 5).await })
        })
        .collect();
    let (mut made, mut refused) = (Vec::new(), 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(done) => made.push(done.value.thread.id),
            Err(refusal) => {
                assert_eq!(refusal.code, ErrorCode::TooLarge);
                assert!(refusal.message.contains("HAUS_THREADS_PER_PROFILE"), "{}", refusal.message);
                refused += 1;
            }
        }
    }
    assert_eq!((made.len(), refused), (5, 3));
    remove(&world.pool, victim, made[0], victim).await.expect("left");
    let third = world.person().await;
    create_within(&world.pool, third, new_direct(victim), 5).await.expect("a place came free");
    assert_eq!(code(create_within(&world.pool, third, new_group(&[victim]), 5).await), ErrorCode::TooLarge);
    let alone = create_within(&world.pool, third, new_group(&[]), 5).await;
    assert!(alone.is_ok(), "others are not concerned");
}

#[tokio::test]
async fn the_heir_of_the_last_admin_is_active() {
    let world = World::new().await;
    let [a, late] = world.people(2).await[..] else { panic!() };
    let [pending, suspended] =
        [world.person_with("PENDING", "APPLICANT").await, world.person_with("ACTIVE", "MEMBER").await];
    let thread = world.group(a, &[pending, suspended]).await;
    let moderator = MemberPatch { role: Some(haus::protocol::types::ThreadRole::Moderator), ..MemberPatch::default() };
    change(&world.pool, a, thread, suspended, moderator).await.expect("a MODERATOR");
    add(&world.pool, a, thread, vec![late]).await.expect("let in");
    set(&world, suspended, "status", "'SUSPENDED'").await;
    remove(&world.pool, a, thread, a).await.expect("left");
    let roles: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT profile_id, role::text FROM thread_members WHERE thread_id = $1 AND left_at IS NULL AND role = 'ADMIN'",
    )
    .bind(thread)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(roles, [(late, "ADMIN".to_owned())]);
}

#[tokio::test]
async fn who_waits_for_approval_or_is_suspended_manages_no_thread() {
    let world = World::new().await;
    let [a, b, c] = world.people(3).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    for status in ["PENDING", "SUSPENDED"] {
        set(&world, a, "status", &format!("'{status}'")).await;
        assert_eq!(code(add(&world.pool, a, thread, vec![c]).await), ErrorCode::Forbidden);
        assert_eq!(code(remove(&world.pool, a, thread, b).await), ErrorCode::Forbidden);
        let name = ThreadPatch { name: Some("mine".into()), ..ThreadPatch::default() };
        assert_eq!(code(patch(&world.pool, a, thread, name).await), ErrorCode::Forbidden);
    }
    assert_eq!(code(remove(&world.pool, a, thread, a).await), ErrorCode::Forbidden, "SUSPENDED: every write");
    set(&world, a, "status", "'PENDING'").await;
    let nickname = MemberPatch { nickname: Some(Some("me".into())), ..MemberPatch::default() };
    change(&world.pool, a, thread, a, nickname).await.expect("the own nickname");
    remove(&world.pool, a, thread, a).await.expect("leaving is for everybody who may write");
}

#[tokio::test]
async fn a_suspension_that_is_over_is_over_everywhere() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    let suspend = |until: &str| format!("'SUSPENDED', suspended_until = {until}");
    set(&world, b, "status", &suspend("now() + interval '1 hour'")).await;
    assert_eq!(code(world.try_send(b, thread, "x").await), ErrorCode::Forbidden);
    assert_eq!(code(create(&world.pool, a, new_direct(b)).await), ErrorCode::NotFound);
    set(&world, b, "status", &suspend("now() - interval '1 second'")).await;
    world.send(b, thread, "back").await;
    let reply = haus::messaging::read_marks::read(&world.pool, b, thread, 1, None).await;
    assert!(reply.is_ok());
    let row = haus::messaging::threads::get(&world.pool, b, thread).await.expect("a member").row;
    assert!(row.can_send);
    create(&world.pool, a, new_direct(b)).await.expect("others may write to them");
    create(&world.pool, b, new_group(&[a])).await.expect("ACTIVE again");
    // Who was an applicant is one still.
    let applicant = world.person_with("PENDING", "APPLICANT").await;
    set(&world, applicant, "status", &suspend("now() - interval '1 second'")).await;
    create(&world.pool, applicant, new_direct(a)).await.expect("may write");
    assert_eq!(code(create(&world.pool, applicant, new_group(&[a])).await), ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_node_writes_down_that_suspensions_are_over() {
    let world = World::new().await;
    let [over, running, endless] = world.people(3).await[..] else { panic!() };
    let applicant = world.person_with("PENDING", "APPLICANT").await;
    for (who, until) in [
        (over, "now() - interval '1 second'"),
        (applicant, "now() - interval '1 day'"),
        (running, "now() + interval '1 hour'"),
        (endless, "NULL"),
    ] {
        set(&world, who, "status", &format!("'SUSPENDED', suspended_until = {until}")).await;
    }
    let banned = world.person_with("BANNED", "MEMBER").await;
    let cluster = Cluster::on(world.database, 1, &[]).await;
    let now = async |who: Uuid| -> (String, bool) {
        sqlx::query_as("SELECT status::text, suspended_until IS NULL FROM profiles WHERE id = $1")
            .bind(who)
            .fetch_one(&cluster.world.pool)
            .await
            .unwrap()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while now(over).await.0 == "SUSPENDED" {
        assert!(std::time::Instant::now() < deadline, "the job does not run");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(now(over).await, ("ACTIVE".to_owned(), true));
    assert_eq!(now(applicant).await, ("PENDING".to_owned(), true), "an applicant waits for approval still");
    assert_eq!(now(running).await, ("SUSPENDED".to_owned(), false));
    assert_eq!(now(endless).await, ("SUSPENDED".to_owned(), true), "without an end it has none");
    assert_eq!(now(banned).await.0, "BANNED");
}

#[tokio::test]
async fn two_house_threads_at_once_are_one_and_a_conflict() {
    let world = World::new().await;
    let admin = world.person_with("ACTIVE", "ADMIN").await;
    for _ in 0..6 {
        let id = house(&world, &[]).await;
        let new = || NewThread { kind: ThreadType::House, house_id: Some(id), ..new_group(&[]) };
        let (one, other) = tokio::join!(create(&world.pool, admin, new()), create(&world.pool, admin, new()));
        let refused = [one.err(), other.err()].into_iter().flatten().map(|refusal| refusal.code).collect::<Vec<_>>();
        assert_eq!(refused, [ErrorCode::Conflict]);
    }
}

#[tokio::test]
async fn leaders_announce_in_their_own_house_alone() {
    let world = World::new().await;
    let [leader, member, mother, stranger] = world.people(4).await[..] else { panic!() };
    let id = house(&world, &[(leader, "LEADER"), (member, "MEMBER"), (mother, "MOTHER")]).await;
    let new = |house_id, others: &[Uuid]| NewThread { kind: ThreadType::Announce, house_id, ..new_group(others) };
    takes_messages_from(&world, member, "nobody").await;
    create(&world.pool, leader, new(Some(id), &[member])).await.expect("one's own house is announced to");
    create(&world.pool, mother, new(Some(id), &[])).await.expect("above LEADER");
    assert_eq!(code(create(&world.pool, member, new(Some(id), &[])).await), ErrorCode::Forbidden);
    assert_eq!(code(create(&world.pool, leader, new(None, &[member])).await), ErrorCode::Forbidden);
    let elsewhere = house(&world, &[]).await;
    assert_eq!(code(create(&world.pool, leader, new(Some(elsewhere), &[])).await), ErrorCode::Forbidden);
    takes_messages_from(&world, stranger, "nobody").await;
    assert_eq!(code(create(&world.pool, leader, new(Some(id), &[stranger])).await), ErrorCode::Blocked);
}

async fn call(cluster: &Cluster, who: &Person, method: &str, path: &str, body: Value) -> (u16, Value) {
    let answer = cluster
        .http
        .request(method.parse().unwrap(), format!("http://{}{path}", cluster.nodes[0].address))
        .bearer_auth(&who.token)
        .header("Idempotency-Key", "one-key")
        .json(&body)
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_change_whose_answer_cannot_be_made_has_not_happened() {
    let cluster = cluster(1, &[]).await;
    let [ana, ben] = cluster.persons().await;
    let group = json!({"type": "GROUP", "name": "once", "memberIds": [ben.id]});
    let (_, thread) =
        call(&cluster, &ana, "POST", "/v1/threads", json!({"type": "GROUP", "name": "x", "memberIds": []})).await;
    let members = format!("/v1/threads/{}/members", thread["id"].as_str().unwrap());
    cluster.world.database.run("ALTER FUNCTION engine.member_rows(uuid[], uuid[]) RENAME TO away".into()).await;
    cluster.world.database.run("DELETE FROM idempotency_keys".into()).await;
    let count = "SELECT (SELECT count(*) FROM threads) + (SELECT count(*) FROM thread_updates) + (SELECT count(*) FROM user_updates)";
    let rows = || async { sqlx::query_scalar::<_, i64>(count).fetch_one(&cluster.world.pool).await.unwrap() };
    let before = rows().await;
    assert_eq!(call(&cluster, &ana, "POST", "/v1/threads", group.clone()).await.0, 500);
    assert_eq!(call(&cluster, &ana, "POST", &members, json!({"profileIds": [ben.id]})).await.0, 500);
    let own = format!("{members}/{}", ana.id);
    let path = members.trim_end_matches("/members");
    assert_eq!(call(&cluster, &ana, "PATCH", path, json!({"name": "y"})).await.0, 500);
    assert_eq!(call(&cluster, &ana, "PATCH", &own, json!({"nickname": "y"})).await.0, 200, "needs no such read");
    assert_eq!(rows().await, before + 1, "the nickname alone");
    cluster.world.database.run("ALTER FUNCTION engine.away(uuid[], uuid[]) RENAME TO member_rows".into()).await;
    let (status, made) = call(&cluster, &ana, "POST", "/v1/threads", group.clone()).await;
    assert_eq!(status, 201);
    let (status, again) = call(&cluster, &ana, "POST", "/v1/threads", group).await;
    assert_eq!((status, &again["id"]), (201, &made["id"]), "the key has the first answer");
    assert_eq!(call(&cluster, &ana, "POST", &members, json!({"profileIds": [ben.id]})).await.0, 201);
}

#[tokio::test]
async fn settings_are_read_and_privacy_is_changed_and_profiles_have_one_reader() {
    let cluster = cluster(1, &[]).await;
    let url = |path: &str| format!("http://{}{path}", cluster.nodes[0].address);
    let register = |name: &'static str| {
        let body = json!({"email": format!("{name}@consent.example"), "password": "a long enough secret 7", "displayName": name});
        let request = cluster.http.post(url("/v1/auth/register")).json(&body);
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let (ana, ben) = (register("Ana").await, register("Ben").await);
    let token = |who: &Value| who["accessToken"].as_str().unwrap().to_owned();
    let get = |who: &Value, path: &str| {
        let request = cluster.http.get(url(path)).bearer_auth(token(who));
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let send = |who: &Value, method: &str, path: &str, body: Value| {
        let request = cluster.http.request(method.parse().unwrap(), url(path)).bearer_auth(token(who)).json(&body);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or(Value::Null))
        }
    };
    let all_public = json!({"profile": "public", "posts": "public", "messages": "public"});
    assert_eq!(get(&ben, "/v1/settings").await["privacy"], all_public);
    assert_eq!(send(&ben, "PATCH", "/v1/me", json!({"bio": "quiet", "pronouns": "they"})).await.0, 200);
    let shut = json!({"privacy": {"messages": "nobody", "profile": "private"}});
    let (status, settings) = send(&ben, "PATCH", "/v1/settings", shut).await;
    assert_eq!(
        (status, &settings["privacy"]["messages"], &settings["privacy"]["posts"]),
        (200, &json!("nobody"), &json!("public"))
    );
    for bad in [
        json!({"privacy": {"messages": "everybody"}}),
        json!({"theme": "dark"}),
        json!({"privacy": {"friends": "public"}}),
    ] {
        assert_eq!(send(&ben, "PATCH", "/v1/settings", bad).await.0, 422);
    }
    let direct = json!({"type": "DIRECT", "memberIds": [ben["profile"]["id"]]});
    let (status, refused) = send(&ana, "POST", "/v1/threads", direct).await;
    assert_eq!((status, &refused["code"]), (403, &json!("blocked")));
    let over_rest = get(&ana, &format!("/v1/profiles/{}", ben["profile"]["id"].as_str().unwrap())).await;
    assert_eq!(
        (&over_rest["bio"], &over_rest["pronouns"], &over_rest["status"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let mut socket = cluster.connect(0).await;
    socket.auth(&token(&ana)).await;
    let found =
        socket.call("profiles.get", json!({"ids": [ben["profile"]["id"], ana["profile"]["id"]]})).await.unwrap();
    for profile in found["profiles"].as_array().unwrap() {
        let is_ben = profile["id"] == ben["profile"]["id"];
        assert_eq!(profile["status"].is_null(), is_ben);
        if is_ben {
            assert_eq!(profile, &over_rest, "both doors show the same");
        }
    }
}
