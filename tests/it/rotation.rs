//! The root key is changed under running nodes: people log in, tokens hold, repeats are repeats, and the old key ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::keys::{FIRST, Program, SECOND, done, refused};
use crate::support::Database;

/// A `haus serve` of its own.
struct Serving {
    child: Child,
    url: String,
    http: reqwest::Client,
}

impl Serving {
    fn start(program: &Program, key: &str, also: Option<&str>) -> Self {
        let mut settings = vec![("HAUS_SECRET_KEY", key), ("HAUS_AUTO_ACTIVATE", "true"), ("HAUS_LIMITS", "off")];
        settings.extend(also.map(|also| ("HAUS_SECRET_KEYS_ALSO", also)));
        let mut command = program.command(&["serve"], &settings);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("a ready line");
        let url = format!("http://{}", ready["listen"].as_str().unwrap());
        Self { child, url, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn register(&self, name: &str) -> (u16, Value) {
        let body =
            json!({"email": format!("{name}@example.org"), "password": "kettle drum eleven", "displayName": name});
        self.call("POST", "/v1/auth/register", None, Some(body)).await
    }

    async fn login(&self, name: &str) -> (u16, Value) {
        let body = json!({"email": format!("{name}@example.org"), "password": "kettle drum eleven"});
        self.call("POST", "/v1/auth/login", None, Some(body)).await
    }

    async fn send(&self, token: &str, thread: &str, nonce: Uuid, content: &str) -> (u16, Value) {
        let path = format!("/v1/threads/{thread}/messages");
        self.call("POST", &path, Some(token), Some(json!({"nonce": nonce, "content": content}))).await
    }

    async fn refresh(&self, token: &str) -> (u16, Value) {
        self.call("POST", "/v1/auth/refresh", None, Some(json!({"refreshToken": token}))).await
    }

    async fn key_ids(&self) -> Vec<String> {
        let (_, set) = self.call("GET", "/.well-known/jwks.json", None, None).await;
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field}: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_is_changed_under_running_nodes() {
    let database = Database::new().await;
    let program = Program::on(&database);
    let alone = Serving::start(&program, FIRST, None);
    let (ana, bea) = (alone.register("ana").await.1, alone.register("bea").await.1);
    let old_token = text(&ana, "accessToken").to_owned();
    let body = json!({"type": "DIRECT", "memberIds": [bea["profile"]["id"]]});
    let (_, thread) = alone.call("POST", "/v1/threads", Some(&old_token), Some(body)).await;
    let thread = text(&thread, "id").to_owned();
    let nonce = Uuid::new_v4();
    let (status, sent) = alone.send(&old_token, &thread, nonce, "before").await;
    assert_eq!((status, sent["dup"].clone()), (201, json!(false)), "{sent}");
    drop(alone);

    // First every node knows both keys; then one after the other signs and seals with the new one.
    let before = Serving::start(&program, FIRST, Some(SECOND));
    let after = Serving::start(&program, SECOND, Some(FIRST));
    let (ids_before, ids_after) = (before.key_ids().await, after.key_ids().await);
    assert!(ids_before.len() == 2 && ids_before[0] == ids_after[1] && ids_before[1] == ids_after[0]);
    for node in [&before, &after] {
        assert_eq!(node.call("GET", "/v1/me", Some(&old_token), None).await.0, 200, "an old token holds");
        assert_eq!(node.login("ana").await.0, 200, "an address stored under the old key is found");
        let (status, again) = node.send(&old_token, &thread, nonce, "before").await;
        assert_eq!((status, again["dup"].clone(), again["seq"].clone()), (200, json!(true), sent["seq"].clone()));
        let (status, other) = node.send(&old_token, &thread, nonce, "another").await;
        assert_eq!((status, text(&other, "code")), (409, "nonce_conflict"));
    }
    let new_token = text(&after.login("ana").await.1, "accessToken").to_owned();
    assert_eq!(before.call("GET", "/v1/me", Some(&new_token), None).await.0, 200, "a new token holds at old nodes");

    // A refresh whose answer was lost is answered the same, whichever key made it.
    let spent = text(&ana, "refreshToken").to_owned();
    let (status, first) = before.refresh(&spent).await;
    assert_eq!(status, 200, "{first}");
    let (status, again) = after.refresh(&spent).await;
    assert_eq!((status, text(&again, "refreshToken")), (200, text(&first, "refreshToken")));

    // One address, one account, whichever key it is stored under and whoever is first.
    assert_eq!(after.register("ana").await.0, 409);
    assert_eq!(after.register("cleo").await.0, 201);
    assert_eq!(before.register("cleo").await.0, 409);
    assert_eq!(before.login("cleo").await.0, 200);
    for round in 0..6 {
        let name = format!("race{round}");
        let tries =
            join_all([before.register(&name), after.register(&name), before.register(&name), after.register(&name)]);
        let mut statuses: Vec<u16> = tries.await.into_iter().map(|(status, _)| status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409]);
    }

    let with_both = [("HAUS_SECRET_KEY", SECOND), ("HAUS_SECRET_KEYS_ALSO", FIRST)];
    let status = done(&program.run(&["keys", "status"], &with_both));
    let lines: Vec<Value> = status.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["isPresent"].clone()).collect::<Vec<_>>(), [json!(false), json!(true)]);
    assert!(lines.iter().all(|line| line["users"].as_i64() > Some(0)), "{status}");

