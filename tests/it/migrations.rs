//! Ways back and up again with rows in the tables: what is not asked for is not destroyed, and what people chose stays theirs.

use std::collections::BTreeMap;

use haus::store::migrate::{self, MIGRATIONS, SchemaState, Target};
use uuid::Uuid;

use crate::keys::{FIRST, Program, done};
use crate::people::World;
use crate::support::Database;

/// Checksum of 0008 as it was first released.
const FIRST_0008: &str = "1f61f95a6dc242e7d12df35fc2df4961c929faf19a992d67ebe1a2ebffaca74d";

async fn messages_from(world: &World, profile: Uuid) -> String {
    let query = sqlx::query_scalar("SELECT privacy ->> 'messages' FROM user_settings WHERE user_id = $1");
    query.bind(profile).fetch_one(&world.database.owner).await.unwrap()
}

async fn settings(world: &World, profile: Uuid, chosen: Option<&str>) {
    let chosen = chosen.map_or("DEFAULT".to_owned(), |messages| format!("'{{\"messages\": \"{messages}\"}}'"));
    let row = format!("gen_random_uuid(), '{profile}', {chosen}");
    world.database.run(format!("INSERT INTO user_settings (id, user_id, privacy) VALUES ({row})")).await;
}

#[tokio::test]
async fn whom_people_take_messages_from_is_what_they_chose_after_a_way_back_too() {
    let world = World::new().await;
    let [friends, public, nobody, between] = world.people(4).await[..] else { panic!() };
    for (profile, chosen) in [(friends, "friends"), (public, "public"), (nobody, "nobody")] {
        settings(&world, profile, Some(chosen)).await;
    }
    for round in 0..2 {
        let lost = migrate::would_lose(&mut world.database.owner.acquire().await.unwrap(), Target::Version(7)).await;
        assert_eq!(lost.unwrap(), Vec::<String>::new());
        world.database.migrate(Target::Version(7)).await;
        assert_eq!(messages_from(&world, friends).await, "friends");
        assert_eq!(messages_from(&world, public).await, "public", "the release before does not read it");
        // Who comes meanwhile has that release's default, and did not choose it.
        let late = if round == 0 { between } else { world.person().await };
        settings(&world, late, None).await;
        assert_eq!(messages_from(&world, late).await, "friends");
        world.database.migrate(Target::Head).await;
        assert_eq!(messages_from(&world, friends).await, "friends", "strangers may write to who had said no");
        assert_eq!(messages_from(&world, nobody).await, "nobody");
        assert_eq!(messages_from(&world, late).await, "public");
    }
    let newcomer = world.person().await;
    settings(&world, newcomer, None).await;
    assert_eq!(messages_from(&world, newcomer).await, "public");
}

#[tokio::test]
async fn a_reworded_step_is_known_to_databases_of_every_release() {
    let database = Database::new().await;
    let mut owner = database.owner.acquire().await.unwrap();
    let kept: String = sqlx::query_scalar("SELECT checksum FROM schema_migrations WHERE version = 8")
        .fetch_one(&mut *owner)
        .await
        .unwrap();
    assert_eq!(kept, FIRST_0008, "an earlier release would refuse this database");
    assert_eq!(migrate::state_on(&mut owner).await.unwrap(), SchemaState::AtHead);
}

/// A digest of every row of every table but the runner's.
async fn contents(database: &Database) -> BTreeMap<String, String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
         AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname NOT LIKE 'schema_%' AND c.relname <> 'root_keys'",
    )
    .fetch_all(&database.owner)
    .await
    .unwrap();
    let mut found = BTreeMap::new();
    for table in tables {
        let query = format!(
            "SELECT md5(string_agg(r::text, E'\n' ORDER BY r::text)) FROM {table} t, LATERAL (SELECT to_jsonb(t) - 'updated_at') x (r)"
        );
        let digest: Option<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&database.owner).await.unwrap();
        found.insert(table, digest.unwrap_or_default());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_names_no_loss_loses_nothing() {
    let database = Database::new().await;
    let program = Program::on(&database);
    done(&program.run(&["seed"], &[("HAUS_SECRET_KEY", FIRST)]));
    database.run("UPDATE user_settings SET privacy = privacy || '{\"messages\": \"friends\"}' WHERE user_id IN (SELECT id FROM profiles LIMIT 3)".into()).await;
    database.run("UPDATE profiles SET house_id = (SELECT id FROM houses LIMIT 1) WHERE id IN (SELECT id FROM profiles LIMIT 2)".into()).await;
    let (mut kept, mut named) = (0, 0);
    for steps in 1..=MIGRATIONS.len() as u32 {
        let target = Target::Down(steps);
        let lost = migrate::would_lose(&mut database.owner.acquire().await.unwrap(), target).await.unwrap();
        if !lost.is_empty() {
            named += 1;
            continue;
        }
        kept += 1;
        let before = contents(&database).await;
        database.migrate(target).await;
        database.migrate(Target::Head).await;
        assert_eq!(contents(&database).await, before, "{steps} steps back and up again");
    }
    assert!(kept >= 4 && named >= 2, "{kept} ways back without a loss, {named} with");
}
