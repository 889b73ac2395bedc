//! Accounts and sessions over HTTP: register, login, refresh, logout, statuses, validation, what is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Database, Node};

pub const PASSWORD: &str = "a long enough secret";

/// Registers `name`; returns the answer.
pub async fn register(node: &Node, name: &str) -> Value {
    let body = json!({"email": format!("{name}@example.org"), "password": PASSWORD, "displayName": name});
    let (status, answer) = node.call("POST", "/v1/auth/register", None, Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

pub async fn login(node: &Node, name: &str, password: &str) -> (u16, Value) {
    let body = json!({"email": format!("{name}@example.org"), "password": password});
    node.call("POST", "/v1/auth/login", None, Some(body)).await
}

pub async fn refresh(node: &Node, token: &Value) -> (u16, Value) {
    node.call("POST", "/v1/auth/refresh", None, Some(json!({"refreshToken": token}))).await
}

pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

pub fn assert_problem(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{}", answer.1);
    assert_eq!(answer.1["status"], status);
    assert_eq!(answer.1["type"], format!("urn:haus:problem:{code}"));
    assert!(answer.1["errors"].is_array() && !text(&answer.1, "requestId").is_empty(), "{}", answer.1);
}

#[tokio::test]
async fn register_and_login() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--auto-activate=true"]).await;
    let ana = register(&node, "ana").await;
    assert_eq!(ana["profile"]["displayName"], "ana");
    assert_eq!((&ana["profile"]["role"], &ana["profile"]["status"]), (&json!("MEMBER"), &json!("ACTIVE")));
    assert_eq!(ana["accessExpiresInMs"], 600_000);

    let taken = json!({"email": " ANA@example.org", "password": PASSWORD, "displayName": "other"});
    assert_problem(&node.call("POST", "/v1/auth/register", None, Some(taken)).await, 409, "conflict");

    let (status, again) = login(&node, "Ana", PASSWORD).await;
    assert_eq!(status, 200, "{again}");
    assert_ne!(again["sessionId"], ana["sessionId"]);
    let (status, me) = node.call("GET", "/v1/me", Some(text(&again, "accessToken")), None).await;
    assert_eq!((status, &me["id"]), (200, &ana["profile"]["id"]));

    let wrong = login(&node, "ana", "not the password").await;
    let unknown = login(&node, "nobody", PASSWORD).await;
    assert_problem(&wrong, 401, "unauthenticated");
    assert_eq!(wrong.1["detail"], unknown.1["detail"], "an unknown account must look like a wrong password");
}

#[tokio::test]
async fn guessing_is_slowed_down_and_off_lifts_it() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    register(&node, "ana").await;
    for _ in 0..10 {
        assert_eq!(login(&node, "ana", "wrong guess").await.0, 401);
    }
    let body = json!({"email": "ana@example.org", "password": PASSWORD});
    let answer = node.send("POST", "/v1/auth/login", None, Some(body)).await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    let free = Node::start(&database, &["--limits=off"]).await;
    for _ in 0..15 {
        assert_eq!(login(&free, "ana", "wrong guess").await.0, 401);
    }
    assert_eq!(login(&free, "ana", PASSWORD).await.0, 200);
}

