//! What names, lines, texts, links, addresses and passwords may hold, through every door that takes them.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::identity::{PASSWORD, assert_problem, login, register, text};
use crate::support::{Database, Node};

/// Nothing to see, or turned around, or no line.
const BAD_LINES: [&str; 10] = [
    "\u{200B}",
    "\u{2060}\u{200C}",
    "\u{3164}",
    "\u{2800}",
    "\u{E0041}",
    "\u{202E}ana",
    "a\u{2067}b",
    "a\nb",
    "a\u{7}b",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
];
const BAD_LINKS: [&str; 6] = [
    "javascript:alert(1)",
    "JAVASCRIPT:alert(1)",
    "http://a.example/x",
    "data:text/html,x",
    "https://u:p@a.example/",
    "//a.example/x",
];

struct World {
    node: Node,
    ana: Value,
    thread: String,
    _database: Database,
}

impl World {
    async fn new() -> Self {
        let database = Database::new().await;
        let node = Node::start(&database, &["--auto-activate=true"]).await;
        let ana = register(&node, "ana").await;
        let body = json!({"type": "GROUP", "name": "Ball", "memberIds": []});
        let (status, thread) = node.call("POST", "/v1/threads", Some(text(&ana, "accessToken")), Some(body)).await;
        assert_eq!(status, 201, "{thread}");
        Self { thread: text(&thread, "id").to_owned(), node, ana, _database: database }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.node.call(method, path, Some(text(&self.ana, "accessToken")), Some(body)).await
    }

    async fn refuses(&self, method: &str, path: &str, body: Value, field: &str) {
        let answer = self.call(method, path, body.clone()).await;
        assert_eq!(answer.1["code"], "invalid", "{body} {}", answer.1);
        assert!(answer.1["errors"].to_string().contains(field), "{body}: {}", answer.1);
    }
}

#[tokio::test]
async fn names_and_lines_are_judged_alike_at_every_door() {
    let world = World::new().await;
    let thread = format!("/v1/threads/{}", world.thread);
    let member = format!("{thread}/members/{}", text(&world.ana["profile"], "id"));
    for bad in BAD_LINES {
        world.refuses("PATCH", "/v1/me", json!({"displayName": bad}), "displayName").await;
        world.refuses("PATCH", "/v1/me", json!({"pronouns": bad}), "pronouns").await;
        world.refuses("PATCH", "/v1/me", json!({"ballroomName": bad}), "ballroomName").await;
        world.refuses("POST", "/v1/threads", json!({"type": "GROUP", "name": bad, "memberIds": []}), "name").await;
        world.refuses("PATCH", &thread, json!({"name": bad}), "name").await;
        world.refuses("PATCH", &member, json!({"nickname": bad}), "nickname").await;
        let body = json!({"email": "bea@example.org", "password": PASSWORD, "displayName": bad});
        world.refuses("POST", "/v1/auth/register", body, "displayName").await;
        if !bad.contains('\n') {
            world.refuses("PATCH", "/v1/me", json!({"bio": bad}), "bio").await;
            world.refuses("PATCH", &thread, json!({"description": bad}), "description").await;
        }
    }
    let (status, me) = world.call("PATCH", "/v1/me", json!({"displayName": " Zoe\u{308} ", "bio": "a\r\nb"})).await;
    assert_eq!((status, &me["displayName"], &me["bio"]), (200, &json!("Zo\u{eb}"), &json!("a\nb")));
    let (status, changed) = world.call("PATCH", &thread, json!({"name": "Cafe\u{301}"})).await;
    assert_eq!((status, &changed["name"]), (200, &json!("Caf\u{e9}")));
    let (status, changed) = world.call("PATCH", &member, json!({"nickname": "Zoe\u{308}"})).await;
    assert_eq!((status, &changed["nickname"]), (200, &json!("Zo\u{eb}")));
}

