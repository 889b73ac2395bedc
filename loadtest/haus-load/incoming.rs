//! What each frame means: the handshake up to live, replies to sends, and updates judged against the socket's positions.

use crate::clock::now_ns;
use crate::conn::{AUTH_ID, FIRST_SEND_ID, LIST_ID, OPEN_ID, Phase, Slot};
use crate::directory::{ID_BYTES, thread_key};
use crate::engine::{Awaited, Ended, Engine};
use crate::frame::put_client_text;
use crate::outgoing::{MARK, Peer};
use crate::replies;
use crate::scan::{Kind, find, kind, number, split_batch, stamp};
use crate::tally::Tally;

/// Stands for the user stream where a thread's index is expected.
const USER_STREAM: u32 = u32::MAX;
/// Longest answer to an upgrade that is waited for.
const UPGRADE_LIMIT: usize = 8 * 1024;

impl Engine {
    /// The connection stands: says what the peer expects first.
    pub fn greet(&mut self, i: usize) {
        let conn = &mut self.conns[i];
        match &self.peer {
            Peer::Haus => {
                conn.phase = Phase::Upgrading;
                let host = &self.targets[usize::from(conn.url)].host;
                conn.queue_upgrade(host);
            }
            Peer::Floor(floor) => {
                conn.phase = Phase::Greeting;
                conn.out.extend_from_slice(&floor.room_of(i).to_le_bytes());
            }
        }
        self.mark_dirty(i);
    }

