//! Commands that a node serves: name, body, answer. What they do is in `realtime::commands`; a test compares the two.

use super::shape::Kind::{Flag, Nullable, Number, Of, Positions, Record, Text, Time, Uuid};
use super::shape::{Field, Kind, Shape, may, must};

/// One command of a client.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    pub about: &'static str,
    pub d: &'static [Field],
    /// The body of `ok`; `None` where no reply is owed.
    pub ok: Option<Shape>,
}

const THREAD: Field = must("threadId", Uuid);
const NOTHING: Option<Shape> = Some(Shape::Fields(&[]));

/// Every command served, `auth` first.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "auth",
        about: "Proves who speaks, once a socket; resumes streams; on a live socket refreshes the token (answer: expiresAt alone)",
        d: &[
            may("token", Text),
            may("ticket", Text),
            may("resume", Record),
            may("device", Record),
            may("presence", Text),
            may("caps", Kind::List(&Text)),
        ],
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
        d: &[
            THREAD,
            must("nonce", Uuid),
            may("content", Nullable(&Text)),
            may("mediaUrl", Nullable(&Text)),
            may("mediaType", Nullable(&Of("MediaType"))),
            may("replyToId", Nullable(&Uuid)),
            may("mentions", Kind::List(&Uuid)),
        ],
        ok: Some(Shape::Of("SendOk")),
    },
    Command {
        name: "read",
        about: "Moves the own read mark forward",
        d: &[THREAD, must("no", Number), may("readRev", Number)],
        ok: Some(Shape::Of("ReadOk")),
    },
    Command {
        name: "thread.open",
        about: "A thread with its newest messages and first members, in one snapshot",
        d: &[THREAD, may("limit", Number), may("watch", Kind::List(&Uuid))],
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
    Command { name: "thread.close", about: "The thread is no longer on screen", d: &[THREAD], ok: NOTHING },
    Command {
        name: "threads.list",
        about: "Own threads, newest message first",
        d: &[may("cursor", Nullable(&Text)), may("limit", Number)],
        ok: Some(Shape::Fields(&[must("threads", Kind::List(&Of("ThreadRow"))), must("next", Nullable(&Text))])),
    },
    Command {
        name: "profiles.get",
        about: "People by id, at most 100",
        d: &[must("ids", Kind::List(&Uuid))],
        ok: Some(Shape::Fields(&[must("profiles", Kind::List(&Of("Profile"))), may("rest", Kind::List(&Uuid))])),
    },
    Command {
        name: "history",
        about: "A page of messages by their number; without a number the newest",
        d: &[THREAD, may("before", Number), may("after", Number), may("around", Number), may("limit", Number)],
        ok: Some(Shape::Of("History")),
    },
    Command {
        name: "sync",
        about: "Catches streams up from positions, as resume does",
        d: &[must("streams", Positions)],
        ok: NOTHING,
    },
    Command {
        name: "focus",
        about: "Accepted; nothing acts on it yet",
        d: &[may("threadId", Nullable(&Uuid)), may("active", Flag)],
        ok: None,
    },
    Command { name: "ping", about: "The server's time", d: &[], ok: Some(Shape::Fields(&[must("serverTime", Time)])) },
];
