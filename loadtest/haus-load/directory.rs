//! The threads of a run: their ids, how many of our sockets are in each, and which messages have reached all of them.

use crate::error::LoadError;
use std::collections::HashMap;

/// Length of a UUID in text.
pub const ID_BYTES: usize = 36;

/// One thread.
pub struct Thread {
    /// Its id in text.
    pub id: [u8; ID_BYTES],
    /// Sockets of ours that get its updates.
    pub members: u32,
    /// Highest `seq` seen by anybody or acknowledged; for judging who is behind at the end, and the floor's counter.
    pub head: u64,
    /// Deliveries of each message in flight, by `seq` modulo its length; empty when nobody asks for completion.
    arrived: Vec<u32>,
}

/// All threads by id.
#[derive(Default)]
pub struct Directory {
    by_key: HashMap<u64, u32>,
    /// The threads, by the index that sockets and plans use.
    pub threads: Vec<Thread>,
    ring: usize,
}

/// A 64-bit key of a UUID's text. Two of one run that collide are refused when added.
#[inline]
pub fn thread_key(id: &[u8; ID_BYTES]) -> u64 {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut key = 0u64;
    for at in [0, 9, 19, 28] {
        let mut word = [0; 8];
        word.copy_from_slice(&id[at..at + 8]);
        key = (key.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(MIX);
    }
    key
}

impl Directory {
    /// An empty directory; `in_flight` > 0 keeps count of messages that have reached everybody.
    pub fn new(in_flight: u64) -> Self {
        let ring = if in_flight == 0 { 0 } else { (in_flight as usize * 2).next_power_of_two() };
        Self { ring, ..Self::default() }
    }

    /// Whether it knows when a message has reached everybody.
    pub fn follows_arrival(&self) -> bool {
        self.ring > 0
    }

    /// Index and key of the thread with this id, added when new.
    pub fn intern(&mut self, id: &str) -> Result<(u32, u64), LoadError> {
        let id: [u8; ID_BYTES] =
            id.as_bytes().try_into().map_err(|_| LoadError::Failed(format!("thread id {id:?} is no UUID")))?;
        let key = thread_key(&id);
        if let Some(index) = self.by_key.get(&key) {
            return if self.threads[*index as usize].id == id {
                Ok((*index, key))
            } else {
                Err(LoadError::Failed("two thread ids with one key; seed again".to_owned()))
            };
        }
        let index = self.threads.len() as u32;
        self.threads.push(Thread { id, members: 0, head: 0, arrived: vec![0; self.ring] });
        self.by_key.insert(key, index);
        Ok((index, key))
    }

    /// Counts one delivery of message `seq`; true when it has now reached every member of ours.
    #[inline]
    pub fn arrive(&mut self, thread: u32, seq: u64) -> bool {
        let thread = &mut self.threads[thread as usize];
        thread.head = thread.head.max(seq);
        if thread.arrived.is_empty() {
            return false;
        }
        let at = seq as usize & (thread.arrived.len() - 1);
        thread.arrived[at] += 1;
        let complete = thread.arrived[at] >= thread.members;
        if complete {
            thread.arrived[at] = 0;
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::Directory;

    #[test]
    fn a_message_is_complete_when_it_has_reached_every_member() {
        let mut directory = Directory::new(2);
        let (index, key) = directory.intern("01940000-0000-7000-8000-000000000001").unwrap_or_default();
        let (other, other_key) = directory.intern("01940000-0000-7000-8000-000000000002").unwrap_or_default();
        assert!(index != other && key != other_key);
        assert_eq!(directory.intern("01940000-0000-7000-8000-000000000001").ok(), Some((index, key)));
        assert!(directory.intern("short").is_err());
        directory.threads[0].members = 2;
        assert!(!directory.arrive(0, 7));
        assert!(!directory.arrive(0, 8));
        assert!(directory.arrive(0, 7));
        assert!(directory.arrive(0, 8));
        assert!(!directory.arrive(0, 11), "the place of 7 was cleared");
        assert_eq!(directory.threads[0].head, 11);
    }
}