async fn login_from(node: &Node, address: &str, email: &str, password: &str) -> u16 {
    let request = node.client.post(format!("{}/v1/auth/login", node.url)).header("X-Forwarded-For", address);
    request.json(&json!({"email": email, "password": password})).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn guesses_from_elsewhere_do_not_lock_the_owner_out() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--trusted-proxies=127.0.0.1"]).await;
    register(&node, "ana").await;
    let (home, email) = ("2001:db8:1:2::7", "ana@example.org");
    assert_eq!(login_from(&node, home, email, PASSWORD).await, 200);
    // One network gets ten guesses, however it writes the address; others and the owner are not touched by that.
    for turn in 0..10 {
        let spelled = if turn % 2 == 0 { email.to_owned() } else { format!(" {} ", email.to_uppercase()) };
        assert_eq!(login_from(&node, "203.0.113.5", &spelled, "wrong guess").await, 401);
    }
    assert_eq!(login_from(&node, "203.0.113.5", email, "wrong guess").await, 429);
    assert_eq!(login_from(&node, "::ffff:203.0.113.5", email, PASSWORD).await, 429);
    assert_eq!(login_from(&node, "198.51.100.77", email, PASSWORD).await, 200);
    // A hundred from many networks: unknown ones wait, those the account knows do not (the same /64 is the same network).
    let mut refused = 0;
    for network in 0..110 {
        refused += u32::from(login_from(&node, &format!("192.0.2.{network}"), email, "wrong guess").await == 429);
    }
    assert!(refused > 5, "{refused}");
    assert_eq!(login_from(&node, "192.0.2.200", email, PASSWORD).await, 429);
    assert_eq!(login_from(&node, "2001:db8:1:2:ffff::1", email, PASSWORD).await, 200);
    assert_eq!(login_from(&node, "198.51.100.77", email, PASSWORD).await, 200);
    assert_eq!(login_from(&node, "2001:db8:1:3::1", email, PASSWORD).await, 429);
    // Nor does an account that nobody has tell itself apart.
    assert_eq!(login_from(&node, "192.0.2.201", "nobody@example.org", PASSWORD).await, 401);
}

#[tokio::test]
async fn refresh_rotates_and_reuse_ends_the_family() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let ana = register(&node, "ana").await;
    let (status, second) = refresh(&node, &ana["refreshToken"]).await;
    assert_eq!((status, &second["sessionId"]), (200, &ana["sessionId"]));
    assert_ne!(second["refreshToken"], ana["refreshToken"]);

    // The answer was lost: the same request gets the same successor, also from several at once, and minutes later.
    database.run("UPDATE refresh_tokens SET used_at = now() - interval '590 s' WHERE used_at IS NOT NULL".into()).await;
    let repeats = (0..8).map(|_| refresh(&node, &ana["refreshToken"]));
    for (status, answer) in futures_util::future::join_all(repeats).await {
        assert_eq!((status, &answer["refreshToken"]), (200, &second["refreshToken"]));
    }

    let (status, third) = refresh(&node, &second["refreshToken"]).await;
    assert_eq!(status, 200);
    // The chain has moved on: the first token is a stolen one, within the grace or not.
    assert_problem(&refresh(&node, &ana["refreshToken"]).await, 401, "unauthenticated");
    assert_problem(&refresh(&node, &third["refreshToken"]).await, 401, "unauthenticated");
    let me = node.call("GET", "/v1/me", Some(text(&third, "accessToken")), None).await;
    assert_problem(&me, 401, "unauthenticated");
    let told: i64 = sqlx::query_scalar("SELECT count(*) FROM revocations WHERE session_id::text = $1")
        .bind(text(&ana, "sessionId"))
        .fetch_one(&database.owner)
        .await
        .unwrap();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn reuse_after_the_grace_ends_the_family() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let ana = register(&node, "ana").await;
    let (_, second) = refresh(&node, &ana["refreshToken"]).await;
    database.run("UPDATE refresh_tokens SET used_at = now() - interval '601 s' WHERE used_at IS NOT NULL".into()).await;
    assert_problem(&refresh(&node, &ana["refreshToken"]).await, 401, "unauthenticated");
    assert_problem(&refresh(&node, &second["refreshToken"]).await, 401, "unauthenticated");
    assert_problem(&refresh(&node, &json!("made up")).await, 401, "unauthenticated");
}

