//! Shapes of bodies, small enough to stand in tables, and their JSON Schema. The tables are in `commands` and `updates`.

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::Object;

use crate::realtime::plan::STREAMS;

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Uuid,
    Text,
    Number,
    /// A whole number, both ends included.
    Within(i64, i64),
    /// What a client may name: a `seq` or `no` of 0 or more.
    Place,
    /// Made where its rule is.
    By(fn() -> Object),
    Flag,
    Time,
    /// An object whose fields the text describes.
    Record,
    /// An object with these fields and no others.
    Closed(&'static [Field]),
    /// Stream name (`user` or a thread id) → position.
    Positions,
    /// The same, as a client may name them: at most [`STREAMS`].
    Named,
    /// A schema of the OpenAPI document, made from the Rust type of that name.
    Of(&'static str),
    List(&'static Kind),
    /// At most so many.
    ListOf(&'static Kind, usize),
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
    /// Made where its rule is.
    By(fn() -> Value),
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
            Self::Within(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Place => Self::Within(0, i64::MAX).schema(),
            Self::By(make) => json!(make()),
            Self::Closed(fields) => closed(fields),
            Self::ListOf(item, most) => json!({"type": "array", "items": item.schema(), "maxItems": most}),
            Self::Named => json!({"type": "object", "maxProperties": STREAMS,
                "additionalProperties": {"type": "integer", "minimum": 0, "maximum": u64::MAX}}),
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
            Self::List(inner) | Self::ListOf(inner, _) | Self::Nullable(inner) => inner.named(names),
            Self::Closed(fields) => fields.iter().for_each(|field| field.kind.named(names)),
            _ => {}
        }
    }
}

impl Shape {
    /// Its JSON Schema.
    pub fn schema(self) -> Value {
        match self {
            Self::Of(name) => reference(name),
            Self::By(make) => make(),
            Self::Fields(fields) => open(fields),
        }
    }

    /// The same of what a client sends: there is nothing in it that is not named.
    pub fn closed(self) -> Value {
        match self {
            Self::Fields(fields) => closed(fields),
            other => other.schema(),
        }
    }

    /// [`Shape::closed`] of fields that are no constant.
    pub fn closed_of(fields: &[Field]) -> Value {
        closed(fields)
    }

    /// Names of the schemas it refers to.
    pub fn named(self) -> Vec<&'static str> {
        let mut names = Vec::new();
        match self {
            Self::Of(name) => names.push(name),
            Self::Fields(fields) => fields.iter().for_each(|field| field.kind.named(&mut names)),
            Self::By(_) => {}
        }
        names
    }
}

fn open(fields: &[Field]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.to_owned(), field.kind.schema())).collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn closed(fields: &[Field]) -> Value {
    let mut schema = open(fields);
    schema["additionalProperties"] = json!(false);
    schema
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
