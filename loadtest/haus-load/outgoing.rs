//! What we send: `message.send` to a server, or the ready frame to a floor. Both carry the same stamp in 200 bytes of content.

use crate::conn::OPEN_ID;
use crate::engine::{Awaited, Engine};
use crate::floor::FloorPeer;
use crate::frame::{TEXT, put_client_header, put_client_text, put_server_header};
use crate::scan::{STAMP_BYTES, Stamp, put_hex, put_stamp};
use std::io::Write;

/// Bytes of content of every message.
pub const CONTENT_BYTES: usize = 200;
/// Filler of a content after its stamp; ordinary words, so that nothing on the way treats it as special.
const FILLER: &[u8] = b" the category is load and every letter of it counts";

/// Stands for a thread in [`Awaited`] where the reply is that of a read mark.
pub const MARK: u32 = u32::MAX;

/// What is on the other side.
pub enum Peer {
    /// A `haus` server.
    Haus,
    /// A floor: a bare loop process.
    Floor(FloorPeer),
}

impl Engine {
    /// Queues one message from socket `i` to `thread`, meant for `intended_ns`. False when too many replies are awaited.
    pub fn send(&mut self, i: usize, thread: u32, intended_ns: u64) -> bool {
        let id = self.next_id;
        let at = id as usize & (self.awaited.len() - 1);
        if self.awaited[at].id != 0 {
            return false;
        }
        self.awaited[at] = Awaited { id, intended_ns, thread };
        self.next_id += 1;
        self.tally.counts.offered += 1;
        let stamp = Stamp { run: self.run, url: self.conns[i].url, intended_ns };
        let target = &mut self.directory.threads[thread as usize];
        let out = &mut self.conns[i].out;
        match &self.peer {
            Peer::Haus => {
                put_send(out, id, &target.id, (u64::from(self.run) << 48) | intended_ns & 0xffff_ffff_ffff, stamp)
            }
            Peer::Floor(floor) => {
                target.head += 1;
                put_publish(out, id, thread, target.head, &target.id, floor.frame_bytes, stamp);
            }
        }
        self.mark_dirty(i);
        true
    }

    /// Queues `thread.open`, which makes the socket a receiver of receipts.
    pub fn open_thread(&mut self, i: usize, thread: u32) {
        let id = String::from_utf8_lossy(&self.directory.threads[thread as usize].id);
        let text = format!("{{\"id\":{OPEN_ID},\"cmd\":\"thread.open\",\"d\":{{\"threadId\":\"{id}\",\"limit\":1}}}}");
        put_client_text(&mut self.conns[i].out, text.as_bytes());
        self.mark_dirty(i);
    }

    /// Queues a read mark up to message `no`.
    pub fn mark_read(&mut self, i: usize, thread: u32, no: u64, now_ns: u64) {
        let id = self.next_id;
        let at = id as usize & (self.awaited.len() - 1);
        if self.awaited[at].id != 0 {
            return;
        }
        self.awaited[at] = Awaited { id, intended_ns: now_ns, thread: MARK };
        self.next_id += 1;
        self.marks.sent += 1;
        let thread_id = String::from_utf8_lossy(&self.directory.threads[thread as usize].id);
        let text = format!("{{\"id\":{id},\"cmd\":\"read\",\"d\":{{\"threadId\":\"{thread_id}\",\"no\":{no}}}}}");
        put_client_text(&mut self.conns[i].out, text.as_bytes());
        self.mark_dirty(i);
    }

    /// Messages sent that are not done: not acknowledged, or not yet with everybody.
    pub fn in_flight(&self, until: Until) -> u64 {
        let counts = &self.tally.counts;
        let unanswered = counts.offered - counts.acked - counts.refused;
        match until {
            Until::Acked => unanswered,
            Until::Delivered if !self.directory.follows_arrival() => unanswered,
            Until::Delivered => unanswered.max(counts.offered.saturating_sub(counts.complete)),
        }
    }
}

/// When a message counts as no longer in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// Its reply came.
    Acked,
    /// Its reply came and every socket of ours in its thread has it.
    Delivered,
}

fn put_filler(out: &mut Vec<u8>, bytes: usize) {
    out.extend(FILLER.iter().cycle().take(bytes));
}

