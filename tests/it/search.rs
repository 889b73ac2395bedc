//! Finding people by name, and the settings anybody may read.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};

/// Ids of the people a search finds, over all its pages of `limit`.
async fn found(cluster: &Cluster, by: &Person, q: &str, limit: usize) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/search/profiles?q={q}&limit={limit}{cursor}");
        let (status, page) = cluster.rest(0, "GET", &path, by, None).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        ids.extend(items.iter().map(|profile| profile["displayName"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_found_by_the_beginnings_of_their_names_as_far_as_one_may_see_them() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [me, ana, jean, oneil, banned, pending, private, members, blocked, blocker] = cluster.persons().await;
    let names = [
        (&me, "Zed Reader", None),
        (&ana, "Anaïs Qaz-Legrand", Some("Qazilla")),
        (&jean, "Jean-Paul Qazan", None),
        (&oneil, "Qaz O'Neil\\", None),
        (&banned, "Qaz Banned", None),
        (&pending, "Qaz Pending", None),
        (&private, "Qaz Private", None),
        (&members, "Qaz Members", None),
        (&blocked, "Qaz Blocked", None),
        (&blocker, "Qaz Blocker", None),
    ];
    for (person, name, ballroom) in names {
        sqlx::query("UPDATE profiles SET display_name = $2, ballroom_name = $3 WHERE id = $1")
            .bind(person.id)
            .bind(name)
            .bind::<Option<&str>>(ballroom)
            .execute(&cluster.world.pool)
            .await
            .unwrap();
    }
    let set =
        |table: &str, value: String, id: Uuid, key: &str| format!("UPDATE {table} SET {value} WHERE {key} = '{id}';");
    let privacy = |person: &Person, to: &str| {
        set("user_settings", format!("privacy = privacy || '{{\"profile\": \"{to}\"}}'"), person.id, "user_id")
    };
    let blocks = |by: &Person, whom: &Person| {
        set("user_settings", format!("blocked_users = ARRAY['{}']::uuid[]", whom.id), by.id, "user_id")
    };
    let settings = |person: &Person| {
        format!(
            "INSERT INTO user_settings (id, user_id) VALUES (gen_random_uuid(), '{}') ON CONFLICT DO NOTHING;",
            person.id
        )
    };
    let mut statements: String = [&me, &private, &members, &blocker].map(settings).concat();
    statements += &set("profiles", "status = 'BANNED'".into(), banned.id, "id");
    statements += &set("profiles", "status = 'PENDING'".into(), pending.id, "id");
    statements += &(privacy(&private, "private")
        + &privacy(&members, "members")
        + &blocks(&me, &blocked)
        + &blocks(&blocker, &me));
    cluster.world.database.run(statements).await;

    let all = ["Anaïs Qaz-Legrand", "Jean-Paul Qazan", "Qaz Members", "Qaz O'Neil\\", "Qaz Pending"];
    for limit in [100, 2, 1] {
        assert_eq!(found(&cluster, &me, "qaz", limit).await, all, "pages of {limit}");
    }
    for (q, whom) in [
        ("QAZI", "Anaïs Qaz-Legrand"),
        ("legr", "Anaïs Qaz-Legrand"),
        ("ana%C3%AF", "Anaïs Qaz-Legrand"),
        ("jean-p", "Jean-Paul Qazan"),
        ("qaz%20je", "Jean-Paul Qazan"),
        ("o'n", "Qaz O'Neil\\"),
        ("zed%20rea", "Zed Reader"),
    ] {
        assert_eq!(found(&cluster, &me, q, 50).await, [whom], "{q}");
    }
    for q in ["azq", "qaz%20nobody", "'", "%5C", "%25", "%26%20%7C%20!", "%3A*", "%F0%9F%94%A5", "qaz:*%20%7C%20zed"] {
        assert_eq!(found(&cluster, &me, q, 50).await, Vec::<String>::new(), "{q}");
    }
    // A PENDING reader is no member; somebody private finds oneself.
    assert!(!found(&cluster, &pending, "qaz", 50).await.contains(&"Qaz Members".to_owned()));
    assert!(found(&cluster, &private, "qaz", 50).await.contains(&"Qaz Private".to_owned()));

    for query in ["", "?q=", "?q=%20", "?q=a&limit=0", "?q=a&limit=101", "?q=a&cursor=x", "?q=a%00", "?q=a&other=1"] {
        let (status, answer) = cluster.rest(0, "GET", &format!("/v1/search/profiles{query}"), &me, None).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("invalid")), "{query}: {answer}");
    }
    let long = "a".repeat(65);
    let unknown = format!("qaz&cursor={}", Uuid::now_v7());
    for q in [long, unknown] {
        let (status, answer) = cluster.rest(0, "GET", &format!("/v1/search/profiles?q={q}"), &me, None).await;
        assert_eq!(status, 400, "{q}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_of_one_person_are_limited() {
    let cluster = cluster(1, &[]).await;
    let [ana, bea] = cluster.persons().await;
    let search = async |by: &Person| cluster.rest(0, "GET", "/v1/search/profiles?q=a", by, None).await.0;
    let mut refused = false;
    for _ in 0..400 {
        refused |= search(&ana).await == 429;
    }
    assert!(refused, "400 searches in a row were all answered");
    assert_eq!(search(&bea).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_says_whether_it_takes_people_in_and_keeps_to_it() {
    let body = json!({"email": "new@example.org", "password": "a long enough secret", "displayName": "New"});
    for (flags, mode, status) in [(vec![], "open", 201), (vec!["--registration=closed"], "closed", 403)] {
        let cluster = cluster(1, &flags).await;
        let base = format!("http://{}", cluster.nodes[0].address);
        let settings =
            cluster.http.get(format!("{base}/v1/system-settings")).send().await.unwrap().text().await.unwrap();
        let settings: Value = serde_json::from_str(&settings).unwrap();
        let value = |key: &str| {
            settings["items"].as_array().unwrap().iter().find(|one| one["key"] == key).map(|one| one["value"].clone())
        };
        assert_eq!((value("registration.mode"), value("site.name").is_some()), (Some(json!(mode)), true), "{settings}");
        assert_eq!(settings["nextCursor"], Value::Null);
        let answer = cluster.http.post(format!("{base}/v1/auth/register")).json(&body).send().await.unwrap();
        let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(got, status, "{text}");
        assert!(status == 201 || text.contains("\"forbidden\"") && text.contains("registration is closed"), "{text}");
    }
}