#[tokio::test]
async fn links_are_https() {
    let world = World::new().await;
    let thread = format!("/v1/threads/{}", world.thread);
    let messages = format!("{thread}/messages");
    let send = |url: &str| json!({"nonce": Uuid::new_v4(), "mediaUrl": url, "mediaType": "IMAGE"});
    for bad in BAD_LINKS {
        world.refuses("PATCH", &thread, json!({"avatar": bad}), "avatar").await;
        world.refuses("PATCH", "/v1/me", json!({"socialLinks": {"web": bad}}), "socialLinks.web").await;
        world.refuses("POST", &messages, send(bad), "mediaUrl").await;
    }
    let good = "https://a.example/x.jpg";
    assert_eq!(world.call("PATCH", &thread, json!({"avatar": good})).await.0, 200);
    assert_eq!(world.call("PATCH", &thread, json!({"avatar": "/v1/media/0198/x.jpg"})).await.0, 200);
    assert_eq!(world.call("PATCH", "/v1/me", json!({"socialLinks": {"web": good, "insta": "@ana"}})).await.0, 200);
    assert_eq!(world.call("POST", &messages, send(good)).await.0, 201);
}

#[tokio::test]
async fn a_message_has_something_to_see_and_is_kept_as_typed() {
    let world = World::new().await;
    let messages = format!("/v1/threads/{}/messages", world.thread);
    let send = |content: &str| json!({"nonce": Uuid::new_v4(), "content": content});
    for bad in ["", " \n", "\u{200B}\u{200B}", "\u{3164} \u{2800}", "\u{2060}\u{E0020}", "\u{FE0F}\u{301}"] {
        world.refuses("POST", &messages, send(bad), "content").await;
    }
    for good in ["  Zoe\u{308}\r\n", "\u{200B}x", "\u{202E}abc", "\u{2764}\u{FE0F}"] {
        assert_eq!(world.call("POST", &messages, send(good)).await.0, 201, "{good:?}");
        let (_, page) = world.node.call("GET", &messages, Some(text(&world.ana, "accessToken")), None).await;
        let newest = page["messages"].as_array().and_then(|list| list.iter().max_by_key(|m| m["no"].as_u64())).cloned();
        assert_eq!(newest.map(|message| message["content"].clone()), Some(json!(good)));
    }
}

#[tokio::test]
async fn passwords_have_one_form_and_are_not_the_commonest() {
    let world = World::new().await;
    let body =
        |password: &str| json!({"email": "chantal.d@example.org", "password": password, "displayName": "Chantal D"});
    for bad in ["password123", "Football1", "chantal.d@example.org", "Chantal.D1", "chantald!", "zzzzzzzzzz", "short"] {
        world.refuses("POST", "/v1/auth/register", body(bad), "password").await;
    }
    let (status, made) = world.call("POST", "/v1/auth/register", body("cafe\u{301} noir 1987")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(login(&world.node, "chantal.d", "caf\u{e9}\u{a0}noir 1987").await.0, 200);
    assert_eq!(login(&world.node, "chantal.d", "Cafe noir 1987").await.0, 401);
}

#[tokio::test]
async fn an_address_is_one_however_it_is_written() {
    let world = World::new().await;
    let body = |email: &str| json!({"email": email, "password": PASSWORD, "displayName": "Zoe"});
    let (status, made) = world.call("POST", "/v1/auth/register", body("Zoe\u{308}@ex\u{e4}mple.org")).await;
    assert_eq!(status, 201, "{made}");
    for same in ["zo\u{eb}@xn--exmple-cua.org", " ZO\u{cb}@EX\u{c4}MPLE.ORG "] {
        assert_problem(&world.call("POST", "/v1/auth/register", body(same)).await, 409, "conflict");
        let body = json!({"email": same, "password": PASSWORD});
        assert_eq!(world.call("POST", "/v1/auth/login", body).await.0, 200, "{same}");
    }
    for bad in ["a@b", "a@-b.de", "a b@c.de", "a@b.de\u{202e}"] {
        world.refuses("POST", "/v1/auth/register", body(bad), "email").await;
    }
}
