//! Blocks and what is hidden: one rule behind every door, and answers that tell nobody what is not theirs to know.

use haus::protocol::codes::ErrorCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};
use crate::people::{World, add, code, create, new_direct, new_group};

async fn settings(world: &World, profile: Uuid, privacy: Value, blocked: &[Uuid]) {
    sqlx::query(
        "INSERT INTO user_settings (id, user_id, privacy, blocked_users) VALUES (gen_random_uuid(), $1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET privacy = excluded.privacy, blocked_users = excluded.blocked_users",
    )
    .bind(profile)
    .bind(privacy)
    .bind(blocked)
    .execute(&world.database.owner)
    .await
    .unwrap();
}

async fn suspend(world: &World, profile: Uuid, status: &str) {
    world.database.run(format!("UPDATE profiles SET status = '{status}' WHERE id = '{profile}'")).await;
}

#[tokio::test]
async fn a_hidden_suspension_is_told_to_nobody() {
    let world = World::new().await;
    let [actor, person] = world.people(2).await[..] else { panic!() };
    let admin = world.person_with("ACTIVE", "ADMIN").await;
    let group = world.group(actor, &[]).await;
    let refusals = async |by: Uuid| {
        let direct =
            create(&world.pool, by, new_direct(person)).await.err().map(|refusal| (refusal.code, refusal.message));
        let grouped =
            create(&world.pool, by, new_group(&[person])).await.err().map(|refusal| (refusal.code, refusal.message));
        (direct, grouped)
    };
    let added = async || {
        add(&world.pool, actor, group, vec![person]).await.err().map(|refusal| (refusal.code, refusal.message))
    };
    // Who does not take messages, and is ACTIVE: what all who hide are to look like.
    settings(&world, person, json!({"messages": "nobody", "profile": "private"}), &[]).await;
    let (expected, expected_added) = (refusals(actor).await, added().await);
    assert_eq!(expected.0.as_ref().map(|(code, _)| *code), Some(ErrorCode::Blocked));
    for status in ["SUSPENDED", "BANNED"] {
        suspend(&world, person, status).await;
        for privacy in [
            json!({"messages": "nobody", "profile": "private"}),
            json!({"messages": "nobody", "profile": "public"}),
            json!({"messages": "public", "profile": "private"}),
            json!({"messages": "friends", "profile": "followers"}),
        ] {
            settings(&world, person, privacy.clone(), &[]).await;
            assert_eq!(refusals(actor).await, expected, "{status} {privacy}");
            assert_eq!(added().await, expected_added, "{status} {privacy}");
        }
        // To whom the status is shown anyway, it is named.
        settings(&world, person, json!({"messages": "public", "profile": "members"}), &[]).await;
        assert_eq!(refusals(actor).await.0.map(|(code, _)| code), Some(ErrorCode::NotFound));
        settings(&world, person, json!({"messages": "public", "profile": "private"}), &[]).await;
        assert_eq!(refusals(admin).await.0.map(|(code, _)| code), Some(ErrorCode::NotFound));
        let pending = world.person_with("PENDING", "APPLICANT").await;
        settings(&world, person, json!({"messages": "public", "profile": "members"}), &[]).await;
        assert_eq!(refusals(pending).await.0, expected.0, "the status is for members");
    }
    assert_eq!(
        code(create(&world.pool, actor, new_direct(Uuid::now_v7())).await),
        ErrorCode::NotFound,
        "nobody is there"
    );
}

#[tokio::test]
async fn a_block_counts_at_every_door_both_ways_and_ends_with_its_row() {
    let world = World::new().await;
    let [a, b, other] = world.people(3).await[..] else { panic!() };
    let before = create(&world.pool, a, new_direct(b)).await.unwrap().value.thread.id;
    let group = world.group(a, &[b]).await;
    let elsewhere = world.group(a, &[]).await;
    world.send(b, before, "hello").await;
    let repeated = crate::people::request(b, before, "again");
    let public = json!({"messages": "public"});
    settings(&world, a, public.clone(), &[b]).await;
    for (by, whom) in [(a, b), (b, a)] {
        assert_eq!(code(create(&world.pool, by, new_group(&[whom])).await), ErrorCode::Blocked);
        assert_eq!(code(world.try_send(by, before, "x").await), ErrorCode::Blocked, "the DIRECT thread is closed");
        world.send(by, group, "others are there").await;
    }
    assert_eq!(code(add(&world.pool, a, elsewhere, vec![b]).await), ErrorCode::Blocked);
    assert_eq!(code(add(&world.pool, a, elsewhere, vec![b, other]).await), ErrorCode::Blocked);
    add(&world.pool, a, elsewhere, vec![other]).await.unwrap();
    // A committed send is answered whatever came since.
    settings(&world, a, public.clone(), &[]).await;
    let mut connection = world.pool.acquire().await.unwrap();
    let (first, _) = haus::messaging::send::append(&mut connection, std::slice::from_ref(&repeated)).await.unwrap();
    settings(&world, b, public.clone(), &[a, other]).await;
    let (again, _) = haus::messaging::send::append(&mut connection, std::slice::from_ref(&repeated)).await.unwrap();
    assert_eq!(first[0].as_ref().unwrap().message_id, again[0].as_ref().unwrap().message_id);
    // Both: one that is taken back leaves the other.
    settings(&world, a, public.clone(), &[b]).await;
    settings(&world, b, public.clone(), &[]).await;
    assert_eq!(code(world.try_send(b, before, "x").await), ErrorCode::Blocked);
    world.database.run(format!("DELETE FROM user_settings WHERE user_id = '{a}'")).await;
    world.send(b, before, "well then").await;
    let fresh = world.person().await;
    settings(&world, fresh, public, &[b]).await;
    assert_eq!(code(create(&world.pool, b, new_direct(fresh)).await), ErrorCode::Blocked, "no new thread");
}

