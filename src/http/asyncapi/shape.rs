//! Shapes of bodies, small enough to stand in tables, and their JSON Schema. The tables are in `commands` and `updates`.

use serde_json::{Map, Value, json};

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Uuid,
    Text,
    Number,
    Flag,
    Time,
    /// An object whose fields the text describes.
    Record,
    /// Stream name (`user` or a thread id) → position.
    Positions,
    /// A schema of the OpenAPI document, made from the Rust type of that name.
    Of(&'static str),
    List(&'static Kind),
    Nullable(&'static Kind),
}

/// One field of a body.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub is_required: bool,
}

/// A body: named fields, or a schema of its own.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    Fields(&'static [Field]),
    Of(&'static str),
}

/// A field that is always there.
pub const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: true }
}

/// A field that may be absent.
pub const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: false }
}

impl Kind {
    /// Its JSON Schema.
    pub fn schema(self) -> Value {
        match self {
            Self::Uuid => json!({"type": "string", "format": "uuid"}),
            Self::Text => json!({"type": "string"}),
            Self::Number => json!({"type": "integer"}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Time => json!({"type": "string", "format": "date-time"}),
            Self::Record => json!({"type": "object"}),
            Self::Positions => json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            Self::Of(name) => reference(name),
            Self::List(item) => json!({"type": "array", "items": item.schema()}),
            Self::Nullable(kind) => json!({"oneOf": [kind.schema(), {"type": "null"}]}),
        }
    }

    fn named(self, names: &mut Vec<&'static str>) {
        match self {
            Self::Of(name) => names.push(name),
            Self::List(inner) | Self::Nullable(inner) => inner.named(names),
            _ => {}
        }
    }
}

impl Shape {
    /// Its JSON Schema.
    pub fn schema(self) -> Value {
        match self {
            Self::Of(name) => reference(name),
            Self::Fields(fields) => {
                let properties: Map<String, Value> =
                    fields.iter().map(|field| (field.name.to_owned(), field.kind.schema())).collect();
                let required: Vec<&str> =
                    fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
                json!({"type": "object", "properties": properties, "required": required})
            }
        }
    }

    /// Names of the schemas it refers to.
    pub fn named(self) -> Vec<&'static str> {
        let mut names = Vec::new();
        match self {
            Self::Of(name) => names.push(name),
            Self::Fields(fields) => fields.iter().for_each(|field| field.kind.named(&mut names)),
        }
        names
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