    /// Looks for the end of the answer to the upgrade; returns its length once it is there and says 101.
    pub fn upgraded(&mut self, i: usize, bytes: &[u8]) -> Option<usize> {
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            if bytes.len() > UPGRADE_LIMIT {
                self.end(i, Ended::Because("upgrade: no end".to_owned()));
            }
            return None;
        };
        let status = bytes.get(9..12).unwrap_or_default();
        if status != b"101" {
            let why = format!("upgrade: HTTP {}", String::from_utf8_lossy(status));
            self.end(i, Ended::Because(why));
            return None;
        }
        self.conns[i].phase = Phase::Greeting;
        Some(end + 4)
    }

    /// One text frame.
    #[inline]
    pub fn text(&mut self, i: usize, payload: &[u8], now: u64) {
        match kind(payload) {
            Kind::Update { name, stream, seq } => self.update(i, name, stream, seq, payload, now),
            Kind::Reply { id, ok } if id >= FIRST_SEND_ID => self.sent_reply(id, ok, payload, now),
            Kind::Reply { id, ok } => self.handshake_reply(i, id, ok, payload, now),
            Kind::Plain { name } => self.plain(i, name, payload, now),
            Kind::Batch => split_batch(payload).into_iter().for_each(|part| self.text(i, part, now)),
            Kind::Unknown => self.tally.faults.unreadable += 1,
        }
    }

    #[inline]
    fn update(&mut self, i: usize, name: &[u8], stream: &[u8], seq: u64, payload: &[u8], now: u64) {
        let conn = &mut self.conns[i];
        let Ok(id) = <&[u8; ID_BYTES]>::try_from(stream) else {
            conn.user_last = self.tally.judge(i as u32, USER_STREAM, conn.user_last, seq);
            return;
        };
        let sender_url = conn.url;
        let Some(slot) = conn.slot(thread_key(id)) else {
            self.tally.faults.strangers += 1;
            return;
        };
        if name == b"snapshot" {
            let (thread, last) = (slot.thread, std::mem::replace(&mut slot.last, seq));
            return self.replaced(thread, last, seq);
        }
        let before = slot.last;
        slot.last = self.tally.judge(i as u32, slot.thread, before, seq);
        if slot.last == before {
            return;
        }
        let thread = slot.thread;
        let Some(stamp) = stamp(payload, &mut self.stamp_hint) else { return };
        if stamp.run != self.run {
            return;
        }
        self.tally.counts.deliveries += 1;
        self.tally.counts.delivery_bytes += payload.len() as u64;
        if stamp.url == sender_url {
            self.tally.deliveries.record(stamp.intended_ns, now);
        } else {
            self.tally.remote.record(stamp.intended_ns, now);
        }
        if self.marks.wanted
            && let Some(at) = find(payload, b"\"no\":")
        {
            self.mark_read(i, thread, number(&payload[at + 5..]).0, now);
        }
        if self.directory.arrive(thread, seq) {
            self.tally.counts.complete += 1;
        }
    }

    /// A snapshot stands for every update after `last` up to `seq`: as good as delivered, though not counted as a delivery.
    #[cold]
    fn replaced(&mut self, thread: u32, last: u64, seq: u64) {
        Tally::count(&mut self.tally.plain, b"snapshot");
        for skipped in last + 1..=seq {
            self.tally.counts.replaced += 1;
            self.tally.counts.complete += u64::from(self.directory.arrive(thread, skipped));
        }
    }

    fn sent_reply(&mut self, id: u64, ok: bool, payload: &[u8], now: u64) {
        let at = id as usize & (self.awaited.len() - 1);
        let awaited = self.awaited[at];
        if awaited.id != id {
            self.tally.faults.unreadable += 1;
            return;
        }
        self.awaited[at] = Awaited::default();
        if awaited.thread == MARK {
            self.mark_reply(awaited.intended_ns, ok, payload, now);
        } else if ok {
            self.tally.counts.acked += 1;
            self.tally.counts.owed += u64::from(self.directory.threads[awaited.thread as usize].members);
            self.tally.acks.record(awaited.intended_ns, now);
        } else {
            self.tally.counts.refused += 1;
            // A refused send reaches nobody: it is done.
            self.tally.counts.complete += 1;
            Tally::count(&mut self.tally.errors, replies::error_code(payload));
        }
    }

    fn mark_reply(&mut self, sent_ns: u64, ok: bool, payload: &[u8], now: u64) {
        if ok {
            self.marks.answered += 1;
            self.tally.marks.record(sent_ns, now);
        } else {
            self.marks.refused += 1;
            Tally::count(&mut self.tally.errors, replies::error_code(payload));
        }
    }

    fn plain(&mut self, i: usize, name: &[u8], payload: &[u8], now: u64) {
        Tally::count(&mut self.tally.plain, name);
        match name {
            b"hello" if self.conns[i].phase == Phase::Greeting => {
                let token = &self.people[self.conns[i].person as usize].token;
                let threads = &self.directory.threads;
                let caps = if self.marks.wanted { "[\"receipts\"]" } else { "[]" };
                self.conns[i].queue_auth(token, i, caps, |thread| &threads[thread as usize].id);
                self.conns[i].phase = Phase::Authenticating;
                self.mark_dirty(i);
            }
            b"ready" if self.conns[i].phase == Phase::Greeting => self.live(i, now),
            b"resumed" => self.caught_up(i, payload),
            _ => {}
        }
    }

    fn handshake_reply(&mut self, i: usize, id: u64, ok: bool, payload: &[u8], now: u64) {
        if id == OPEN_ID && ok {
            self.marks.opened += 1;
            return;
        }
        let listed = if ok && (id == AUTH_ID || id == LIST_ID) { replies::listed(payload) } else { None };
        let Some(listed) = listed else {
            Tally::count(&mut self.tally.errors, replies::error_code(payload));
            return self.end(i, Ended::Because("auth refused".to_owned()));
        };
        for row in &listed.threads {
            let (thread, key) = match self.directory.intern(&row.id) {
                Ok(found) => found,
                Err(why) => return self.end(i, Ended::Because(why.to_string())),
            };
            // A thread held already keeps its position: the resume brings what lies between.
            if self.conns[i].slot(key).is_none() {
                self.conns[i].slots.push(Slot { key, thread, last: row.seq });
            }
            let head = &mut self.directory.threads[thread as usize].head;
            *head = (*head).max(row.seq);
        }
        let conn = &mut self.conns[i];
        if id == AUTH_ID {
            if !conn.resuming {
                conn.user_last = listed.streams.get("user").copied().unwrap_or(0);
            }
            conn.epoch = listed.epoch;
        }
        match listed.next.filter(|next| !next.is_null()) {
            Some(cursor) => {
                let ask = format!("{{\"id\":{LIST_ID},\"cmd\":\"threads.list\",\"d\":{{\"cursor\":{cursor}}}}}");
                put_client_text(&mut conn.out, ask.as_bytes());
                conn.phase = Phase::Listing;
                self.mark_dirty(i);
            }
            None => self.live(i, now),
        }
    }

    fn live(&mut self, i: usize, now: u64) {
        let conn = &mut self.conns[i];
        conn.phase = Phase::Live;
        conn.slots.shrink_to_fit();
        self.handshakes -= 1;
        self.live += 1;
        for slot in &conn.slots {
            self.directory.threads[slot.thread as usize].members += 1;
        }
        self.tally.ready.record(conn.dialed_ns, now);
    }

    /// `resumed`: what was named must now be held; streams that were reset are taken as they are.
    fn caught_up(&mut self, i: usize, payload: &[u8]) {
        let Some(resumed) = replies::resumed(payload) else {
            self.tally.faults.unreadable += 1;
            return;
        };
        for name in resumed.reset.iter().chain(&resumed.denied) {
            Tally::count(&mut self.tally.plain, b"resumed: reset or denied");
            if let Some(slot) = self.slot_of(i, name) {
                slot.last = resumed.streams.get(name).copied().unwrap_or(slot.last);
            }
        }
        for (name, head) in &resumed.streams {
            let last = match self.slot_of(i, name) {
                Some(slot) => slot.last,
                None if name == "user" => self.conns[i].user_last,
                None => continue,
            };
            self.tally.faults.gaps += head.saturating_sub(last);
        }
        if std::mem::take(&mut self.conns[i].resuming) {
            self.resumed += 1;
            self.tally.resumes.record(self.conns[i].dialed_ns, now_ns());
        }
    }

    fn slot_of(&mut self, i: usize, name: &str) -> Option<&mut Slot> {
        let id = <&[u8; ID_BYTES]>::try_from(name.as_bytes()).ok()?;
        self.conns[i].slot(thread_key(id))
    }
}