#[tokio::test]
async fn logout_kills_the_token_here_and_on_the_other_node() {
    let database = Database::new().await;
    let (node, other) = (Node::start(&database, &[]).await, Node::start(&database, &[]).await);
    let ana = register(&node, "ana").await;
    let token = text(&ana, "accessToken");
    other.identity.revoked().poll(&other.pool).await.unwrap();
    assert!(other.identity.verify_access(token).is_ok());
    let closed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&closed);
    let session = text(&ana, "sessionId").to_owned();
    other.identity.revoked().on_revoked(move |_, id| {
        flag.store(id.is_some_and(|id| id.to_string() == session), Ordering::SeqCst);
    });

    assert_eq!(node.call("POST", "/v1/auth/logout", Some(token), None).await.0, 204);
    assert_problem(&node.call("GET", "/v1/me", Some(token), None).await, 401, "unauthenticated");
    assert_problem(&refresh(&node, &ana["refreshToken"]).await, 401, "unauthenticated");
    assert!(other.identity.verify_access(token).is_ok(), "the other node has not polled yet");
    other.identity.revoked().poll(&other.pool).await.unwrap();
    assert!(other.identity.verify_access(token).is_err());
    assert!(closed.load(Ordering::SeqCst), "the hook was called with the session");
}

#[tokio::test]
async fn a_late_commit_is_not_missed_by_the_poll() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let ana = register(&node, "ana").await;
    let revoked = node.identity.revoked();
    let insert = "INSERT INTO revocations (id, profile_id, session_id)
        SELECT gen_random_uuid(), id, gen_random_uuid() FROM profiles RETURNING session_id";
    let mut late = database.owner.begin().await.unwrap();
    let late_session: uuid::Uuid = sqlx::query_scalar(insert).fetch_one(&mut *late).await.unwrap();
    let early_session: uuid::Uuid = sqlx::query_scalar(insert).fetch_one(&database.owner).await.unwrap();
    revoked.poll(&node.pool).await.unwrap();
    assert!(revoked.contains(early_session) && !revoked.contains(late_session));
    late.commit().await.unwrap();
    revoked.poll(&node.pool).await.unwrap();
    assert!(revoked.contains(late_session));
    assert!(revoked.poll_age_ms() < 5_000);
    assert!(node.identity.verify_access(text(&ana, "accessToken")).is_ok());
}

#[tokio::test]
async fn own_sessions_are_listed_and_ended() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let (ana, bea) = (register(&node, "ana").await, register(&node, "bea").await);
    let (_, second) = login(&node, "ana", PASSWORD).await;
    let token = text(&second, "accessToken");
    let (status, list) = node.call("GET", "/v1/sessions?limit=1", Some(token), None).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["isCurrent"]), (&second["sessionId"], &json!(true)));
    assert_eq!(list["items"][0]["ipAddress"], "127.0.0.1");
    let next = format!("/v1/sessions?limit=1&cursor={}", text(&list, "nextCursor"));
    let (_, page) = node.call("GET", &next, Some(token), None).await;
    assert_eq!((&page["items"][0]["id"], &page["nextCursor"]), (&ana["sessionId"], &Value::Null));

    let of_bea = format!("/v1/sessions/{}", text(&bea, "sessionId"));
    assert_problem(&node.call("DELETE", &of_bea, Some(token), None).await, 404, "not_found");
    let of_ana = format!("/v1/sessions/{}", text(&ana, "sessionId"));
    assert_eq!(node.call("DELETE", &of_ana, Some(token), None).await.0, 204);
    assert_eq!(node.call("DELETE", &of_ana, Some(token), None).await.0, 204, "safe to repeat");
    assert_eq!(node.call("GET", "/v1/me", Some(text(&ana, "accessToken")), None).await.0, 401);
    assert_eq!(node.call("GET", "/v1/me", Some(token), None).await.0, 200);
    assert_eq!(node.call("GET", "/v1/me", Some(text(&bea, "accessToken")), None).await.0, 200);
}

