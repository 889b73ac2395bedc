//! What a `resume` or `sync` gets, stream by stream: the missed updates, a snapshot, a reset or a denial. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use uuid::Uuid;

use super::inbox::ResumeAnswer;
use crate::saboteur::{self, Bug};
use crate::updates::StreamId;

/// Missed updates of one stream above which a snapshot is sent instead.
pub const MISSED_UPDATES: u64 = 500;
/// Updates of one catch-up, all threads together; threads beyond it are reset.
pub const CATCH_UP_UPDATES: u64 = 5_000;
/// Bytes of one catch-up; threads beyond it are reset.
pub const CATCH_UP_BYTES: usize = 4 << 20;
/// Streams one frame may name.
pub const STREAMS: usize = 500;

/// How one session gets to be live in one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlan {
    pub stream: StreamId,
    /// Position of the client.
    pub since: u64,
    /// A head read from the database.
    pub known: u64,
    /// Replace what the client holds instead of replaying.
    pub snapshot: bool,
    /// The stream is to be named in `resumed`.
    pub resumed: bool,
    /// The position lies within a stay of this person, which may have ended since: all up to its end may be replayed.
    pub stay: bool,
    /// The stay has ended: the log is told to its end, however long it is.
    pub ended: bool,
}

impl StreamPlan {
    /// Live from a position that lies within a stay: read from the database, or told by an update.
    pub fn live(stream: StreamId, seq: u64) -> Self {
        Self { stream, since: seq, known: seq, snapshot: false, resumed: false, stay: true, ended: false }
    }
}

/// Head and start of the present stay of a stream that the session may see.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub head: u64,
    pub join_seq: u64,
}

/// A stream as a client names it: `user` or the id of a thread, in any form of a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    User,
    Thread(Uuid),
    /// Nothing that could be a stream.
    Unknown(String),
}

impl Name {
    fn parse(text: String) -> Self {
        match text.as_str() {
            "user" => Self::User,
            id => Uuid::parse_str(id).map_or(Self::Unknown(text), Self::Thread),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Thread(id) => id.fmt(f),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

/// Streams of a `resume` or `sync` with the client's positions: at most [`STREAMS`], none twice.
#[derive(Debug, Default)]
pub struct Named(pub Vec<(Name, u64)>);

impl Named {
    /// The threads among them.
    pub fn threads(&self) -> Vec<Uuid> {
        let id = |(name, _): &(Name, u64)| if let Name::Thread(id) = name { Some(*id) } else { None };
        self.0.iter().filter_map(id).collect()
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Streams;
        impl<'de> Visitor<'de> for Streams {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("streams with their positions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let (mut seen, mut named) = (HashSet::new(), Vec::new());
                while let Some(text) = map.next_key()? {
                    let name = Name::parse(text);
                    if named.len() == STREAMS {
                        return Err(A::Error::custom("streams: at most 500 in a frame; send further ones with sync"));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("streams: {name} is named twice")));
                    }
                    named.push((name, map.next_value()?));
                }
                Ok(Named(named))
            }
        }
        deserializer.deserialize_map(Streams)
    }
}

/// Positions by stream.
pub fn positions(user: Uuid, user_seq: u64, threads: &[(Uuid, Position)]) -> HashMap<StreamId, Position> {
    let own = (StreamId::User(user), Position { head: user_seq, join_seq: 1 });
    threads.iter().map(|(id, position)| (StreamId::Thread(*id), *position)).chain([own]).collect()
}

/// Judges the streams a client names. Threads in `reset` keep being live at their head where they already are; no plan is
/// made for them. The user stream comes first and is never too much: what it skips would be threads that nobody shows.
pub fn judge(
    named: &Named,
    same_epoch: bool,
    user: Uuid,
    positions: &HashMap<StreamId, Position>,
) -> (Vec<StreamPlan>, ResumeAnswer) {
    let mut plans = Vec::new();
    let mut answer = ResumeAnswer::default();
    let mut total = 0;
    let is_user = |(name, _): &&(Name, u64)| *name == Name::User;
    let rest = named.0.iter().filter(|one| !is_user(one));
    for (name, since) in named.0.iter().filter(is_user).chain(rest) {
        let stream = match name {
            Name::User => StreamId::User(user),
            Name::Thread(id) => StreamId::Thread(*id),
            Name::Unknown(_) => {
                answer.denied.push(name.to_string());
                continue;
            }
        };
        let Some(position) = positions.get(&stream) else {
            // Planted: the client's word counts.
            if saboteur::plants(Bug::NoRecheckOnResume) {
                plans.push(StreamPlan { resumed: true, ..StreamPlan::live(stream, *since) });
                continue;
            }
            answer.denied.push(name.to_string());
            continue;
        };
        if !same_epoch || *since > position.head {
            answer.reset.push(stream);
            continue;
        }
        let missed = position.head - since;
        let stay = since.saturating_add(1) >= position.join_seq;
        let snapshot = !stay || missed > MISSED_UPDATES;
        if !stream.is_user() {
            let cost = if snapshot { 50 } else { missed };
            if total + cost > CATCH_UP_UPDATES {
                answer.reset.push(stream);
                continue;
            }
            total += cost;
        }
        // Planted: the update at the position comes once more.
        let since = if saboteur::plants(Bug::CursorGe) { since.saturating_sub(1) } else { *since };
        plans.push(StreamPlan { stream, since, known: position.head, snapshot, resumed: true, stay, ended: false });
    }
    (plans, answer)
}

#[cfg(test)]
mod tests {
    use super::{Name, Named, Position, judge};
    use crate::updates::StreamId;
    use std::collections::HashMap;
    use uuid::Uuid;

