//! An *update*: something that happened in a stream, encoded once at the node that committed it. Knows no transport.
//!
//! `Update` is what the feed orders, what workers write to sockets and what the courier carries between nodes.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// An ordered log of updates with its own `seq`: one per thread, one per profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamId {
    Thread(Uuid),
    User(Uuid),
}

impl StreamId {
    pub const fn uuid(self) -> Uuid {
        match self {
            Self::Thread(id) | Self::User(id) => id,
        }
    }

    pub const fn is_user(self) -> bool {
        matches!(self, Self::User(_))
    }

    /// The courier shard of this stream, in `0..shards`. FNV-1a over the id: the random half of a UUIDv7 spreads well.
    pub fn shard(self, shards: u16) -> u16 {
        let hash = self
            .uuid()
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        (hash % u64::from(shards.max(1))) as u16
    }
}

macro_rules! update_kinds {
    ($($variant:ident = $code:literal, $name:literal);+ $(;)?) => {
        /// Kinds of updates (protocol, section 2). The number is what the log stores.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum UpdateKind { $($variant = $code),+ }

        impl UpdateKind {
            /// The value of `up`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// From the log's number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

update_kinds! {
    MessageCreated = 1, "message.created";
    MessageEdited = 2, "message.edited";
    MessageDeleted = 3, "message.deleted";
    ReactionAdded = 4, "reaction.added";
    ReactionRemoved = 5, "reaction.removed";
    MessagePinned = 6, "message.pinned";
    MessageUnpinned = 7, "message.unpinned";
    MemberJoined = 8, "member.joined";
    MemberLeft = 9, "member.left";
    MemberChanged = 10, "member.changed";
    ThreadChanged = 11, "thread.changed";
    ThreadAdded = 32, "thread.added";
    ThreadRemoved = 33, "thread.removed";
    ThreadState = 34, "thread.state";
    SettingsChanged = 35, "settings.changed";
}

/// What an update does to sessions besides being written to them. Everything else about it is opaque bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    None,
    /// `member.left` at this seq: sessions of these profiles get it and nothing after it.
    Left(Arc<[Uuid]>),
    /// `thread.added`: sessions of the stream's profile go live in `thread` from position `seq`.
    Added {
        thread: Uuid,
        seq: u64,
    },
    /// `thread.removed`: must follow `seq` of `thread` on every socket.
    Removed {
        thread: Uuid,
        seq: u64,
    },
}

/// One update, ready to be written: `frame` is the whole websocket text frame.
#[derive(Debug, Clone)]
pub struct Update {
    pub stream: StreamId,
    pub seq: u64,
    pub kind: UpdateKind,
    pub touch: Touch,
    pub frame: Bytes,
}

/// Longest list in one `Touch::Left` (protocol: `profileIds` ≤ 500).
pub const MAX_TOUCHED: usize = 500;

const VERSION: u8 = 1;

/// Why bytes from another node were not an update.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    #[error("envelope ends early")]
    Short,
    #[error("envelope of version {0}")]
    Version(u8),
    #[error("envelope with unknown field value")]
    Unknown,
}

impl Update {
    /// Appends the courier's envelope of this update: version, kind, stream, seq, touch, frame length, frame.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(64 + self.frame.len());
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u8(u8::from(self.stream.is_user()));
        out.put_slice(self.stream.uuid().as_bytes());
        out.put_u64(self.seq);
        match &self.touch {
            Touch::None => out.put_u8(0),
            Touch::Left(profiles) => {
                out.put_u8(1);
                out.put_u16(profiles.len().min(MAX_TOUCHED) as u16);
                for profile in profiles.iter().take(MAX_TOUCHED) {
                    out.put_slice(profile.as_bytes());
                }
            }
            Touch::Added { thread, seq } => {
                out.put_u8(2);
                out.put_slice(thread.as_bytes());
                out.put_u64(*seq);
            }
            Touch::Removed { thread, seq } => {
                out.put_u8(3);
                out.put_slice(thread.as_bytes());
                out.put_u64(*seq);
            }
        }
        out.put_u32(self.frame.len() as u32);
        out.put_slice(&self.frame);
    }

    /// Takes one envelope off the front of `input`; the frame shares its memory.
    pub fn decode_from(input: &mut Bytes) -> Result<Self, EnvelopeError> {
        need(input, 28)?;
        let version = input.get_u8();
        if version != VERSION {
            return Err(EnvelopeError::Version(version));
        }
        let kind = UpdateKind::from_code(input.get_u8()).ok_or(EnvelopeError::Unknown)?;
        let user = input.get_u8() == 1;
        let id = take_uuid(input)?;
        let seq = input.get_u64();
        let touch = Self::decode_touch(input)?;
        need(input, 4)?;
        let length = input.get_u32() as usize;
        need(input, length)?;
        let frame = input.split_to(length);
        let stream = if user { StreamId::User(id) } else { StreamId::Thread(id) };
        Ok(Self { stream, seq, kind, touch, frame })
    }

    fn decode_touch(input: &mut Bytes) -> Result<Touch, EnvelopeError> {
        need(input, 1)?;
        match input.get_u8() {
            0 => Ok(Touch::None),
            1 => {
                need(input, 2)?;
                let count = usize::from(input.get_u16());
                need(input, count * 16)?;
                let profiles = (0..count).map(|_| take_uuid(input)).collect::<Result<Vec<_>, _>>()?;
                Ok(Touch::Left(profiles.into()))
            }
            tag @ (2 | 3) => {
                let thread = take_uuid(input)?;
                need(input, 8)?;
                let seq = input.get_u64();
                Ok(if tag == 2 { Touch::Added { thread, seq } } else { Touch::Removed { thread, seq } })
            }
            _ => Err(EnvelopeError::Unknown),
        }
    }
}