/// Runs `first` in a transaction that stays open while `second` is begun, which must wait for it.
async fn cross(world: &World, first: String, second: String) {
    let mut open = world.database.owner.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(first)).execute(&mut *open).await.unwrap();
    let owner = world.database.owner.clone();
    let waiting = tokio::spawn(async move { sqlx::raw_sql(sqlx::AssertSqlSafe(second)).execute(&owner).await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "the second did not wait for the first");
    open.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
}

fn set_blocks(profile: Uuid, blocked: &[Uuid]) -> String {
    let ids: Vec<String> = blocked.iter().map(Uuid::to_string).collect();
    format!("UPDATE user_settings SET blocked_users = '{{{}}}' WHERE user_id = '{profile}'", ids.join(","))
}

#[tokio::test]
async fn blocks_that_cross_each_other_or_a_new_thread_leave_no_thread_the_wrong_way() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let thread = create(&world.pool, a, new_direct(b)).await.unwrap().value.thread.id;
    let public = json!({"messages": "public"});
    for (one, other) in [(a, b), (b, a)] {
        settings(&world, one, public.clone(), &[other]).await;
    }
    // Both take it back at once: open.
    cross(&world, set_blocks(a, &[]), set_blocks(b, &[])).await;
    world.send(a, thread, "well again").await;
    // One blocks while the other takes back: closed.
    settings(&world, b, public.clone(), &[a]).await;
    cross(&world, set_blocks(b, &[]), set_blocks(a, &[b])).await;
    assert_eq!(code(world.try_send(b, thread, "x").await), ErrorCode::Blocked);
    // A thread that is being made while one blocks the other: closed.
    let [c, d] = world.people(2).await[..] else { panic!() };
    for person in [c, d] {
        settings(&world, person, public.clone(), &[]).await;
    }
    let (id, key) = (Uuid::now_v7(), format!("{}:{}", c.min(d), c.max(d)));
    let making = format!(
        "SELECT code FROM engine.create_thread('{id}', 'DIRECT', NULL, NULL, NULL, '{c}', ARRAY['{c}', '{d}']::uuid[], '{key}', 2000)"
    );
    cross(&world, making, set_blocks(d, &[c])).await;
    assert_eq!(code(world.try_send(c, id, "x").await), ErrorCode::Blocked);
}

async fn seen(cluster: &Cluster, by: &Person, whom: &Person) -> [Value; 2] {
    let (status, rest) = cluster.rest(0, "GET", &format!("/v1/profiles/{}", whom.id), by, None).await;
    assert_eq!(status, 200, "{rest}");
    let mut socket = cluster.live(0, by).await;
    let found = socket.call("profiles.get", json!({"ids": [whom.id]})).await.unwrap();
    [rest, found["profiles"][0].clone()]
}

#[tokio::test]
async fn a_profile_is_closed_between_people_who_are_apart() {
    let cluster = cluster(1, &[]).await;
    let [a, b, c] = cluster.persons().await;
    let admin = cluster.sign_in(cluster.world.person_with("ACTIVE", "ADMIN").await, 600_000).await;
    cluster
        .world
        .database
        .run("UPDATE profiles SET bio = 'about me', pronouns = 'they', display_name = 'Kiki'".into())
        .await;
    settings(&cluster.world, a.id, json!({}), &[b.id, admin.id]).await;
    for (by, whom, open) in [(&b, &a, false), (&a, &b, false), (&c, &a, true), (&a, &a, true), (&admin, &a, true)] {
        for profile in seen(&cluster, by, whom).await {
            assert_eq!(profile["displayName"], "Kiki", "who it is, is told");
            assert_eq!((profile["bio"].is_null(), profile["status"].is_null()), (!open, !open), "{profile}");
        }
    }
    // Who may no longer act for the platform reads as anybody does.
    for status in ["SUSPENDED", "PENDING"] {
        suspend(&cluster.world, admin.id, status).await;
        // What a node knows of who asks is 2 s old at most; the reader of profiles asks anew.
        let (_, profile) = cluster.rest(0, "GET", &format!("/v1/profiles/{}", a.id), &admin, None).await;
        assert!(profile["bio"].is_null() && profile["displayName"] == "Kiki", "{status}: {profile}");
    }
    for (by, whom, found) in [(&b, &a, false), (&a, &b, false), (&c, &a, true)] {
        let (_, list) = cluster.rest(0, "GET", "/v1/search/profiles?q=kiki", by, None).await;
        let ids = list["items"].as_array().unwrap().iter().filter_map(|one| one["id"].as_str());
        assert_eq!(ids.into_iter().any(|id| id == whom.id.to_string()), found);
    }
}
