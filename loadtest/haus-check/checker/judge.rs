//! Judges one history, record by record, against the final log. Linear in the length of the file:
//! every record is looked at once, and a passed-over range once for each reader who missed it.

use std::collections::HashMap;

use uuid::Uuid;

use super::position::Position;
use super::record::{Fault, PageMessage, Positions, Record, StreamId};
use super::report::{Anomaly, Report};
use super::sends::Sends;
use super::truth::{Entry, Truth};

/// A catch-up longer than this is a hard state worth reaching.
const LONG_RESUME: u64 = 100;

/// The second pass over a history.
pub struct Judge<'a> {
    truth: &'a Truth,
    report: Report,
    positions: HashMap<u32, HashMap<StreamId, Position>>,
    sends: Sends,
    reads: HashMap<(u32, u64), u64>,
    redis_down: bool,
    redis_outage_met: bool,
    line: u64,
}

impl<'a> Judge<'a> {
    /// `report` already holds what the first pass found.
    pub fn new(truth: &'a Truth, report: Report) -> Self {
        Self {
            truth,
            report,
            positions: HashMap::new(),
            sends: Sends::default(),
            reads: HashMap::new(),
            redis_down: false,
            redis_outage_met: false,
            line: 0,
        }
    }

    /// Takes in the record of one line.
    pub fn judge(&mut self, line: u64, record: Record) {
        self.line = line;
        match record {
            Record::Begin { .. } | Record::Thread { .. } | Record::Client { .. } | Record::Log { .. } => {}
            Record::Open { client, .. } | Record::Close { client } => self.end_session(client),
            Record::Auth { client, resume, streams } => self.auth(client, &resume, &streams),
            Record::Sync { client, streams } => {
                for (stream, since) in streams {
                    let found = self.position(client, stream).sync(since);
                    self.name(found, client, stream, since, "open hole at `sync`");
                }
            }
            Record::Resumed { client, streams, reset, denied } => self.resumed(client, streams, &reset, &denied),
            Record::Snapshot { client, stream, seq } => {
                let due = self.due(client, stream);
                self.position(client, stream).snapshot(seq, due);
            }
            Record::Deliver { client, stream, seq, kind, nonce, hash, t_us } => {
                self.deliver(client, stream, seq, &kind, nonce.map(|nonce| (nonce, hash)), t_us);
            }
            Record::Added { client, thread, seq } => {
                let found = self.position(client, StreamId::Thread(thread)).added(seq);
                self.name(found, client, StreamId::Thread(thread), seq, "hole before a new stay");
            }
            Record::Removed { client, thread, seq } => {
                let stream = StreamId::Thread(thread);
                let due = self.due(client, stream);
                let found = self.position(client, stream).removed(seq, due);
                self.name(found, client, stream, seq, "removed before the last updates of the stay came");
            }
            Record::Send { nonce, hash, node, .. } => self.sends.sent(nonce, hash, node),
            Record::Ack { thread, nonce, hash, seq, dup, .. } => self.ack(thread, nonce, hash, seq, dup),
            Record::Nack { nonce, hash, .. } => self.sends.refused(nonce, hash),
            Record::Read { client, thread, read } => {
                self.reads.insert((client, read), self.sends.acked_head(&thread));
            }
            Record::Page { client, thread, read, newest, messages } => {
                self.page(client, thread, read, newest, &messages);
            }
            Record::Fault { kind, node, t_us } => {
                if kind == Fault::RedisDown {
                    self.redis_down = true;
                    self.redis_outage_met = false;
                }
                self.sends.struck(kind, &node, t_us, &mut self.report.obligations);
            }
            Record::Heal { kind: Fault::NodeStop, node, .. } => self.sends.went_on(&node),
            Record::Heal { kind, .. } => self.redis_down &= kind != Fault::RedisDown,
            Record::Repairs { count, .. } => self.report.obligations.hole_filled_from_log += count,
            Record::Settled { client } => self.settled(client, false),
            Record::End { client } => self.settled(client, true),
        }
    }

    /// The verdict, once every record was taken in.
    pub fn finish(mut self) -> Report {
        let mut clients: Vec<u32> = self.positions.keys().copied().collect();
        clients.sort_unstable();
        for client in clients {
            self.end_session(client);
        }
        self.sends.finish(self.truth, &mut self.report);
        self.report.histories = 1;
        self.report
    }

    fn position(&mut self, client: u32, stream: StreamId) -> &mut Position {
        self.positions.entry(client).or_default().entry(stream).or_default()
    }