fn need(input: &Bytes, bytes: usize) -> Result<(), EnvelopeError> {
    if input.remaining() < bytes { Err(EnvelopeError::Short) } else { Ok(()) }
}

fn take_uuid(input: &mut Bytes) -> Result<Uuid, EnvelopeError> {
    need(input, 16)?;
    let mut raw = [0; 16];
    input.copy_to_slice(&mut raw);
    Ok(Uuid::from_bytes(raw))
}

#[cfg(test)]
mod tests {
    use super::{EnvelopeError, StreamId, Touch, Update, UpdateKind};
    use bytes::{Bytes, BytesMut};
    use uuid::Uuid;

    fn sample(touch: Touch) -> Update {
        Update {
            stream: StreamId::Thread(Uuid::now_v7()),
            seq: 42,
            kind: UpdateKind::MemberLeft,
            touch,
            frame: Bytes::from_static(b"\x81\x02{}"),
        }
    }

    #[test]
    fn envelopes_round_trip_and_refuse_every_truncation() {
        let thread = Uuid::now_v7();
        for touch in [
            Touch::None,
            Touch::Left(vec![Uuid::now_v7(), Uuid::now_v7()].into()),
            Touch::Added { thread, seq: 7 },
            Touch::Removed { thread, seq: 9 },
        ] {
            let update = sample(touch);
            let mut out = BytesMut::new();
            update.encode_into(&mut out);
            update.encode_into(&mut out);
            let whole = out.freeze();
            let mut input = whole.clone();
            for _ in 0..2 {
                let back = Update::decode_from(&mut input).expect("decodes");
                assert_eq!(
                    (back.stream, back.seq, back.kind, back.touch),
                    (update.stream, 42, update.kind, update.touch.clone())
                );
                assert_eq!(back.frame, update.frame);
            }
            assert!(input.is_empty());
            for cut in 0..whole.len() / 2 {
                let mut short = whole.slice(..cut);
                assert_eq!(Update::decode_from(&mut short).err(), Some(EnvelopeError::Short), "cut at {cut}");
            }
        }
    }
}
