//! Routes × people: what each call answers to whom. A route of the document that is not in the table fails the test.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};

/// Who asks, in the order of the table's columns.
const ASKERS: [&str; 7] = ["nobody", "banned", "suspended", "pending", "stranger", "member", "admin"];

/// One route: how it is called, and the status for each asker.
struct Row {
    method: &'static str,
    /// As in the document.
    route: &'static str,
    path: String,
    body: Option<Value>,
    expected: [u16; 7],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_each_kind_of_person_as_the_table_says() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [banned, suspended, pending, stranger, member, admin] = cluster.persons().await;
    let thread = cluster.group(&[&admin, &member]).await;
    let state =
        |person: &Person, status: &str| format!("UPDATE profiles SET status = '{status}' WHERE id = '{}';", person.id);
    let states = [state(&banned, "BANNED"), state(&suspended, "SUSPENDED"), state(&pending, "PENDING")].concat();
    cluster.world.database.run(states).await;
    let askers = [None, Some(&banned), Some(&suspended), Some(&pending), Some(&stranger), Some(&member), Some(&admin)];

    let table = table(thread, &stranger, &member);
    let listed: BTreeSet<(String, String)> =
        table.iter().map(|row| (row.method.to_owned(), row.route.to_owned())).collect();
    assert_eq!(documented(&cluster).await, listed, "routes of the document, and of the table here");

    let mut wrong = Vec::new();
    for row in &table {
        for ((name, asker), expected) in ASKERS.iter().zip(askers).zip(row.expected) {
            let url = format!("http://{}{}", cluster.nodes[0].address, row.path);
            let mut request = cluster.http.request(row.method.parse().unwrap(), url);
            if let Some(asker) = asker {
                request = request.bearer_auth(&asker.token);
            }
            if let Some(body) = &row.body {
                request = request.json(body);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            if status != expected {
                wrong.push(format!("{} {} by {name}: {status}, not {expected}: {text}", row.method, row.route));
            }
            if status >= 400 {
                let problem: Value = serde_json::from_str(&text).unwrap();
                assert!(problem["code"].is_string() && problem["requestId"].is_string(), "{text}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// (method, path) of every operation in `/openapi.json`.
async fn documented(cluster: &Cluster) -> BTreeSet<(String, String)> {
    let url = format!("http://{}/openapi.json", cluster.nodes[0].address);
    let document: Value =
        serde_json::from_str(&cluster.http.get(url).send().await.unwrap().text().await.unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    operations.collect()
}

/// Calls that change nothing another row rests on. Columns as in [`ASKERS`].
fn table(thread: Uuid, stranger: &Person, member: &Person) -> Vec<Row> {
    let row = |method, route: &'static str, body: Option<Value>, expected| {
        let path = route.replace("{profileId}", &stranger.id.to_string());
        let path = match route.starts_with("/v1/threads") {
            true => path.replace("{id}", &thread.to_string()),
            false => path.replace("{id}", &member.id.to_string()),
        };
        let path = if route.starts_with("/v1/search/") { format!("{path}?q=x") } else { path };
        Row { method, route, path, body, expected }
    };
    let (login, reader) = (json!({"email": "nobody@example.org", "password": "no such password"}), json!({"no": 0}));
    let direct = json!({"type": "DIRECT", "memberIds": [member.id]});
    vec![
        // Without a token.
        row("GET", "/.well-known/jwks.json", None, [200; 7]),
        row("GET", "/v1/system-settings", None, [200; 7]),
        row("POST", "/v1/auth/login", Some(login), [401; 7]),
        row("POST", "/v1/auth/refresh", Some(json!({"refreshToken": "none"})), [401; 7]),
        row("POST", "/v1/auth/register", Some(json!({"email": "x"})), [422; 7]),
        // One's own.
        row("GET", "/v1/me", None, [401, 403, 200, 200, 200, 200, 200]),
        row("PATCH", "/v1/me", Some(json!({"bio": "x"})), [401, 403, 403, 200, 200, 200, 200]),
        row("GET", "/v1/profiles/{id}", None, [401, 403, 200, 200, 200, 200, 200]),
        row("GET", "/v1/search/profiles", None, [401, 403, 200, 200, 200, 200, 200]),
        row("GET", "/v1/settings", None, [401, 403, 200, 200, 200, 200, 200]),
        row("PATCH", "/v1/settings", Some(json!({})), [401, 403, 403, 200, 200, 200, 200]),
        row("GET", "/v1/sessions", None, [401, 403, 200, 200, 200, 200, 200]),
        row("DELETE", "/v1/sessions/{id}", None, [401, 403, 404, 404, 404, 404, 404]),
        row("POST", "/v1/ws/ticket", None, [401, 403, 403, 201, 201, 201, 201]),
        // Threads.
        row("GET", "/v1/threads", None, [401, 403, 200, 200, 200, 200, 200]),
        row("POST", "/v1/threads", Some(direct), [401, 403, 403, 201, 201, 422, 201]),
        row("GET", "/v1/threads/{id}", None, [401, 403, 404, 404, 404, 200, 200]),
        row("PATCH", "/v1/threads/{id}", Some(json!({"name": "x"})), [401, 403, 403, 404, 404, 403, 200]),
        row(
            "POST",
            "/v1/threads/{id}/members",
            Some(json!({"profileIds": [member.id]})),
            [401, 403, 403, 404, 404, 403, 200],
        ),
        row(
            "PATCH",
            "/v1/threads/{id}/members/{profileId}",
            Some(json!({"role": "MODERATOR"})),
            [401, 403, 403, 404, 404, 403, 404],
        ),
        row("DELETE", "/v1/threads/{id}/members/{profileId}", None, [401, 403, 403, 404, 404, 403, 404]),
        row("GET", "/v1/threads/{id}/messages", None, [401, 403, 404, 404, 404, 200, 200]),
        row(
            "POST",
            "/v1/threads/{id}/messages",
            Some(json!({"content": "x", "nonce": Uuid::now_v7()})),
            [401, 403, 403, 404, 404, 201, 201],
        ),
        row("GET", "/v1/threads/{id}/updates", None, [401, 403, 404, 404, 404, 200, 200]),
        row("PUT", "/v1/threads/{id}/read", Some(reader), [401, 403, 403, 404, 404, 200, 200]),
        // Ends the session: last.
        row("POST", "/v1/auth/logout", None, [401, 403, 204, 204, 204, 204, 204]),
    ]
}
