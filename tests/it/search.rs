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
    // Accents and letters of their own are found by plain ones, and the other way round.
    for (q, whom) in [("anais", "Anaïs Qaz-Legrand"), ("QAZ%C3%8Fll", "Anaïs Qaz-Legrand"), ("z%C3%A9d", "Zed Reader")]
    {
        assert_eq!(found(&cluster, &me, q, 50).await, [whom], "{q}");
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

async fn rename(cluster: &Cluster, person: &Person, name: &str) {
    let query = sqlx::query("UPDATE profiles SET display_name = $2 WHERE id = $1").bind(person.id).bind(name);
    query.execute(&cluster.world.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_found_without_their_accents() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [me, other] = cluster.persons().await;
    for (name, searches) in [
        ("Zoë", &["zoe", "Zoë", "ZOE\u{308}"][..]),
        ("José Ñandú", &["jose", "nandu", "JOSÉ", "ñan"]),
        ("Søren Ærø", &["soren", "aero", "sør", "ærø"]),
        ("Łukasz Đorđe", &["lukasz", "dorde", "łuk"]),
        ("Jürgen Groß", &["jurgen", "gross", "GROẞ", "groß"]),
        ("Nguyễn Thị", &["nguyen", "thi", "nguyễn"]),
        ("Пётр Йовович", &["петр", "ПЁТР", "йов"]),
        ("İpek Şahin Işık", &["ipek", "sahin", "isik"]),
        ("Ｆｕｌｌ ﬁne", &["full", "fine"]),
        ("김철수", &["김", "김철"]),
        ("がく", &["がく"]),
        ("שָׁלוֹם", &["שלום"]),
    ] {
        rename(&cluster, &other, name).await;
        for q in searches {
            let encoded: String = q.bytes().map(|byte| format!("%{byte:02X}")).collect();
            assert_eq!(found(&cluster, &me, &encoded, 10).await, [name], "{q}");
        }
    }
    rename(&cluster, &other, "がく").await;
    assert!(found(&cluster, &me, "%E3%81%8B", 10).await.is_empty(), "か is another sound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_name_ends_no_search() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [me, long, after] = cluster.persons().await;
    // The character that compatibility takes apart into the most: eighteen, with 33 bytes.
    rename(&cluster, &long, &format!("wix {}", "\u{fdfa}".repeat(76))).await;
    rename(&cluster, &after, "wix ﷻ").await;
    rename(&cluster, &me, "wix 한").await;
    assert_eq!(found(&cluster, &me, "wix", 1).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_search_go_on_where_they_were_whatever_happens_to_the_last_one_shown() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let people: [Person; 6] = cluster.persons().await;
    for (person, name) in people.iter().zip(["Éa Qop", "Eb Qop", "éb Qop", "Ec Qop", "ED Qop", "ee Qop"]) {
        rename(&cluster, person, name).await;
    }
    let page = async |cursor: &str| {
        let path = format!("/v1/search/profiles?q=qop&limit=2{cursor}");
        let (status, page) = cluster.rest(0, "GET", &path, &people[0], None).await;
        assert_eq!(status, 200, "{page}");
        let names = page["items"].as_array().unwrap().iter().map(|one| one["displayName"].as_str().unwrap().to_owned());
        let last = page["items"].as_array().unwrap().last().unwrap()["id"].clone();
        (names.collect::<Vec<_>>(), page["nextCursor"].as_str().unwrap_or_default().to_owned(), last)
    };
    let (first, cursor, last) = page("").await;
    let last = last.as_str().unwrap();
    assert_eq!(first[0], "Éa Qop", "accents do not send a name to the end");
    cluster.world.database.run(format!("UPDATE profiles SET status = 'BANNED' WHERE id = '{last}'")).await;
    let (second, cursor, _) = page(&format!("&cursor={cursor}")).await;
    let (third, end, _) = page(&format!("&cursor={cursor}")).await;
    let mut all = [first, second, third].concat();
    assert_eq!(all.len(), 6, "{all:?}");
    all.dedup();
    assert_eq!((all.len(), all[3].as_str(), all[5].as_str(), end.as_str()), (6, "Ec Qop", "ee Qop", ""));
}

#[tokio::test]
async fn a_search_reads_the_index_of_words() {
    let world = crate::people::World::new().await;
    let person = world.person().await;
    let mut connection = world.pool.acquire().await.unwrap();
    // The tables are small: without it everything is read.
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut *connection).await.unwrap();
    let explain = format!("EXPLAIN {}", haus::identity::search::FOUND_ROWS);
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
        .bind("zoe")
        .bind(person)
        .bind(500_i64)
        .bind(None::<Vec<u8>>)
        .bind(50_i64)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan on idx_profiles_words") && plan.contains("Index Cond: (to_tsvector"), "{plan}");
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
