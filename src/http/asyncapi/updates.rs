//! What a node writes besides replies: updates of streams, by kind, and notices, which have no position.

use super::shape::Kind::{Flag, List, Nullable, Number, Of, Positions, Record, Text, Time, Uuid};
use super::shape::{Field, may, must};
use crate::updates::UpdateKind;

/// Body and meaning of one frame.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    pub about: &'static str,
    pub d: &'static [Field],
}

/// A frame of the server that belongs to no stream (or, `snapshot`, replaces one).
#[derive(Debug, Clone, Copy)]
pub struct Notice {
    pub name: &'static str,
    pub body: Body,
}

const MESSAGE: [Field; 2] = [must("messageId", Uuid), must("no", Number)];

/// What `d` of an update holds.
pub const fn body(kind: UpdateKind) -> Body {
    match kind {
        UpdateKind::MessageCreated => {
            const {
                Body {
                    about: "A message; null, false and empty fields are left out, and threadId and seq stand in the frame",
                    d: &[must("message", Record)],
                }
            }
        }
        UpdateKind::MessageEdited => {
            const {
                Body {
                    about: "No command writes it yet",
                    d: &[
                        MESSAGE[0],
                        MESSAGE[1],
                        must("rev", Number),
                        must("content", Nullable(&Text)),
                        must("mentions", List(&Uuid)),
                        must("editedAt", Nullable(&Time)),
                    ],
                }
            }
        }
        UpdateKind::MessageDeleted => {
            const {
                Body {
                    about: "No command writes it yet",
                    d: &[
                        MESSAGE[0],
                        MESSAGE[1],
                        must("rev", Number),
                        must("byId", Uuid),
                        must("deletedAt", Nullable(&Time)),
                    ],
                }
            }
        }
        UpdateKind::ReactionAdded | UpdateKind::ReactionRemoved => {
            const {
                Body {
                    about: "No command writes it yet; count is absolute, after it",
                    d: &[MESSAGE[0], MESSAGE[1], must("emoji", Text), must("profileId", Uuid), must("count", Number)],
                }
            }
        }
        UpdateKind::MessagePinned | UpdateKind::MessageUnpinned => {
            const { Body { about: "No command writes it yet", d: &[MESSAGE[0], MESSAGE[1], must("byId", Uuid)] } }
        }
        UpdateKind::MemberJoined => {
            const { Body { about: "At most 500 people in one", d: &[must("profileIds", List(&Uuid)), must("byId", Uuid)] } }
        }
        UpdateKind::MemberLeft => {
            const {
                Body {
                    about: "reason: left, removed",
                    d: &[must("profileIds", List(&Uuid)), must("byId", Uuid), may("reason", Text)],
                }
            }
        }
        UpdateKind::MemberChanged => {
            const {
                Body {
                    about: "Role and nickname as they are now",
                    d: &[
                        must("profileId", Uuid),
                        must("role", Of("ThreadRole")),
                        must("nickname", Nullable(&Text)),
                        must("byId", Uuid),
                    ],
                }
            }
        }
        UpdateKind::ThreadChanged => {
            const { Body { about: "thread: only the changed fields", d: &[must("thread", Record), must("byId", Uuid)] } }
        }
        UpdateKind::ThreadAdded => {
            const {
                Body {
                    about: "User stream. thread.seq is the join; a stay that has ended since tells id, type, name and seq alone",
                    d: &[must("thread", Record)],
                }
            }
        }
        UpdateKind::ThreadRemoved => {
            const {
                Body {
                    about: "User stream. Follows member.left on the same socket",
                    d: &[must("threadId", Uuid), must("seq", Number), must("reason", Text)],
                }
            }
        }
        UpdateKind::SettingsChanged => {
            const {
                Body {
                    about: "User stream. The changed settings, each whole, as they are now",
                    d: &[must("changed", Record)],
                }
            }
        }
        UpdateKind::ThreadState => {
            const {
                Body {
                    about: "User stream. Own read mark and mute, from any own device",
                    d: &[
                        must("threadId", Uuid),
                        may("lastReadNo", Number),
                        may("readRev", Number),
                        may("mentions", Number),
                        may("atNo", Number),
                        may("mutedUntil", Nullable(&Time)),
                    ],
                }
            }
        }
    }
}

/// Every notice served.
pub const NOTICES: &[Notice] = &[
    Notice {
        name: "hello",
        body: Body {
            about: "The first frame of a socket",
            d: &[
                must("protocol", Number),
                must("node", Text),
                must("heartbeatMs", Number),
                must("authTimeoutMs", Number),
                must("caps", List(&Text)),
                must("limits", Record),
                must("serverTime", Time),
            ],
        },
    },
    Notice {
        name: "resumed",
        body: Body {
            about: "The end of a resume or sync: positions reached; streams to load anew; streams one may not see",
            d: &[must("streams", Positions), must("reset", List(&Text)), must("denied", List(&Text))],
        },
    },
    Notice {
        name: "snapshot",
        body: Body {
            about: "Replaces a stream that is too far behind; seq stands in the frame. A thread: thread, messages, members, \
                    memberCount. The user stream: threads, next, inbox, settings",
            d: &[
                may("thread", Of("ThreadRow")),
                may("messages", List(&Of("Message"))),
                may("members", List(&Of("ThreadMember"))),
                may("memberCount", Number),
                may("threads", List(&Of("ThreadRow"))),
                may("next", Nullable(&Text)),
                may("inbox", Record),
                may("settings", Record),
            ],
        },
    },
    Notice {
        name: "lag",
        body: Body {
            about: "This socket goes on from the log until it has caught up",
            d: &[must("streams", List(&Text))],
        },
    },
    Notice {
        name: "hb",
        body: Body { about: "Positions up to which this socket was given everything", d: &[must("heads", Positions)] },
    },
    Notice {
        name: "auth.expiring",
        body: Body { about: "Send auth with a new token before then", d: &[must("inMs", Number)] },
    },
];

/// Fields of an error, in replies to commands.
pub const ERROR: &[Field] = &[
    must("code", Text),
    must("message", Text),
    must("retryable", Flag),
    may("retryAfterMs", Number),
    may("details", Record),
];
