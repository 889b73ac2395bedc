//! One rule for reading JSON, at every door, and documents that say what is on the wire.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::cluster;
use crate::identity::{assert_problem, register, text};
use crate::support::{Database, Node};

#[tokio::test]
async fn bodies_are_objects_without_unknown_fields() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--auto-activate=true"]).await;
    let ana = register(&node, "ana").await;
    let token = Some(text(&ana, "accessToken"));
    let group = json!({"type": "GROUP", "name": "Ball", "memberIds": []});
    let (_, thread) = node.call("POST", "/v1/threads", token, Some(group)).await;
    let thread = format!("/v1/threads/{}", text(&thread, "id"));
    let me = format!("{thread}/members/{}", text(&ana["profile"], "id"));
    let (messages, members, read) =
        (format!("{thread}/messages"), format!("{thread}/members"), format!("{thread}/read"));
    let nonce = Uuid::new_v4();
    // A body each that is right, and the same fields as an array in their order.
    let doors: [(&str, &str, Value, Value); 10] = [
        ("POST", "/v1/auth/login", json!({"email": "a@b.co", "password": "x"}), json!(["a@b.co", "x"])),
        ("POST", "/v1/auth/refresh", json!({"refreshToken": "x"}), json!(["x"])),
        (
            "POST",
            "/v1/auth/register",
            json!({"email": "b@b.co", "password": "xy", "displayName": "b"}),
            json!(["a", "b", "c"]),
        ),
        ("PATCH", "/v1/me", json!({"bio": "x"}), json!(["x"])),
        ("POST", "/v1/threads", json!({"type": "GROUP", "name": "x"}), json!(["GROUP", [], "x", null, null])),
        ("PATCH", &thread, json!({"name": "x"}), json!(["x"])),
        ("POST", &members, json!({"profileIds": []}), json!([[]])),
        ("PATCH", &me, json!({"nickname": "x"}), json!([null, "x"])),
        ("POST", &messages, json!({"nonce": nonce, "content": "x"}), json!(["x", null, null, null, [], nonce])),
        ("PUT", &read, json!({"no": 1}), json!([1, null])),
    ];
    for (method, path, body, array) in doors {
        assert_problem(&node.call(method, path, token, Some(array)).await, 422, "invalid");
        let mut more = body.clone();
        more["isAdmin"] = json!(true);
        let answer = node.call(method, path, token, Some(more)).await;
        assert_problem(&answer, 422, "invalid");
        assert_eq!(answer.1["errors"][0]["path"], "isAdmin", "{method} {path}: {}", answer.1);
    }
    // Whole numbers are whole however they are written.
    let (status, _) = node.call("PUT", &read, token, Some(json!({"no": 1.0}))).await;
    assert_eq!(status, 200);
    assert_problem(&node.call("PUT", &read, token, Some(json!({"no": 1.5}))).await, 422, "invalid");
    assert_problem(&node.call("PUT", &read, token, Some(json!({"no": "1"}))).await, 422, "invalid");
    // Queries: unknown names, bad limits and bad cursors are one code.
    for query in ["?x=1", "?limit=0", "?limit=x", "?cursor=nonsense", "?cursor=", "?limit=1&limit=2"] {
        for path in ["/v1/threads", "/v1/sessions"] {
            assert_problem(&node.call("GET", &format!("{path}{query}"), token, None).await, 400, "invalid");
        }
    }
    for path in [format!("{messages}?befor=1"), format!("{thread}/updates?sinc=1")] {
        assert_problem(&node.call("GET", &path, token, None).await, 400, "invalid");
    }
    // A send repeated says so as other repeats do.
    let send = json!({"nonce": nonce, "content": "hello"});
    let first = node.send("POST", &messages, token, Some(send.clone())).await;
    assert_eq!((first.status().as_u16(), first.headers().get("idempotency-replayed")), (201, None));
    let again = node.send("POST", &messages, token, Some(send)).await;
    assert_eq!((again.status().as_u16(), again.headers()["idempotency-replayed"].to_str().unwrap()), (200, "true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_read_by_the_same_rule() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let mut client = cluster.live(0, &ana).await;
    let commands = [
        ("message.send", json!({"threadId": thread, "nonce": Uuid::new_v4(), "content": "x"})),
        ("read", json!({"threadId": thread, "no": 0})),
        ("thread.open", json!({"threadId": thread, "watch": []})),
        ("history", json!({"threadId": thread, "limit": 1.0})),
        ("thread.close", json!({"threadId": thread})),
        ("threads.list", json!({"limit": 2.0})),
        ("profiles.get", json!({"ids": []})),
        ("sync", json!({"streams": {}})),
    ];
    for (name, d) in commands {
        let mut more = d.clone();
        more["isAdmin"] = json!(1);
        assert_eq!(client.refused(name, more).await, "invalid", "{name} with a field that is not its own");
        let array: Vec<Value> = d.as_object().unwrap().values().cloned().collect();
        assert_eq!(client.refused(name, json!(array)).await, "invalid", "{name} as an array");
        assert!(client.call(name, d).await.is_ok(), "{name}");
    }
    assert_eq!(client.refused("focus", json!({"threadId": thread, "x": 1})).await, "invalid");
    assert_eq!(client.refused("threads.list", json!({"cursor": "nonsense"})).await, "invalid");
    // Frames: an array is a batch, and its items are objects; what is no part of a frame is named.
    for bad in [
        r#"[["ping"]]"#,
        r#"[[7,"ping",{}]]"#,
        r#"{"id":7,"cmd":"ping","d":{},"more":1}"#,
        r#"{"id":7.5,"cmd":"ping"}"#,
    ] {
        client.send_text(bad.to_owned()).await;
        let err = client.until(|json| json.get("err").is_some()).await.json;
        assert_eq!(err["err"]["code"], "invalid", "{bad}: {err}");
    }
    client.send_text(r#"{"id":77.0,"cmd":"ping"}"#.to_owned()).await;
    assert!(client.reply(77).await.is_ok());
}

#[test]
fn the_documents_say_what_is_on_the_wire() {
    let openapi = serde_json::to_value(haus::http::openapi()).unwrap();
    let asyncapi = haus::http::asyncapi::document();
    let enums = |document: &Value| -> BTreeSet<String> {
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let values = schemas.values().filter_map(|schema| schema["enum"].as_array()).flatten();
        values.map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    for document in [&openapi, &asyncapi] {
        let values = enums(document);
        // Those of the schema are in capitals, those of settings in small letters; Rust's own names are neither.
        let plain = |value: &String| *value == value.to_uppercase() || *value == value.to_lowercase();
        assert!(values.iter().all(plain), "{values:?}");
        assert!(values.contains("GROUP") && values.contains("MODERATOR"), "{values:?}");
    }
    let mut checked = 0;
    for (path, item) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let media: Vec<&String> = response["content"].as_object().unwrap().keys().collect();
                assert_eq!(media, ["application/problem+json"], "{method} {path} {status}");
                checked += 1;
            }
            for status in ["400", "429", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
            if operation.get("security").is_none() {
                assert!(responses.contains_key("401") && responses.contains_key("403"), "{method} {path}");
            }
            assert_eq!(operation.get("requestBody").is_some(), responses.contains_key("415"), "{method} {path}");
        }
    }
    assert!(checked > 100);
}
