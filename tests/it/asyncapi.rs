//! `/asyncapi.json` against the socket: what fits the document is taken, what breaks it in one place is refused, with a
//! code that the document names.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::cluster::cluster;
use crate::socket::Client;

/// What exists, for fields that name something.
struct Known {
    thread: Uuid,
    person: Uuid,
    message: Uuid,
    cursor: String,
}

/// The document, and what exists.
struct Maker<'a> {
    document: &'a Value,
    known: &'a Known,
}

impl Maker<'_> {
    fn resolved<'v>(&'v self, schema: &'v Value) -> &'v Value {
        schema["$ref"].as_str().map_or(schema, |path| self.document.pointer(&path[1..]).expect(path))
    }

    /// A value that fits `schema`; objects with every field or with the required ones alone.
    fn value(&self, name: &str, schema: &Value, is_full: bool) -> Value {
        let schema = self.resolved(schema);
        if let Some(forms) = schema["oneOf"].as_array() {
            return self.value(name, &forms[0], is_full);
        }
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
        match kind {
            "string" => json!(self.text(name, schema)),
            "integer" => schema["minimum"].clone(),
            "boolean" => json!(true),
            "array" => json!([self.value(name, &schema["items"], is_full)]),
            "null" => Value::Null,
            "object" => Value::Object(self.fields(schema, is_full)),
            other => panic!("{name}: no value of type {other:?}: {schema}"),
        }
    }

    fn fields(&self, schema: &Value, is_full: bool) -> Map<String, Value> {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        // Of the three of `history` one stands.
        let is_second = |name: &String| !schema["not"].is_null() && ["after", "around"].contains(&name.as_str());
        let fields = schema["properties"].as_object().into_iter().flatten();
        let wanted = fields.filter(|(name, _)| required.contains(&json!(name)) || is_full && !is_second(name));
        wanted.map(|(name, field)| (name.clone(), self.value(name, field, is_full))).collect()
    }

    fn text(&self, name: &str, schema: &Value) -> String {
        let known = self.known;
        match (name, schema["format"].as_str(), schema["pattern"].as_str()) {
            ("threadId", ..) => known.thread.to_string(),
            ("replyToId", ..) => known.message.to_string(),
            ("nonce", ..) => Uuid::now_v7().to_string(),
            ("cursor", ..) => known.cursor.clone(),
            ("mediaUrl", ..) => "https://media.example/x.png".to_owned(),
            (_, Some("uuid"), _) => known.person.to_string(),
            _ => "text".to_owned(),
        }
    }

    /// Bodies that break `schema` in one place each, and what it is.
    fn broken(&self, whole: &Value, schema: &Value) -> Vec<(String, Value)> {
        let mut broken = Vec::new();
        let mut with = |what: String, name: &str, value: Value| {
            let mut body = whole.clone();
            body[name] = value;
            broken.push((what, body));
        };
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let field = self.resolved(field);
            let kinds: Vec<&str> = match &field["type"] {
                Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
                kind => kind.as_str().into_iter().collect(),
            };
            for (kind, value) in
                [("string", json!("x y")), ("integer", json!(7)), ("object", json!({})), ("array", json!([]))]
            {
                if !kinds.is_empty() && !kinds.contains(&kind) {
                    with(format!("{name}: a {kind}"), name, value);
                }
            }
            if let Some(least) = field["minimum"].as_i64() {
                with(format!("{name} below {least}"), name, json!(i128::from(least) - 1));
            }
            if let Some(most) = field["maximum"].as_u64() {
                with(
                    format!("{name} above {most}"),
                    name,
                    serde_json::from_str(&(u128::from(most) + 1).to_string()).unwrap(),
                );
            }
            if let Some(most) = field["maxLength"].as_u64() {
                with(format!("{name} too long"), name, json!("x".repeat(most as usize + 1)));
            }
            if let Some(most) = field["maxItems"].as_u64() {
                let items: Vec<Uuid> = (0..=most).map(|_| Uuid::now_v7()).collect();
                with(format!("{name}: too many"), name, json!(items));
            }
            if let Some(most) = field["maxProperties"].as_u64() {
                let items: Map<String, Value> = (0..=most).map(|_| (Uuid::now_v7().to_string(), json!(0))).collect();
                with(format!("{name}: too many"), name, Value::Object(items));
            }
            if field["format"] == "uuid" || field["items"]["format"] == "uuid" {
                let wrong = if field["format"] == "uuid" { json!("no id") } else { json!(["no id"]) };
                with(format!("{name}: no id"), name, wrong);
            }
            if field["pattern"].is_string() {
                with(format!("{name} against its pattern"), name, json!("\0"));
            }
        }
        if schema["additionalProperties"] == json!(false) {
            with("an unknown field".to_owned(), "isAdmin", json!(true));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let mut body = whole.clone();
            body.as_object_mut().unwrap().remove(name);
            broken.push((format!("without {name}"), body));
        }
        for pair in schema["not"]["anyOf"].as_array().into_iter().flatten() {
            let mut body = whole.clone();
            for name in pair["required"].as_array().unwrap() {
                body[name.as_str().unwrap()] = json!(1);
            }
            broken.push((format!("both of {}", pair["required"]), body));
        }
        broken
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_is_read_as_the_document_says() {
    let cluster = cluster(1, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let thread = cluster.group(&[&ana, &ben]).await;
    let second = cluster.group(&[&ana, &ben]).await;
    let mut client = cluster.live(0, &ana).await;
    let sent = client.call("message.send", json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": "x"})).await;
    client.call("message.send", json!({"threadId": second, "nonce": Uuid::now_v7(), "content": "x"})).await.unwrap();
    let listed = client.call("threads.list", json!({"limit": 1})).await.unwrap();
    let known = Known {
        thread,
        person: ben.id,
        message: sent.unwrap()["messageId"].as_str().unwrap().parse().unwrap(),
        cursor: listed["next"].as_str().unwrap().to_owned(),
    };
    let document = haus::http::asyncapi::document();
    let maker = Maker { document: &document, known: &known };
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (name, operation) in document["operations"].as_object().unwrap() {
        if operation["action"] != "receive" || name == "auth" {
            continue;
        }
        let frame = &document["components"]["messages"][name]["payload"];
        let d = &frame["properties"]["d"];
        let forms = d["oneOf"].as_array().cloned().unwrap_or_else(|| vec![d.clone()]);
        for form in &forms {
            for is_full in [true, false] {
                let body = maker.value("d", form, is_full);
                if let Err(err) = tell(&mut client, name, body.clone()).await {
                    wrong.push(format!("{name} {body} is refused: {err}"));
                }
            }
            let whole = maker.value("d", form, false);
            for (what, mut body) in maker.broken(&whole, form) {
                if body.get("nonce").is_some_and(|nonce| Uuid::parse_str(nonce.as_str().unwrap_or_default()).is_ok()) {
                    body["nonce"] = json!(Uuid::now_v7());
                }
                tried += 1;
                match tell(&mut client, name, body).await {
                    Ok(()) => wrong.push(format!("{name} is taken: {what}")),
                    Err(err) => {
                        let codes = operation["x-error-codes"].as_array().unwrap();
                        let is_named = codes.contains(&err["code"]);
                        let is_right = ["invalid", "too_large"].contains(&err["code"].as_str().unwrap());
                        if !is_named || !is_right {
                            wrong.push(format!("{name}, {what}: {err}"));
                        }
                    }
                }
            }
        }
        // The frame around it.
        if frame["required"].as_array().unwrap().contains(&json!("d")) {
            client.send_text(json!({"id": 1_000_000, "cmd": name}).to_string()).await;
            if client.reply(1_000_000).await.is_ok() {
                wrong.push(format!("{name} is taken without d"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 60, "{tried} broken bodies");
}

/// Sends a command and waits for its answer; `focus` has one only when it is refused.
async fn tell(client: &mut Client, name: &str, body: Value) -> Result<(), Value> {
    if name == "focus" {
        client.start(name, body).await;
        let ping = client.start("ping", json!({})).await;
        client.reply(ping).await.unwrap();
        let refused = client.kept.iter().position(|frame| frame.json.get("err").is_some());
        return refused.map_or(Ok(()), |at| Err(client.kept.remove(at).unwrap().json["err"].clone()));
    }
    client.call(name, body).await.map(drop)
}
