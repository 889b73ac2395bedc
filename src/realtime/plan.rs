//! What a `resume` or `sync` gets, stream by stream: the missed updates, a snapshot, a reset or a denial. Pure.

use std::collections::HashMap;

use uuid::Uuid;

use super::inbox::ResumeAnswer;
use crate::saboteur::{self, Bug};
use crate::updates::StreamId;

/// Missed updates of one stream above which a snapshot is sent instead.
pub const MISSED_UPDATES: u64 = 500;
/// Updates of one catch-up, all streams together; streams beyond it are reset.
pub const CATCH_UP_UPDATES: u64 = 5_000;
/// Bytes of one catch-up; streams beyond it are reset.
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
}

impl StreamPlan {
    /// Live from a position read from the database.
    pub fn live(stream: StreamId, seq: u64) -> Self {
        Self { stream, since: seq, known: seq, snapshot: false, resumed: false }
    }
}

/// Head and start of the present stay of a stream that the session may see.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub head: u64,
    pub join_seq: u64,
}

/// Judges the streams a client names. `names` as on the wire: `user` or a thread id. Streams in `reset` keep being live at
/// their head where they already are; no plan is made for them.
pub fn judge(
    names: &[(String, u64)],
    same_epoch: bool,
    user: Uuid,
    positions: &HashMap<StreamId, Position>,
) -> (Vec<StreamPlan>, ResumeAnswer) {
    let mut plans = Vec::new();
    let mut answer = ResumeAnswer::default();
    let mut total = 0;
    for (name, since) in names {
        let stream = match name.as_str() {
            "user" => StreamId::User(user),
            id => match Uuid::parse_str(id) {
                Ok(id) => StreamId::Thread(id),
                Err(_) => {
                    answer.denied.push(name.clone());
                    continue;
                }
            },
        };
        let Some(position) = positions.get(&stream) else {
            // Planted: the client's word counts.
            if saboteur::plants(Bug::NoRecheckOnResume) {
                plans.push(StreamPlan { resumed: true, ..StreamPlan::live(stream, *since) });
                continue;
            }
            answer.denied.push(name.clone());
            continue;
        };
        let missed = position.head.saturating_sub(*since);
        let replays = if same_epoch && *since <= position.head { missed } else { u64::MAX };
        if replays == u64::MAX {
            answer.reset.push(stream);
            continue;
        }
        let snapshot = since + 1 < position.join_seq || missed > MISSED_UPDATES;
        let cost = if snapshot { 50 } else { missed };
        if total + cost > CATCH_UP_UPDATES {
            answer.reset.push(stream);
            continue;
        }
        total += cost;
        plans.push(StreamPlan { stream, since: *since, known: position.head, snapshot, resumed: true });
    }
    (plans, answer)
}

#[cfg(test)]
mod tests {
    use super::{Position, judge};
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
        let mut names = vec![
            ("user".to_owned(), 9),
            (ids[0].to_string(), 1000),
            (ids[1].to_string(), 599),
            (ids[2].to_string(), 598),
            (ids[3].to_string(), 1001),
            (Uuid::now_v7().to_string(), 1),
            ("nonsense".to_owned(), 1),
        ];
        let (plans, answer) = judge(&names, true, user, &positions);
        let shape: Vec<(u64, bool)> = plans.iter().map(|plan| (plan.since, plan.snapshot)).collect();
        assert_eq!(shape, [(9, false), (1000, false), (599, false), (598, true)]);
        assert_eq!(answer.reset, [StreamId::Thread(ids[3])]);
        assert_eq!(answer.denied.len(), 2);

        // 5,000 updates in all: ten streams of 500 fit, the others are reset.
        names = ids[5..].iter().map(|id| (id.to_string(), 0)).collect();
        let (plans, answer) = judge(&names, true, user, &positions);
        assert_eq!((plans.len(), answer.reset.len()), (10, 5));
        let (plans, answer) = judge(&names, false, user, &positions);
        assert_eq!((plans.len(), answer.reset.len()), (0, 15));
    }
}
