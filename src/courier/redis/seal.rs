//! The seal of a message: who may publish to Redis can still speak for nobody. Key id (4 bytes) and the first half of an
//! HMAC-SHA-256 over the channel's name (deployment, epoch, shard) and the message, under a key derived from the root key.
//! So a message is good on its channel alone, and in its epoch; within it a repeated one is ignored by its `seq`.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use bytes::{Buf, Bytes, BytesMut};

use crate::courier::SealKey;

const ID_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// Before every message.
pub const SEAL_BYTES: usize = ID_BYTES + TAG_BYTES;

/// Seals with one key, opens what was sealed with any it knows (a rotation has two).
pub struct Signer {
    /// The first one seals.
    keys: Vec<([u8; ID_BYTES], hmac::Key)>,
}

impl Signer {
    /// The first of `keys` seals; all are believed.
    pub fn new(keys: &[SealKey]) -> Self {
        let keys = keys.iter().map(|key| (key.id, hmac::Key::new(hmac::HMAC_SHA256, &key.key)));
        Self { keys: keys.collect() }
    }

    /// Writes the seal into the first [`SEAL_BYTES`] of `message`, which are left free for it.
    pub fn seal(&self, channel: &[u8], mut message: BytesMut) -> Bytes {
        if let (Some((id, key)), Some((_, body))) = (self.keys.first(), message.split_at_checked(SEAL_BYTES)) {
            let tag = tag(key, channel, body);
            message[..ID_BYTES].copy_from_slice(id);
            message[ID_BYTES..SEAL_BYTES].copy_from_slice(&tag.as_ref()[..TAG_BYTES]);
        }
        message.freeze()
    }

    /// The message without its seal; `None` when it was not sealed by one of our keys for this channel.
    pub fn open(&self, channel: &[u8], mut message: Bytes) -> Option<Bytes> {
        let (seal, body) = message.split_at_checked(SEAL_BYTES)?;
        let (id, given) = seal.split_at(ID_BYTES);
        let (_, key) = self.keys.iter().find(|(known, _)| known == id)?;
        verify_slices_are_equal(&tag(key, channel, body).as_ref()[..TAG_BYTES], given).ok()?;
        message.advance(SEAL_BYTES);
        Some(message)
    }
}

fn tag(key: &hmac::Key, channel: &[u8], body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(channel);
    // No channel's name holds it: the two parts cannot be moved against each other.
    context.update(&[0]);
    context.update(body);
    context.sign()
}