/// A `message.send` frame. The nonce is a UUID (version 8) made of the run and the id, so never used twice.
fn put_send(out: &mut Vec<u8>, id: u64, thread: &[u8], run: u64, stamp: Stamp) {
    const BEFORE_THREAD: &[u8] = b",\"cmd\":\"message.send\",\"d\":{\"threadId\":\"";
    const BEFORE_NONCE: &[u8] = b"\",\"nonce\":\"";
    const BEFORE_CONTENT: &[u8] = b"\",\"content\":\"";
    const NONCE_BYTES: usize = 36;
    let digits = id.checked_ilog10().map_or(1, |log| log as usize + 1);
    let fixed = b"{\"id\":".len() + BEFORE_THREAD.len() + BEFORE_NONCE.len() + BEFORE_CONTENT.len() + b"\"}}".len();
    put_client_header(out, TEXT, fixed + digits + thread.len() + NONCE_BYTES + CONTENT_BYTES);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"id\":{id}");
    out.extend_from_slice(BEFORE_THREAD);
    out.extend_from_slice(thread);
    out.extend_from_slice(BEFORE_NONCE);
    put_hex(out, run >> 32, 8);
    out.push(b'-');
    put_hex(out, run >> 16, 4);
    out.extend_from_slice(b"-8");
    put_hex(out, run, 3);
    out.extend_from_slice(b"-8");
    put_hex(out, run >> 12, 1);
    put_hex(out, id >> 48, 2);
    out.push(b'-');
    put_hex(out, id, 12);
    out.extend_from_slice(BEFORE_CONTENT);
    put_stamp(out, stamp);
    put_filler(out, CONTENT_BYTES - STAMP_BYTES);
    out.extend_from_slice(b"\"}}");
}

/// Bytes of a floor's frame before the filler: everything below with its stamp.
pub const FLOOR_FRAME_MIN: usize = 128;

/// A publish to a floor: length, room, id, and the frame that goes out as it is to everybody in the room.
fn put_publish(out: &mut Vec<u8>, id: u64, room: u32, seq: u64, thread: &[u8], frame_bytes: usize, stamp: Stamp) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&room.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    let header = out.len();
    put_server_header(out, frame_bytes);
    let payload = out.len();
    out.extend_from_slice(b"{\"up\":\"message.created\",\"s\":\"");
    out.extend_from_slice(thread);
    let _ = write!(out, "\",\"seq\":{seq:010},\"c\":\"");
    put_stamp(out, stamp);
    put_filler(out, (payload + frame_bytes).saturating_sub(out.len() + 2));
    out.extend_from_slice(b"\"}");
    debug_assert_eq!(out.len() - payload, frame_bytes);
    let length = (out.len() - header) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{CONTENT_BYTES, FLOOR_FRAME_MIN, put_publish, put_send};
    use crate::frame::{Front, front};
    use crate::scan::{Kind, Stamp, kind, stamp};

    const THREAD: &[u8; 36] = b"01940000-0000-7000-8000-000000000001";
    const STAMP: Stamp = Stamp { run: 7, url: 1, intended_ns: 123_456_789 };

    #[test]
    fn a_send_is_valid_json_of_the_announced_length() {
        for id in [16u64, 999, 1_000_000] {
            let mut wire = Vec::new();
            put_send(&mut wire, id, THREAD, 0xabcd_1234_5678_9abc, STAMP);
            let header = if wire[1] & 0x7f == 126 { 8 } else { 6 };
            let announced = usize::from(u16::from_be_bytes([wire[2], wire[3]]));
            assert_eq!(announced, wire.len() - header);
            let sent: serde_json::Value = serde_json::from_slice(&wire[header..]).unwrap_or_default();
            assert_eq!((sent["id"].as_u64(), sent["cmd"].as_str()), (Some(id), Some("message.send")));
            assert_eq!(sent["d"]["content"].as_str().map(str::len), Some(CONTENT_BYTES));
            assert!(sent["d"]["nonce"].as_str().is_some_and(|nonce| uuid::Uuid::parse_str(nonce).is_ok()));
        }
    }

    #[test]
    fn a_ready_frame_has_the_size_asked_for_and_reads_like_an_update() {
        for size in [FLOOR_FRAME_MIN, 200, 640] {
            let mut wire = Vec::new();
            put_publish(&mut wire, 16, 0, 3, THREAD, size, STAMP);
            let Front::Whole { start, end, .. } = front(&wire[16..]) else { panic!("no frame") };
            let payload = &wire[16 + start..16 + end];
            assert_eq!(payload.len(), size);
            assert_eq!(kind(payload), Kind::Update { name: b"message.created", stream: THREAD, seq: 3 });
            assert_eq!(stamp(payload, &mut 0), Some(STAMP));
        }
    }
}