    #[test]
    fn every_stream_is_judged_once() {
        let user = Uuid::now_v7();
        let ids: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
        let mut positions = HashMap::from([(StreamId::User(user), Position { head: 9, join_seq: 1 })]);
        for id in &ids[..5] {
            positions.insert(StreamId::Thread(*id), Position { head: 1000, join_seq: 600 });
        }
        for id in &ids[5..] {
            positions.insert(StreamId::Thread(*id), Position { head: 500, join_seq: 1 });
        }
        let names = Named(vec![
            (Name::Thread(ids[0]), 1000),
            (Name::Thread(ids[1]), 599),
            (Name::Thread(ids[2]), 598),
            (Name::Thread(ids[3]), 1001),
            (Name::Thread(Uuid::now_v7()), 1),
            (Name::Unknown("nonsense".to_owned()), 1),
            (Name::User, 9),
        ]);
        let (plans, answer) = judge(&names, true, user, &positions);
        let shape: Vec<(u64, bool)> = plans.iter().map(|plan| (plan.since, plan.snapshot)).collect();
        assert_eq!(shape, [(9, false), (1000, false), (599, false), (598, true)], "the user stream first");
        assert_eq!(answer.reset, [StreamId::Thread(ids[3])]);
        assert_eq!(answer.denied.len(), 2);

        // 5,000 updates in all: ten streams of 500 fit, the others are reset.
        let names = Named(ids[5..].iter().map(|id| (Name::Thread(*id), 0)).collect());
        let (plans, answer) = judge(&names, true, user, &positions);
        assert_eq!((plans.len(), answer.reset.len()), (10, 5));
        let (plans, answer) = judge(&names, false, user, &positions);
        assert_eq!((plans.len(), answer.reset.len()), (0, 15));
    }

    #[test]
    fn a_stream_is_named_once_however_it_is_written() {
        let id = Uuid::now_v7();
        let named = |text: String| serde_json::from_str::<Named>(&text).map(|named| named.0);
        let (plain, upper, bare) = (id.to_string(), id.to_string().to_uppercase(), id.simple().to_string());
        assert_eq!(named(format!(r#"{{"{upper}":3,"x":1}}"#)).expect("one each")[0], (Name::Thread(id), 3));
        for (one, other) in [(&plain, &plain), (&plain, &upper), (&bare, &upper), (&bare, &plain)] {
            assert!(named(format!(r#"{{"{one}":3,"user":1,"{other}":3}}"#)).is_err(), "{one} {other}");
        }
        assert!(named(r#"{"user":1,"user":1}"#.to_owned()).is_err());
        assert!(named(r#"{"x":1,"x":2}"#.to_owned()).is_err());
        let many = |count: u128| {
            let names: Vec<String> = (0..count).map(|n| format!(r#""{}":0"#, Uuid::from_u128(n))).collect();
            named(format!("{{{}}}", names.join(","))).is_ok()
        };
        assert_eq!((many(500), many(501)), (true, false));
    }
}
