//! Commands that a node serves: name, body, answer. What they do is in `realtime::commands`; a test compares the two.

use super::shape::Kind::{
    By, Closed, Flag, ListOf, Named, Nullable, Number, Of, Place, Positions, Record, Text, Time, Uuid, Within,
};
use super::shape::{Field, Kind, Shape, may, must};
use serde_json::{Value, json};
use utoipa::PartialSchema;

use crate::identity::profiles::PROFILES;
use crate::messaging::history::PAGE_MESSAGES;
use crate::messaging::rows::cursor_schema;
use crate::protocol::ErrorCode;
use crate::protocol::types::SendBody;

/// One command of a client.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    pub about: &'static str,
    pub d: Shape,
    /// Codes it may be refused with, besides [`EVERYWHERE`].
    pub codes: &'static [ErrorCode],
    /// The body of `ok`; `None` where no reply is owed.
    pub ok: Option<Shape>,
}

/// Codes that any command may be refused with.
pub const EVERYWHERE: &[ErrorCode] = &[
    ErrorCode::Unauthenticated,
    ErrorCode::Invalid,
    ErrorCode::RateLimited,
    ErrorCode::Unavailable,
    ErrorCode::Internal,
];

const THREAD: Field = must("threadId", Uuid);
const LIMIT: Field = may("limit", Within(1, PAGE_MESSAGES));
const NO_CODES: &[ErrorCode] = &[];
const NOTHING: Option<Shape> = Some(Shape::Fields(&[]));

/// Every command served, `auth` first.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "auth",
        about: "Proves who speaks, once a socket; resumes streams; on a live socket refreshes the token (answer: expiresAt alone)",
        d: Shape::Fields(&[
            may("token", Text),
            may("ticket", Text),
            may("resume", Closed(&[may("epoch", Text), may("streams", Named)])),
            may("device", Closed(&[may("id", Text), may("kind", Text)])),
            may("presence", Text),
            may("caps", Kind::List(&Text)),
        ]),
        codes: &[ErrorCode::Forbidden, ErrorCode::Conflict],
        ok: Some(Shape::Fields(&[
            must("expiresAt", Time),
            may("session", Uuid),
            may("epoch", Text),
            may("caps", Kind::List(&Text)),
            may("profile", Record),
            may("streams", Positions),
            may("threads", Kind::List(&Of("ThreadRow"))),
            may("next", Nullable(&Text)),
        ])),
    },
    Command {
        name: "message.send",
        about: "Sends a message; answered after the commit; the same nonce again gives the original",
        d: Shape::By(send),
        codes: &[
            ErrorCode::Forbidden,
            ErrorCode::NotFound,
            ErrorCode::TooLarge,
            ErrorCode::NonceConflict,
            ErrorCode::SlowMode,
            ErrorCode::ThreadArchived,
            ErrorCode::ReadOnly,
        ],
        ok: Some(Shape::Of("SendOk")),
    },
    Command {
        name: "read",
        about: "Moves the own read mark forward",
        d: Shape::Fields(&[THREAD, must("no", Place), may("readRev", Within(i32::MIN as i64, i32::MAX as i64))]),
        codes: &[ErrorCode::Forbidden, ErrorCode::NotFound],
        ok: Some(Shape::Of("ReadOk")),
    },
    Command {
        name: "thread.open",
        about: "A thread with its newest messages and first members, in one snapshot",
        d: Shape::Fields(&[THREAD, LIMIT, may("watch", Kind::List(&Uuid))]),
        codes: &[ErrorCode::NotFound],
        ok: Some(Shape::Fields(&[
            must("thread", Of("ThreadRow")),
            must("seq", Number),
            must("no", Number),
            must("messages", Kind::List(&Of("Message"))),
            must("members", Kind::List(&Of("ThreadMember"))),
            must("presence", Record),
            must("receipts", Record),
            must("typing", Record),
        ])),
    },
    Command {
        name: "thread.close",
        about: "The thread is no longer on screen",
        d: Shape::Fields(&[THREAD]),
        codes: NO_CODES,
        ok: NOTHING,
    },
    Command {
        name: "threads.list",
        about: "Own threads, newest message first",
        d: Shape::Fields(&[may("cursor", By(cursor_schema)), LIMIT]),
        codes: NO_CODES,
        ok: Some(Shape::Fields(&[must("threads", Kind::List(&Of("ThreadRow"))), must("next", Nullable(&Text))])),
    },
    Command {
        name: "profiles.get",
        about: "People by id, at most 100",
        d: Shape::Fields(&[must("ids", ListOf(&Uuid, PROFILES))]),
        codes: NO_CODES,
        ok: Some(Shape::Fields(&[must("profiles", Kind::List(&Of("Profile"))), may("rest", Kind::List(&Uuid))])),
    },
    Command {
        name: "history",
        about: "A page of messages by their number; without a number the newest",
        d: Shape::By(history),
        codes: &[ErrorCode::NotFound],
        ok: Some(Shape::Of("History")),
    },
    Command {
        name: "sync",
        about: "Catches streams up from positions, as resume does",
        d: Shape::Fields(&[must("streams", Named)]),
        codes: NO_CODES,
        ok: NOTHING,
    },
    Command {
        name: "focus",
        about: "Accepted; nothing acts on it yet",
        d: Shape::Fields(&[may("threadId", Nullable(&Uuid)), may("active", Flag)]),
        codes: NO_CODES,
        ok: None,
    },
    Command {
        name: "ping",
        about: "The server's time",
        d: Shape::By(anything),
        codes: NO_CODES,
        ok: Some(Shape::Fields(&[must("serverTime", Time)])),
    },
];

/// The body of a send over REST, with its thread.
fn send() -> Value {
    let mut schema = json!(SendBody::schema());
    for form in schema["oneOf"].as_array_mut().into_iter().flatten() {
        form["properties"]["threadId"] = Uuid.schema();
        if let Some(required) = form["required"].as_array_mut() {
            required.push(json!("threadId"));
        }
    }
    schema
}

/// At most one of the three numbers.
fn history() -> Value {
    let fields = [THREAD, may("before", Place), may("after", Place), may("around", Place), LIMIT];
    let mut schema = Shape::closed_of(&fields);
    let pairs = [["before", "after"], ["before", "around"], ["after", "around"]];
    schema["not"] = json!({"anyOf": pairs.map(|pair| json!({"required": pair}))});
    schema
}

/// What the client likes.
fn anything() -> Value {
    json!({"type": "object"})
}