#[tokio::test]
async fn statuses_decide_what_one_may() {
    use haus::protocol::types::UserStatus;
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let ana = register(&node, "ana").await;
    let profile_id = text(&ana["profile"], "id").parse().unwrap();
    let token = text(&ana, "accessToken");
    let rename = || Some(json!({"displayName": "Ana II"}));
    assert_eq!((&ana["profile"]["role"], &ana["profile"]["status"]), (&json!("APPLICANT"), &json!("PENDING")));
    assert_eq!(node.call("PATCH", "/v1/me", Some(token), rename()).await.0, 200);
    assert_eq!(node.call("POST", "/v1/ws/ticket", Some(token), None).await.0, 201);

    node.identity.set_status(profile_id, UserStatus::Suspended, None).await.unwrap();
    assert_eq!(node.call("GET", "/v1/me", Some(token), None).await.0, 200);
    assert_eq!(login(&node, "ana", PASSWORD).await.0, 200);
    assert_problem(&node.call("PATCH", "/v1/me", Some(token), rename()).await, 403, "forbidden");
    assert_problem(&node.call("POST", "/v1/ws/ticket", Some(token), None).await, 403, "forbidden");

    node.identity.set_status(profile_id, UserStatus::Active, None).await.unwrap();
    assert_eq!(node.call("PATCH", "/v1/me", Some(token), rename()).await.0, 200);

    node.identity.set_status(profile_id, UserStatus::Banned, None).await.unwrap();
    assert_problem(&node.call("GET", "/v1/me", Some(token), None).await, 401, "unauthenticated");
    assert_eq!(refresh(&node, &ana["refreshToken"]).await.0, 403);
    let banned = login(&node, "ana", PASSWORD).await;
    assert_problem(&banned, 403, "forbidden");
    assert!(text(&banned.1, "detail").contains("banned"));
    assert_eq!(login(&node, "ana", "wrong guess").await.0, 401, "only who knows the password learns of the ban");
}

#[tokio::test]
async fn bad_input_is_named() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--auto-activate=true"]).await;
    let post = |body: Value| node.call("POST", "/v1/auth/register", None, Some(body));
    let all = post(json!({"email": "nope", "password": "short", "displayName": ""})).await;
    assert_problem(&all, 422, "invalid");
    let paths: Vec<&str> = all.1["errors"].as_array().unwrap().iter().map(|error| text(error, "path")).collect();
    assert_eq!(paths, ["email", "password", "displayName"]);
    let extra = post(json!({"email": "a@b.co", "password": PASSWORD, "displayName": "a", "role": "ADMIN"})).await;
    assert_problem(&extra, 422, "invalid");
    assert_eq!((&extra.1["errors"][0]["path"], &extra.1["errors"][0]["code"]), (&json!("role"), &json!("unknown")));
    let missing = post(json!({"email": "a@b.co", "password": PASSWORD})).await;
    assert_eq!(missing.1["errors"][0]["path"], "displayName");

    let raw = |body: &'static str, kind: &'static str| {
        node.client.post(format!("{}/v1/auth/login", node.url)).header("content-type", kind).body(body).send()
    };
    assert_eq!(raw("{\"email\":", "application/json").await.unwrap().status(), 400);
    assert_eq!(raw("{}", "text/plain").await.unwrap().status(), 400);
    let huge = json!({"email": "a".repeat(300 * 1024), "password": "x"});
    assert_problem(&node.call("POST", "/v1/auth/login", None, Some(huge)).await, 413, "too_large");

    let ana = register(&node, "ana").await;
    let token = Some(text(&ana, "accessToken"));
    assert_problem(&node.call("GET", "/v1/profiles/not-an-id", token, None).await, 400, "invalid");
    let nobody = format!("/v1/profiles/{}", uuid::Uuid::now_v7());
    assert_problem(&node.call("GET", &nobody, token, None).await, 404, "not_found");
    assert_problem(&node.call("GET", "/v1/sessions?limit=101", token, None).await, 400, "invalid");
    assert_problem(&node.call("GET", "/v1/nothing", token, None).await, 404, "not_found");
    let wrong_method = node.send("PUT", "/v1/me", token, None).await;
    assert_eq!(wrong_method.status(), 405);
    assert!(wrong_method.headers()["allow"].to_str().unwrap().contains("PATCH"));
    assert_eq!(wrong_method.headers()["content-type"], "application/problem+json");
    assert_problem(&node.call("GET", "/v1/me", None, None).await, 401, "unauthenticated");
}

