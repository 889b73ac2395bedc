//! What is written to Redis: names of channels, and messages of a seal, a header and envelopes. No I/O.
//!
//! Seal: see [`super::seal`]. Header: origin (16 bytes), sent (microseconds of the Unix clock, 8 bytes). Envelopes: see
//! [`Update::encode_into`].

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::seal::{SEAL_BYTES, Signer};
use crate::courier::SHARDS;
use crate::updates::{EnvelopeError, Update};

/// Bytes of envelopes after which a message is full and another begun.
pub const PAYLOAD_BYTES: usize = 256 << 10;

const HEADER_BYTES: usize = 24;

/// What came on which channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Channel {
    Shard(u16),
    Canary,
    Notice,
}

/// The channels of a deployment in an epoch.
pub struct Names {
    prefix: String,
}

impl Names {
    /// `prefix`: see [`crate::deployment::Deployment::prefix`].
    pub fn new(prefix: String) -> Self {
        Self { prefix }
    }

    pub fn shard(&self, shard: u16) -> String {
        format!("{}s:{shard}", self.prefix)
    }

    /// The canary's channel is the node's own.
    pub fn canary(&self, origin: Uuid) -> String {
        format!("{}canary:{}", self.prefix, origin.simple())
    }

    /// Updates were let go by some node: everybody polls.
    pub fn notice(&self) -> String {
        format!("{}notice", self.prefix)
    }

    /// `None` for a channel that is none of these.
    pub fn parse(&self, name: &[u8]) -> Option<Channel> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(&self.prefix)?;
        if let Some(shard) = name.strip_prefix("s:") {
            return shard.parse().ok().map(Channel::Shard);
        }
        match name {
            "notice" => Some(Channel::Notice),
            _ => name.starts_with("canary:").then_some(Channel::Canary),
        }
    }
}

/// Makes the messages of one node in one epoch.
pub struct Writer<'a> {
    pub names: &'a Names,
    pub signer: &'a Signer,
    pub origin: Uuid,
    pub now_us: u64,
}

impl Writer<'_> {
    fn begin(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024);
        out.put_bytes(0, SEAL_BYTES);
        out.put_slice(self.origin.as_bytes());
        out.put_u64(self.now_us);
        out
    }

    fn end(&self, channel: String, message: BytesMut) -> (String, Bytes) {
        let message = self.signer.seal(channel.as_bytes(), message);
        (channel, message)
    }

    /// A message without updates.
    pub fn notice(&self) -> (String, Bytes) {
        self.end(self.names.notice(), self.begin())
    }

    /// A message to oneself, with the time it was sent by the clock of canaries.
    pub fn canary(&self, sent_ms: u64) -> (String, Bytes) {
        let mut message = self.begin();
        message.put_u64(sent_ms);
        self.end(self.names.canary(self.origin), message)
    }

    /// Groups updates into few messages, each with its channel. Updates of a stream keep their order.
    pub fn pack(&self, updates: &[Update]) -> Vec<(String, Bytes)> {
        let mut full = Vec::new();
        let mut open: BTreeMap<u16, BytesMut> = BTreeMap::new();
        for update in updates {
            let shard = update.stream.shard(SHARDS);
            let message = open.entry(shard).or_insert_with(|| self.begin());
            update.encode_into(message);
            if message.len() >= PAYLOAD_BYTES
                && let Some(message) = open.remove(&shard)
            {
                full.push(self.end(self.names.shard(shard), message));
            }
        }
        full.extend(open.into_iter().map(|(shard, message)| self.end(self.names.shard(shard), message)));
        full
    }
}

/// A message that was not ours to read, or not to be believed.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// Sent by this node.
    Own,
    /// Not sealed by this deployment for this channel: whatever it says is nothing to us.
    Forged,
}

/// A message of another node.
#[derive(Debug)]
pub struct Foreign {
    pub sent_us: u64,
    pub updates: Vec<Update>,
    /// What follows the updates could not be read.
    pub malformed: Option<EnvelopeError>,
}

/// Reads a message. The seal is looked at before anything else of it, but that an own one is not read at all.
pub fn unpack(signer: &Signer, origin: Uuid, channel: &[u8], message: Bytes) -> Result<Foreign, Unread> {
    if message.get(SEAL_BYTES..SEAL_BYTES + 16) == Some(origin.as_bytes()) {
        return Err(Unread::Own);
    }
    let mut body = signer.open(channel, message).ok_or(Unread::Forged)?;
    if body.len() < HEADER_BYTES {
        return Ok(Foreign { sent_us: 0, updates: Vec::new(), malformed: Some(EnvelopeError::Short) });
    }
    body.advance(16);
    let mut foreign = Foreign { sent_us: body.get_u64(), updates: Vec::new(), malformed: None };
    while !body.is_empty() {
        match Update::decode_from(&mut body) {
            Ok(update) => foreign.updates.push(update),
            Err(error) => {
                foreign.malformed = Some(error);
                break;
            }
        }
    }
    Ok(foreign)
}

/// When an own canary was sent; `None` when it is none of ours.
pub fn canary_sent_ms(signer: &Signer, origin: Uuid, channel: &[u8], message: Bytes) -> Option<u64> {
    let mut body = signer.open(channel, message)?;
    if body.len() != HEADER_BYTES + 8 || body[..16] != *origin.as_bytes() {
        return None;
    }
    body.advance(HEADER_BYTES);
    Some(body.get_u64())
}

#[cfg(test)]
mod tests {
    use super::{Channel, Names, PAYLOAD_BYTES, Unread, Writer, canary_sent_ms, unpack};
    use crate::courier::redis::seal::{SEAL_BYTES, Signer};
    use crate::courier::{SHARDS, SealKey};
    use crate::updates::{EnvelopeError, StreamId, Touch, Update, UpdateKind};
    use bytes::{BufMut, Bytes, BytesMut};
    use uuid::Uuid;