    let in_use = program.run(&["keys", "reseal", "--wait", "0"], &with_both);
    refused(&in_use, 1, "still seals with the old key");
    drop(before);
    database
        .run(
            "UPDATE root_keys SET used_at = now() - interval '1 minute' WHERE key_id = decode('".to_owned()
                + text(&lines[0], "keyId")
                + "', 'hex')",
        )
        .await;
    let resealed: Value = serde_json::from_str(&done(&program.run(&["keys", "reseal"], &with_both))).unwrap();
    assert_eq!((resealed["retired"].clone(), resealed["users"].as_i64() >= Some(2)), (json!(1), true), "{resealed}");
    let repeated: Value = serde_json::from_str(&done(&program.run(&["keys", "reseal"], &with_both))).unwrap();
    assert_eq!(repeated, json!({"users": 0, "sessions": 0, "retired": 0}));

    // The running node went on, and one that knows the new key alone finds everything.
    assert_eq!(after.login("bea").await.0, 200);
    assert_eq!(after.call("GET", "/v1/me", Some(&old_token), None).await.0, 200);
    drop(after);
    let last = Serving::start(&program, SECOND, None);
    for name in ["ana", "bea", "cleo", "race0"] {
        assert_eq!(last.login(name).await.0, 200, "{name}");
        assert_eq!(last.register(name).await.0, 409, "{name}");
    }
    assert_eq!(last.call("GET", "/v1/me", Some(&old_token), None).await.0, 401, "the old key is believed no more");
    let (status, again) = last.send(&new_token, &thread, nonce, "before").await;
    assert_eq!((status, again["dup"].clone()), (200, json!(true)), "repeats are compared for ever");
    let (status, sessions) = last.call("GET", "/v1/sessions", Some(&new_token), None).await;
    assert!(status == 200 && sessions["items"].as_array().unwrap().len() > 2, "{sessions}");
    refused(&program.run(&["serve"], &[("HAUS_SECRET_KEY", FIRST)]), 2, "HAUS_SECRET_KEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_key_was_retired_ends() {
    let database = Database::new().await;
    let program = Program::on(&database);
    let mut node = Serving::start(&program, FIRST, None);
    assert_eq!(node.register("ana").await.0, 201);
    database.run("DELETE FROM root_keys".to_owned()).await;
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = node.child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it goes on sealing with a key that nobody knows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended.code(), Some(2));
}