    /// What the client is entitled to in a range of the stream. The user stream is all its own.
    fn due(&self, client: u32, stream: StreamId) -> impl FnOnce(u64, u64) -> Vec<u64> + use<'a> {
        let truth = self.truth;
        let profile = truth.profile(client);
        move |from, to| match (stream, profile) {
            (StreamId::User, _) => (from..=to).collect(),
            (StreamId::Thread(thread), Some(profile)) => truth.due(&thread, &profile, from, to),
            (StreamId::Thread(_), None) => Vec::new(),
        }
    }

    fn name(&mut self, found: Option<Anomaly>, client: u32, stream: StreamId, seq: u64, what: &str) {
        if let Some(anomaly) = found {
            self.report.found(anomaly, self.line, &format!("client {client}, {stream} at {seq}: {what}"));
        }
    }

    fn auth(&mut self, client: u32, resume: &Positions, listed: &Positions) {
        let held = self.positions.entry(client).or_default().keys().copied();
        let mut streams: Vec<StreamId> = held.chain(resume.keys().copied()).chain(listed.keys().copied()).collect();
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            self.position(client, stream).begin(resume.get(&stream).copied(), listed.get(&stream).copied());
        }
    }

    fn end_session(&mut self, client: u32) {
        let mut found = Vec::new();
        for (stream, position) in self.positions.entry(client).or_default() {
            found.extend(position.end_session().map(|anomaly| (*stream, position.last(), anomaly)));
        }
        for (stream, last, anomaly) in found {
            self.name(Some(anomaly), client, stream, last.unwrap_or(0), "hole still open when the session ended");
        }
    }

    fn resumed(&mut self, client: u32, streams: Positions, reset: &[StreamId], denied: &[StreamId]) {
        let mut total = 0;
        for (stream, head) in streams {
            let due = self.due(client, stream);
            let (replayed, found) = self.position(client, stream).resumed(head, due);
            total += replayed;
            self.name(found, client, stream, head, "`resumed` left updates out");
        }
        self.report.obligations.resume_over_100 += u64::from(total > LONG_RESUME);
        for stream in reset {
            let due = self.due(client, *stream);
            self.position(client, *stream).reset(due);
        }
        for stream in denied {
            let last = self.position(client, *stream).last();
            let wrong = self.is_always_entitled(client, *stream, last).then_some(Anomaly::SilentTruncation);
            self.name(wrong, client, *stream, last.unwrap_or(0), "denied to a member who never left");
            self.position(client, *stream).forget();
        }
    }

    fn is_always_entitled(&self, client: u32, stream: StreamId, since: Option<u64>) -> bool {
        let (StreamId::Thread(thread), Some(profile), Some(since)) = (stream, self.truth.profile(client), since) else {
            return stream == StreamId::User;
        };
        let stays = self.truth.stays(&thread, &profile);
        stays.len() == 1 && stays[0].leave.is_none() && stays[0].join <= since
    }

    fn deliver(&mut self, client: u32, stream: StreamId, seq: u64, kind: &str, body: Option<(Uuid, u64)>, t_us: u64) {
        self.report.deliveries += 1;
        if self.redis_down && !self.redis_outage_met {
            self.redis_outage_met = true;
            self.report.obligations.redis_outage_with_deliveries += 1;
        }
        if let Some((nonce, hash)) = body {
            self.sends.delivered(nonce, hash, t_us);
        }
        let due = self.due(client, stream);
        let found = self.position(client, stream).deliver(seq, due);
        self.name(found, client, stream, seq, "came again or late");
        if let StreamId::Thread(thread) = stream {
            self.seen(client, thread, seq, kind, body);
            let allowed = self.truth.profile(client).is_some_and(|profile| self.truth.may_see(&thread, &profile, seq));
            let found = (!allowed).then_some(Anomaly::Unauthorised);
            self.name(found, client, stream, seq, "outside every stay");
        }
    }

    fn seen(&mut self, client: u32, thread: Uuid, seq: u64, kind: &str, body: Option<(Uuid, u64)>) {
        let stream = StreamId::Thread(thread);
        match (self.compare(&thread, seq, kind, body), body) {
            (Some(Anomaly::Phantom), Some(body)) => {
                let what = format!("client {client}, {stream} at {seq}: is not in the log");
                self.sends.seen_unlogged(body, self.line, what);
            }
            (found, _) => self.name(found, client, stream, seq, "is not what the log has"),
        }
    }

    /// Compares what was seen at `seq` with the log.
    fn compare(&self, thread: &Uuid, seq: u64, kind: &str, body: Option<(Uuid, u64)>) -> Option<Anomaly> {
        let entry = self.truth.at(thread, seq);
        let same = entry.is_some_and(|entry| match body {
            Some((nonce, hash)) => entry.nonce == Some(nonce) && entry.hash == hash,
            None => entry.kind == kind && (entry.nonce.is_none() || !entry.is_message()),
        });
        if same {
            return None;
        }
        let elsewhere = body.is_some_and(|(nonce, _)| self.truth.place_of(thread, &nonce).is_some());
        let replaced = entry.is_some() && body.is_none();
        Some(if elsewhere || replaced { Anomaly::Divergence } else { Anomaly::Phantom })
    }

    fn ack(&mut self, thread: Uuid, nonce: Uuid, hash: u64, seq: u64, dup: bool) {
        self.report.obligations.nonce_hit += u64::from(dup);
        self.report.acked += u64::from(self.sends.acked(thread, (nonce, hash), seq, dup));
        let entry = self.truth.at(&thread, seq);
        if entry.is_none_or(|entry| entry.nonce != Some(nonce) || entry.hash != hash) {
            self.report.found(Anomaly::LostAck, self.line, &format!("{thread} {seq}: {nonce} is not there"));
        }
    }

    fn page(&mut self, client: u32, thread: Uuid, read: u64, newest: bool, messages: &[PageMessage]) {
        let Some(profile) = self.truth.profile(client) else { return };
        let stream = StreamId::Thread(thread);
        let acked = self.reads.remove(&(client, read)).unwrap_or(0);
        let top = messages.iter().map(|message| message.seq).max().unwrap_or(0);
        if newest && top < acked && self.truth.may_see(&thread, &profile, acked) {
            self.name(
                Some(Anomaly::StaleReadBack),
                client,
                stream,
                acked,
                "acknowledged before the page was asked for",
            );
        }
        let rising = messages.first().map(|message| message.seq) < messages.last().map(|message| message.seq);
        let broken = messages.windows(2).find_map(|pair| {
            let (low, high) = if rising { (&pair[0], &pair[1]) } else { (&pair[1], &pair[0]) };
            let between = if low.seq < high.seq {
                self.truth.due(&thread, &profile, low.seq + 1, high.seq - 1)
            } else {
                Vec::new()
            };
            let left_out = between.iter().any(|seq| self.truth.at(&thread, *seq).is_some_and(Entry::is_message));
            (low.seq >= high.seq || low.no >= high.no || left_out).then_some(high.seq)
        });
        if let Some(seq) = broken {
            self.name(Some(Anomaly::StaleReadBack), client, stream, seq, "page out of order or with a hole");
        }
        for message in messages {
            let body = message.nonce.map(|nonce| (nonce, message.hash));
            self.seen(client, thread, message.seq, "message.created", body);
            let stays = self.truth.stays(&thread, &profile);
            let before = stays.first().is_some_and(|stay| message.seq < stay.join);
            let allowed = before || self.truth.may_see(&thread, &profile, message.seq);
            let found = (!allowed).then_some(Anomaly::Unauthorised);
            self.name(found, client, stream, message.seq, "page shows what lies outside every stay");
            self.position(client, stream).read(message.seq);
        }
    }

    fn settled(&mut self, client: u32, to_the_end: bool) {
        let Some(profile) = self.truth.profile(client) else { return };
        // The log of user streams is not recorded; what `auth` listed must have come all the same.
        let user = self.position(client, StreamId::User);
        let (below, last) = (user.below_listed(), user.last().unwrap_or(0));
        let stuck = (below > 0).then_some(Anomaly::Stall);
        self.name(stuck, client, StreamId::User, last, "below what `auth` listed");
        for thread in self.truth.threads_of(&profile) {
            let (stream, head) = (StreamId::Thread(thread), self.truth.head(&thread));
            let truth = self.truth;
            let join = truth.open_stay(&thread, &profile).map_or(0, |stay| stay.join);
            let position = self.position(client, stream);
            let last = position.last().unwrap_or(0);
            let is_message = |seq: &u64| truth.at(&thread, *seq).is_some_and(Entry::is_message);
            let unread = position.unread_since(join).find(is_message);
            if last < head {
                self.name(Some(Anomaly::Stall), client, stream, last, &format!("below the head {head}"));
            } else if let Some(seq) = unread.filter(|_| to_the_end) {
                self.name(Some(Anomaly::Stall), client, stream, seq, "never shown, live or on a page");
            }
        }
    }
}