    fn update(stream: StreamId, seq: u64, bytes: usize) -> Update {
        let frame = Bytes::from(vec![b'x'; bytes]);
        Update { stream, seq, kind: UpdateKind::MessageCreated, touch: Touch::None, frame }
    }

    fn signer(root: u8) -> Signer {
        Signer::new(&[SealKey { id: [root; 4], key: [root; 32] }])
    }

    fn names() -> Names {
        Names::new("haus:a:1:".to_owned())
    }

    #[test]
    fn messages_keep_order_and_size_and_are_not_read_by_their_origin() {
        let (here, there, names, signer) = (Uuid::new_v4(), Uuid::new_v4(), names(), signer(1));
        let writer = Writer { names: &names, signer: &signer, origin: here, now_us: 7 };
        let streams: Vec<StreamId> = (0..40).map(|_| StreamId::Thread(Uuid::now_v7())).collect();
        let updates: Vec<Update> =
            (0..4000).map(|n| update(streams[n % 40], n as u64 / 40 + 1, 300 + n % 100)).collect();
        let packed = writer.pack(&updates);
        assert!(packed.len() <= 40 + 6, "{} messages", packed.len());
        let mut seen = std::collections::HashMap::new();
        for (channel, message) in packed {
            assert!(message.len() <= PAYLOAD_BYTES + 600);
            assert_eq!(unpack(&signer, here, channel.as_bytes(), message.clone()).err(), Some(Unread::Own));
            let foreign = unpack(&signer, there, channel.as_bytes(), message).expect("foreign");
            assert_eq!((foreign.sent_us, foreign.malformed), (7, None));
            for update in foreign.updates {
                assert_eq!(names.shard(update.stream.shard(SHARDS)), channel);
                let last = seen.insert(update.stream, update.seq).unwrap_or(0);
                assert_eq!(update.seq, last + 1);
            }
        }
        assert!(seen.len() == 40 && seen.values().all(|seq| *seq == 100));
    }

    #[test]
    fn nothing_is_believed_without_the_seal_of_this_deployment_channel_and_epoch() {
        let (here, there, names, ours) = (Uuid::new_v4(), Uuid::new_v4(), names(), signer(1));
        let writer = Writer { names: &names, signer: &ours, origin: here, now_us: 7 };
        let (channel, message) = writer.pack(&[update(StreamId::User(Uuid::now_v7()), 1, 50)]).remove(0);
        let forged = |signer: &Signer, channel: &str, message: Bytes| {
            unpack(signer, there, channel.as_bytes(), message).err() == Some(Unread::Forged)
        };
        assert!(!forged(&ours, &channel, message.clone()));
        assert!(forged(&signer(2), &channel, message.clone()), "another root key");
        for replayed in ["haus:a:1:s:500", "haus:a:2:s:1", "haus:b:1:s:1", "haus:a:1:notice"] {
            assert!(forged(&ours, replayed, message.clone()), "replayed on {replayed}");
        }
        for at in 0..message.len() {
            let mut changed = BytesMut::from(&message[..]);
            changed[at] ^= 1;
            assert!(forged(&ours, &channel, changed.freeze()), "byte {at}");
            assert!(forged(&ours, &channel, message.slice(..at)), "cut at {at}");
        }
        assert!(forged(&ours, &channel, Bytes::new()));
        // Neither can anybody keep a dead path looking alive.
        let (channel, canary) = writer.canary(99);
        assert_eq!(canary_sent_ms(&ours, here, channel.as_bytes(), canary.clone()), Some(99));
        assert_eq!(canary_sent_ms(&ours, there, channel.as_bytes(), canary.clone()), None);
        assert_eq!(canary_sent_ms(&signer(2), here, channel.as_bytes(), canary.clone()), None);
        assert_eq!(canary_sent_ms(&ours, here, channel.as_bytes(), canary.slice(SEAL_BYTES..)), None);
    }

    #[test]
    fn what_cannot_be_read_keeps_what_could() {
        let (names, signer) = (names(), signer(1));
        let writer = Writer { names: &names, signer: &signer, origin: Uuid::nil(), now_us: 1 };
        let mut damaged = writer.begin();
        update(StreamId::User(Uuid::now_v7()), 1, 10).encode_into(&mut damaged);
        damaged.put_slice(b"rubbish that goes on for longer than an envelope's head");
        let (channel, damaged) = writer.end(names.shard(3), damaged);
        let foreign = unpack(&signer, Uuid::new_v4(), channel.as_bytes(), damaged).expect("foreign");
        assert_eq!(foreign.updates.len(), 1);
        assert_eq!(foreign.malformed, Some(EnvelopeError::Version(b'r')));
        let (channel, short) = writer.end(names.shard(3), BytesMut::zeroed(SEAL_BYTES + 23));
        let short = unpack(&signer, Uuid::new_v4(), channel.as_bytes(), short).expect("foreign");
        assert_eq!(short.malformed, Some(EnvelopeError::Short));
    }

    #[test]
    fn channels_are_told_apart() {
        let names = names();
        assert_eq!(names.parse(names.shard(127).as_bytes()), Some(Channel::Shard(127)));
        assert_eq!(names.parse(names.canary(Uuid::new_v4()).as_bytes()), Some(Channel::Canary));
        assert_eq!(names.parse(names.notice().as_bytes()), Some(Channel::Notice));
        for other in [&b"haus:a:1:s:x"[..], b"haus:a:2:s:1", b"haus:s:1", b"\xff"] {
            assert_eq!(names.parse(other), None);
        }
    }
}
