//! The AsyncAPI document of the websocket (AsyncAPI 3.0, `/asyncapi.json`, `haus asyncapi`), built from the constants of
//! the code: kinds of updates, error and close codes, the table of commands. Resources are the schemas of the OpenAPI
//! document, which are made from the Rust types.

pub mod commands;
pub mod shape;
pub mod updates;

use serde_json::{Map, Value, json};

use crate::protocol::codes::{CloseCode, ErrorCode};
use crate::updates::UpdateKind;
use commands::{COMMANDS, EVERYWHERE};
use shape::{Kind, Shape};
use updates::{ERROR, NOTICES, body};

/// Every kind of update, in the order of the log's numbers.
pub fn update_kinds() -> impl Iterator<Item = UpdateKind> {
    (0..=u8::MAX).filter_map(UpdateKind::from_code)
}

/// The document.
pub fn document() -> Value {
    let mut messages = Map::new();
    let mut operations = Map::new();
    let mut sent = Vec::new();
    for kind in update_kinds() {
        let described = body(kind);
        let frame = json!({
            "type": "object",
            "properties": {
                "up": {"const": kind.name()}, "s": Kind::Text.schema(), "seq": Kind::Number.schema(),
                "at": Kind::Time.schema(), "d": Shape::Fields(described.d).schema(),
            },
            "required": ["up", "s", "seq", "at", "d"],
        });
        messages.insert(kind.name().to_owned(), message(described.about, frame));
        sent.push(in_channel(kind.name()));
    }
    for notice in NOTICES {
        let frame = json!({
            "type": "object",
            "properties": {"up": {"const": notice.name}, "d": Shape::Fields(notice.body.d).schema(),
                "s": Kind::Text.schema(), "seq": Kind::Number.schema()},
            "required": ["up", "d"],
        });
        messages.insert(notice.name.to_owned(), message(notice.body.about, frame));
        sent.push(in_channel(notice.name));
    }
    messages.insert("error".to_owned(), message("A command was refused; without an id it repeats cmd", error_frame()));
    for command in COMMANDS {
        let d = command.d.closed();
        // Without `d` it is taken as empty.
        let may_be_empty = d["required"].as_array().is_some_and(Vec::is_empty)
            || d.get("properties").is_none() && d.get("oneOf").is_none();
        let required = if may_be_empty { json!(["cmd"]) } else { json!(["cmd", "d"]) };
        let frame = json!({
            "type": "object",
            "properties": {"id": {"type": "integer", "minimum": 0, "maximum": u64::MAX}, "cmd": {"const": command.name},
                "d": d},
            "required": required,
            "additionalProperties": false,
        });
        messages.insert(command.name.to_owned(), message(command.about, frame));
        let mut replies = vec![in_channel("error")];
        if let Some(ok) = command.ok {
            let name = format!("{}.ok", command.name);
            let frame = json!({"type": "object", "properties": {"id": Kind::Number.schema(), "ok": ok.schema()},
                "required": ["id", "ok"]});
            replies.insert(0, in_channel(&name));
            messages.insert(name, message("Its answer", frame));
        }
        let codes: Vec<&str> = EVERYWHERE.iter().chain(command.codes).map(|code| code.as_str()).collect();
        let operation = json!({"action": "receive", "channel": channel(), "messages": [in_channel(command.name)],
            "x-error-codes": codes,
            "reply": {"channel": channel(), "messages": replies}});
        operations.insert(command.name.to_owned(), operation);
    }
    let tell = json!({"action": "send", "channel": channel(), "messages": sent});
    operations.insert("updates".to_owned(), tell);
    let in_channel: Map<String, Value> =
        messages.keys().map(|name| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")}))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "haus websocket",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Subprotocol haus.v1: JSON text frames; one frame may be an array of at most 64. Rules and order: docs/protocol.md",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"node": {"host": "127.0.0.1:8080", "protocol": "ws"}},
        "channels": {"socket": {
            "address": "/v1/ws",
            "messages": in_channel,
            "bindings": {"ws": {"method": "GET"}},
            "x-close-codes": CloseCode::ALL.iter().map(|code| (code.number().to_string(), Value::from(code.name())))
                .collect::<Map<String, Value>>(),
        }},
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas()},
    })
}

fn message(about: &str, payload: Value) -> Value {
    json!({"summary": about, "payload": payload})
}

fn channel() -> Value {
    json!({"$ref": "#/channels/socket"})
}

fn in_channel(name: &str) -> Value {
    json!({"$ref": format!("#/channels/socket/messages/{name}")})
}

fn error_frame() -> Value {
    let mut err = Shape::Fields(ERROR).schema();
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    err["properties"]["code"] = json!({"enum": codes});
    json!({"type": "object", "properties": {"id": Kind::Number.schema(), "cmd": Kind::Text.schema(), "err": err},
        "required": ["err"]})
}

/// Schemas of the OpenAPI document that commands and updates refer to, and those that these refer to.
fn schemas() -> Map<String, Value> {
    let all = match serde_json::to_value(super::router::openapi()) {
        Ok(document) => document["components"]["schemas"].clone(),
        Err(error) => {
            tracing::error!(%error, "the OpenAPI document could not be rendered");
            Value::Null
        }
    };
    let mut wanted: Vec<String> = COMMANDS
        .iter()
        .flat_map(|command| [Some(command.d), command.ok].into_iter().flatten())
        .chain(update_kinds().map(|kind| Shape::Fields(body(kind).d)))
        .chain(NOTICES.iter().map(|notice| Shape::Fields(notice.body.d)))
        .flat_map(Shape::named)
        .map(str::to_owned)
        .collect();
    COMMANDS.iter().for_each(|command| references(&command.d.closed(), &mut wanted));
    let mut found = Map::new();
    while let Some(name) = wanted.pop() {
        if let Some(schema) = all.get(&name)
            && !found.contains_key(&name)
        {
            references(schema, &mut wanted);
            found.insert(name, schema.clone());
        }
    }
    found
}

/// Names of the schemas that `value` refers to.
fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
                names.push(name.to_owned());
            }
            fields.values().for_each(|value| references(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, NOTICES, document, update_kinds};
    use serde_json::Value;

    #[test]
    fn every_command_update_and_notice_is_in_the_document() {
        let document = document();
        let message = |name: &str| document["components"]["messages"][name]["payload"]["properties"].clone();
        for kind in update_kinds() {
            assert_eq!(message(kind.name())["up"]["const"], kind.name());
        }
        for notice in NOTICES {
            assert_eq!(message(notice.name)["up"]["const"], notice.name);
        }
        for command in COMMANDS {
            assert_eq!(message(command.name)["cmd"]["const"], command.name);
            assert_eq!(document["operations"][command.name]["action"], "receive", "{}", command.name);
            assert_eq!(command.ok.is_some(), message(&format!("{}.ok", command.name)).is_object(), "{}", command.name);
        }
        assert_eq!(message("message.created")["s"]["type"], "string");
        assert!(document["components"]["schemas"]["ThreadRow"]["properties"]["lastReadNo"].is_object());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(document: &Value, value: &Value, seen: &mut usize) {
            match value {
                Value::Object(fields) => {
                    if let Some(path) = fields.get("$ref").and_then(Value::as_str) {
                        assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path}");
                        *seen += 1;
                    }
                    fields.values().for_each(|value| walk(document, value, seen));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(document, value, seen)),
                _ => {}
            }
        }
        let document = document();
        let mut seen = 0;
        walk(&document, &document, &mut seen);
        assert!(seen > 100, "{seen} references");
    }
}
