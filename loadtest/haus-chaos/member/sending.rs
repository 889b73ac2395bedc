//! What the client sends: new messages at its share of the rate, repetitions with the same nonce, conflicts and
//! trespasses that the server has to refuse.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Body, Command, Member};
use crate::checker::record::Record;

/// Sends without an answer, at most, on one socket.
const WINDOW: usize = 64;
/// Threads that get more than their share.
const HOT: usize = 2;
/// Frames of one batch: the protocol's most.
pub const BATCH_FRAMES: usize = 64;

impl Member {
    pub(super) fn send_due(&mut self, now: Instant, elapsed: Duration, may_send: bool, out: &mut Vec<Value>) {
        while self.later.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, body)) = self.later.pop_front()
        {
            self.ready.push_back(body);
        }
        if may_send && !self.identity.is_silent {
            self.make_due(elapsed);
        }
        let waiting = self.pending.values().filter(|(command, _)| matches!(command, Command::Send(_))).count();
        for _ in waiting..WINDOW {
            let Some(body) = self.ready.pop_front() else { break };
            let (client, thread, nonce, hash) = (self.identity.client, body.thread, body.nonce, body.hash);
            self.recorder.write(&Record::Send { client, thread, nonce, hash, node: self.node.clone() });
            let d = json!({"threadId": thread, "nonce": nonce, "content": body.content});
            out.push(self.command(now, "message.send", &d, Command::Send(body)));
        }
    }

    /// Makes the new messages of the time that passed; never more than the window has room for.
    fn make_due(&mut self, elapsed: Duration) {
        let workload = &self.identity.workload;
        let share = workload.sends_per_s as f64 / workload.people.max(1) as f64;
        self.budget = (self.budget + share * elapsed.as_secs_f64()).min(WINDOW as f64);
        let trespass_percent = workload.trespass_percent;
        while self.budget >= 1.0 && self.ready.len() < WINDOW {
            self.budget -= 1.0;
            let trespasses = self.rng.chance(trespass_percent);
            let mine: Vec<Uuid> =
                self.mirror.threads().filter(|thread| self.identity.targets.contains(thread)).collect();
            let others: Vec<Uuid> =
                self.identity.targets.iter().filter(|thread| !mine.contains(thread)).copied().collect();
            let from = if trespasses { &others } else { &mine };
            // The first threads are hot: a third of all messages goes to them.
            let hot: Vec<Uuid> = from
                .iter()
                .filter(|thread| self.identity.targets.iter().take(HOT).any(|hot| hot == *thread))
                .copied()
                .collect();
            let from = if self.rng.chance(33) && !hot.is_empty() { &hot } else { from };
            if let Some(thread) = self.rng.pick(from).copied() {
                let content = self.next_content();
                let nonce = self.next_nonce();
                self.ready.push_back(self.body(thread, nonce, content));
            }
        }
    }

    /// A body for a send that two nodes get at the same moment, when chance has it.
    pub fn twin(&mut self, out: &[Value]) -> Option<Body> {
        if out.is_empty() || !self.rng.chance(self.identity.workload.twin_percent) {
            return None;
        }
        let newest = self.pending.iter().max_by_key(|(id, _)| **id);
        match newest {
            Some((_, (Command::Send(body), _))) => Some(body.clone()),
            _ => None,
        }
    }

    /// After an acknowledgement some sends are repeated, some with another body.
    pub(super) fn repeat_some(&mut self, body: Body) {
        let (repeat, conflict) = (self.identity.workload.repeat_percent, self.identity.workload.conflict_percent);
        if self.rng.chance(conflict) {
            let content = self.next_content();
            self.ready.push_back(self.body(body.thread, body.nonce, content));
        } else if self.rng.chance(repeat) {
            self.ready.push_back(body);
        }
    }

    fn next_content(&mut self) -> String {
        self.counter += 1;
        let head = format!("{} from {} ", self.counter, self.identity.client);
        let padding = self.identity.workload.content_bytes.saturating_sub(head.len());
        head + &"·-".chars().cycle().take(padding).collect::<String>()
    }

    fn next_nonce(&mut self) -> Uuid {
        let high = u128::from(self.rng.next_u64());
        uuid::Builder::from_random_bytes(((high << 64) | u128::from(self.rng.next_u64())).to_be_bytes()).into_uuid()
    }
}
