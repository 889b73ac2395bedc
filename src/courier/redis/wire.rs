//! What is written to Redis: names of channels, and messages of a header and envelopes. No I/O.
//!
//! Header: origin (16 bytes), sent (microseconds of the Unix clock, 8 bytes). Envelopes: see [`Update::encode_into`].

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::courier::SHARDS;
use crate::updates::{EnvelopeError, Update};

/// Bytes of envelopes after which a message is full and another begun.
pub const PAYLOAD_BYTES: usize = 256 << 10;

const HEADER_BYTES: usize = 24;
const SHARD: &str = "haus:s:";
const CANARY: &str = "haus:canary:";
/// Updates were let go by some node: everybody polls.
pub const NOTICE: &str = "haus:notice";

/// What came on which channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Channel {
    Shard(u16),
    Canary,
    Notice,
}

impl Channel {
    /// `None` for a channel that is none of ours.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some(shard) = name.strip_prefix(SHARD) {
            return shard.parse().ok().map(Self::Shard);
        }
        match name {
            NOTICE => Some(Self::Notice),
            _ => name.starts_with(CANARY).then_some(Self::Canary),
        }
    }
}

pub fn shard_channel(shard: u16) -> String {
    format!("{SHARD}{shard}")
}

/// The canary's channel is the node's own.
pub fn canary_channel(origin: Uuid) -> String {
    format!("{CANARY}{}", origin.simple())
}

/// A message without updates.
pub fn header(origin: Uuid, now_us: u64) -> BytesMut {
    let mut out = BytesMut::with_capacity(1024);
    out.put_slice(origin.as_bytes());
    out.put_u64(now_us);
    out
}

/// Groups updates into few messages, each with its shard. Updates of a stream keep their order.
pub fn pack(origin: Uuid, now_us: u64, updates: &[Update]) -> Vec<(u16, Bytes)> {
    let mut full = Vec::new();
    let mut open: BTreeMap<u16, BytesMut> = BTreeMap::new();
    for update in updates {
        let shard = update.stream.shard(SHARDS);
        let message = open.entry(shard).or_insert_with(|| header(origin, now_us));
        update.encode_into(message);
        if message.len() >= PAYLOAD_BYTES
            && let Some(message) = open.remove(&shard)
        {
            full.push((shard, message.freeze()));
        }
    }
    full.extend(open.into_iter().map(|(shard, message)| (shard, message.freeze())));
    full
}

/// A message of another node.
#[derive(Debug)]
pub struct Foreign {
    pub sent_us: u64,
    pub updates: Vec<Update>,
    /// What follows the updates could not be read.
    pub malformed: Option<EnvelopeError>,
}

/// Reads a message; `None` when it is the own one.
pub fn unpack(origin: Uuid, mut message: Bytes) -> Option<Foreign> {
    if message.len() < HEADER_BYTES {
        return Some(Foreign { sent_us: 0, updates: Vec::new(), malformed: Some(EnvelopeError::Short) });
    }
    if message[..16] == *origin.as_bytes() {
        return None;
    }
    message.advance(16);
    let mut foreign = Foreign { sent_us: message.get_u64(), updates: Vec::new(), malformed: None };
    while !message.is_empty() {
        match Update::decode_from(&mut message) {
            Ok(update) => foreign.updates.push(update),
            Err(error) => {
                foreign.malformed = Some(error);
                break;
            }
        }
    }
    Some(foreign)
}

#[cfg(test)]
mod tests {
    use super::{Channel, NOTICE, PAYLOAD_BYTES, canary_channel, pack, shard_channel, unpack};
    use crate::courier::SHARDS;
    use crate::updates::{EnvelopeError, StreamId, Touch, Update, UpdateKind};
    use bytes::{BufMut, Bytes, BytesMut};
    use uuid::Uuid;

    fn update(stream: StreamId, seq: u64, bytes: usize) -> Update {
        let frame = Bytes::from(vec![b'x'; bytes]);
        Update { stream, seq, kind: UpdateKind::MessageCreated, touch: Touch::None, frame }
    }

    #[test]
    fn messages_keep_order_and_size_and_are_not_read_by_their_origin() {
        let (here, there) = (Uuid::new_v4(), Uuid::new_v4());
        let streams: Vec<StreamId> = (0..40).map(|_| StreamId::Thread(Uuid::now_v7())).collect();
        let updates: Vec<Update> =
            (0..4000).map(|n| update(streams[n % 40], n as u64 / 40 + 1, 300 + n % 100)).collect();
        let packed = pack(here, 7, &updates);
        assert!(packed.len() <= 40 + 6, "{} messages", packed.len());
        let mut seen = std::collections::HashMap::new();
        for (shard, message) in packed {
            assert!(message.len() <= PAYLOAD_BYTES + 500);
            assert!(unpack(here, message.clone()).is_none());
            let foreign = unpack(there, message).expect("foreign");
            assert_eq!((foreign.sent_us, foreign.malformed), (7, None));
            for update in foreign.updates {
                assert_eq!(update.stream.shard(SHARDS), shard);
                let last = seen.insert(update.stream, update.seq).unwrap_or(0);
                assert_eq!(update.seq, last + 1);
            }
        }
        assert!(seen.len() == 40 && seen.values().all(|seq| *seq == 100));
    }

    #[test]
    fn what_cannot_be_read_keeps_what_could() {
        let (_, message) = pack(Uuid::nil(), 1, &[update(StreamId::User(Uuid::now_v7()), 1, 10)]).remove(0);
        let mut damaged = BytesMut::from(&message[..]);
        damaged.put_slice(b"rubbish that goes on for longer than an envelope's head");
        let foreign = unpack(Uuid::new_v4(), damaged.freeze()).expect("foreign");
        assert_eq!(foreign.updates.len(), 1);
        assert_eq!(foreign.malformed, Some(EnvelopeError::Version(b'r')));
        let short = unpack(Uuid::new_v4(), message.slice(..23)).expect("foreign");
        assert_eq!(short.malformed, Some(EnvelopeError::Short));
    }

    #[test]
    fn channels_are_told_apart() {
        assert_eq!(Channel::parse(shard_channel(127).as_bytes()), Some(Channel::Shard(127)));
        assert_eq!(Channel::parse(canary_channel(Uuid::new_v4()).as_bytes()), Some(Channel::Canary));
        assert_eq!(Channel::parse(NOTICE.as_bytes()), Some(Channel::Notice));
        assert_eq!(Channel::parse(b"haus:s:x"), None);
        assert_eq!(Channel::parse(b"\xff"), None);
    }
}