#[tokio::test]
async fn a_profile_is_changed_cleared_and_seen_by_its_privacy() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--auto-activate=true"]).await;
    let (ana, bea) = (register(&node, "ana").await, register(&node, "bea").await);
    let token = Some(text(&ana, "accessToken"));
    let patch = json!({"pronouns": "she/her", "bio": "voguing\nsince 1999", "socialLinks": {"instagram": "@ana"}});
    let (status, me) = node.call("PATCH", "/v1/me", token, Some(patch)).await;
    assert_eq!((status, &me["pronouns"], &me["socialLinks"]["instagram"]), (200, &json!("she/her"), &json!("@ana")));
    let (_, me) = node.call("PATCH", "/v1/me", token, Some(json!({"pronouns": null}))).await;
    assert_eq!((&me["pronouns"], &me["bio"]), (&Value::Null, &json!("voguing\nsince 1999")));
    assert_problem(&node.call("PATCH", "/v1/me", token, Some(json!({"status": "ACTIVE"}))).await, 422, "invalid");
    assert_problem(&node.call("PATCH", "/v1/me", token, Some(json!({"displayName": "\u{7}"}))).await, 422, "invalid");

    let path = format!("/v1/profiles/{}", text(&ana["profile"], "id"));
    let (_, seen) = node.call("GET", &path, Some(text(&bea, "accessToken")), None).await;
    assert_eq!(seen["bio"], "voguing\nsince 1999");
    database.run("UPDATE user_settings SET privacy = privacy || '{\"profile\": \"private\"}'".into()).await;
    let (_, seen) = node.call("GET", &path, Some(text(&bea, "accessToken")), None).await;
    assert_eq!((&seen["displayName"], &seen["bio"]), (&json!("ana"), &Value::Null));
    let (_, own) = node.call("GET", &path, token, None).await;
    assert_eq!(own["bio"], "voguing\nsince 1999");
}

#[tokio::test]
async fn nothing_secret_lies_in_the_tables() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let ana = register(&node, "canary.address").await;
    let token = text(&ana, "accessToken");
    let (_, ticket) = node.call("POST", "/v1/ws/ticket", Some(token), None).await;
    let tables: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(&database.owner)
        .await
        .unwrap();
    let mut dump = String::new();
    for table in &tables {
        let sql = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&database.owner).await.unwrap();
        dump.push_str(&rows);
    }
    assert!(dump.contains(text(&ana, "sessionId")) && tables.len() >= 8, "the dump must hold the rows");
    let secrets =
        ["canary.address@", "127.0.0.1", PASSWORD, token, text(&ana, "refreshToken"), text(&ticket, "ticket")];
    for secret in secrets {
        assert!(!dump.contains(secret) && !dump.contains(&hex::encode(secret)), "{secret} lies in a table");
    }
}

#[tokio::test]
async fn answers_carry_ids_headers_and_documents() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    for path in ["/v1/me", "/.well-known/jwks.json", "/openapi.json", "/nothing"] {
        let answer = node.send("GET", path, None, None).await;
        let headers = answer.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert!(headers.contains_key("x-request-id") && headers.contains_key("content-security-policy"), "{path}");
    }
    let (_, document) = node.call("GET", "/openapi.json", None, None).await;
    for path in ["/v1/auth/register", "/v1/auth/refresh", "/v1/sessions/{id}", "/v1/ws/ticket", "/v1/me"] {
        assert!(document["paths"][path].is_object(), "{path} is not in the document");
    }
    assert!(document["components"]["schemas"]["ProblemBody"].is_object());
    let (_, keys) = node.call("GET", "/.well-known/jwks.json", None, None).await;
    assert_eq!((&keys["keys"][0]["crv"], &keys["keys"][0]["alg"]), (&json!("Ed25519"), &json!("EdDSA")));
}
