//! What waits to be written to one socket: ready frames, shared with other sockets, bounded in bytes. An idle outbox
//! holds no memory of its own; the first frame needs none either.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};

/// Updates waiting for one socket, bytes; a stream whose next update would pass it goes on from the log instead.
pub const UPDATE_BYTES: usize = 64 << 10;
/// Replies waiting for one socket, bytes; above it the server stops reading from the socket.
pub const REPLY_BYTES: usize = 32 << 10;
/// All that waits for one socket, bytes. Only a single frame that finds nothing else waiting may be larger.
pub const OUTBOX_BYTES: usize = 112 << 10;
/// What a waiting frame costs besides its bytes.
const FRAME_COST: usize = 64;
/// Pieces in one vectored write.
const SLICES: usize = 64;

/// Result of one flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Everything is with the kernel.
    Empty,
    /// The socket takes no more for now.
    Blocked,
}

#[derive(Debug, Default)]
struct Waiting {
    frame: Bytes,
    is_update: bool,
}

/// Frames in order, the first kept inline.
#[derive(Debug, Default)]
pub struct Outbox {
    first: Bytes,
    rest: VecDeque<Waiting>,
    /// Bytes in all of them, and in the updates among them.
    bytes: usize,
    update_bytes: u32,
    /// Room kept for a page that is being read.
    reserved: u32,
    first_is_update: bool,
}

impl Outbox {
    /// Adds a frame that must be sent: a reply, a notice.
    pub fn push(&mut self, frame: Bytes) {
        self.add(Waiting { frame, is_update: false });
    }

    /// Adds an update, or several in one piece.
    pub fn push_update(&mut self, frame: Bytes) {
        self.update_bytes += frame.len() as u32;
        self.add(Waiting { frame, is_update: true });
    }

    fn add(&mut self, waiting: Waiting) {
        self.bytes += waiting.frame.len();
        if self.first.is_empty() {
            self.first = waiting.frame;
            self.first_is_update = waiting.is_update;
        } else {
            self.rest.push_back(waiting);
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of replies and notices.
    pub fn reply_bytes(&self) -> usize {
        self.bytes - self.update_bytes as usize
    }

    /// What all of it costs.
    pub fn held(&self) -> usize {
        self.bytes + self.rest.len() * FRAME_COST
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether an update of `len` bytes may wait here; one that finds the outbox empty always may.
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes == 0
            || (self.update_bytes as usize + len <= UPDATE_BYTES
                && self.held() + self.reserved as usize + len <= OUTBOX_BYTES)
    }

    /// Whether a reply of `len` bytes, which could be made again, may wait here; as for updates, one always may.
    pub fn has_reply_room(&self, len: usize) -> bool {
        self.bytes == 0 || self.held() + len <= OUTBOX_BYTES
    }

    /// Keeps room for a page of at most `len` bytes, until [`Self::unreserve`].
    pub fn reserve(&mut self, len: usize) {
        self.reserved += len as u32;
    }

    pub fn unreserve(&mut self, len: usize) {
        self.reserved = self.reserved.saturating_sub(len as u32);
    }

    /// Writes until all is gone or the socket takes no more. Counts the writes made in `writes`.
    pub fn flush<W: Write>(&mut self, socket: &mut W, writes: &mut u64) -> io::Result<Flush> {
        while self.bytes > 0 {
            let result = if self.rest.is_empty() {
                socket.write(&self.first)
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                slices[0] = IoSlice::new(&self.first);
                let mut count = 1;
                for (slot, waiting) in slices[1..].iter_mut().zip(&self.rest) {
                    *slot = IoSlice::new(&waiting.frame);
                    count += 1;
                }
                socket.write_vectored(&slices[..count])
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    *writes += 1;
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flush::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.rest = VecDeque::new();
        Ok(Flush::Empty)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while written > 0 {
            let part = written.min(self.first.len());
            if self.first_is_update {
                self.update_bytes -= part as u32;
            }
            if part < self.first.len() {
                self.first.advance(part);
                return;
            }
            written -= part;
            let next = self.rest.pop_front().unwrap_or_default();
            (self.first, self.first_is_update) = (next.frame, next.is_update);
            if self.first.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flush, OUTBOX_BYTES, Outbox, UPDATE_BYTES};
    use bytes::Bytes;
    use std::io::{self, Write};

    /// Takes `room` bytes, at most `step` a call, then blocks.
    struct Pipe {
        got: Vec<u8>,
        room: usize,
        step: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let take = buf.len().min(self.step).min(self.room);
            if take == 0 && !buf.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.got.extend_from_slice(&buf[..take]);
            self.room -= take;
            Ok(take)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_arrive_once_and_in_order_whatever_the_socket_takes() {
        for step in 1..20 {
            for room in 0..40 {
                let mut outbox = Outbox::default();
                let mut expected = Vec::new();
                for n in 0..100_u8 {
                    let frame = vec![n; usize::from(n % 7) + 1];
                    expected.extend_from_slice(&frame);
                    if n.is_multiple_of(2) {
                        outbox.push(Bytes::from(frame));
                    } else {
                        outbox.push_update(Bytes::from(frame));
                    }
                }
                let mut pipe = Pipe { got: Vec::new(), room, step };
                let mut writes = 0;
                loop {
                    match outbox.flush(&mut pipe, &mut writes).expect("writes") {
                        Flush::Empty => break,
                        Flush::Blocked => pipe.room = room + 3,
                    }
                }
                assert_eq!(pipe.got, expected);
                assert!(outbox.is_empty());
                assert_eq!((outbox.reply_bytes(), outbox.held(), outbox.update_bytes), (0, 0, 0));
            }
        }
    }

    #[test]
    fn updates_replies_and_all_together_are_bounded_in_bytes() {
        let piece = |len: usize| Bytes::from(vec![0; len]);
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(1 << 20) && outbox.has_reply_room(1 << 20), "nothing waits: one may be of any size");
        outbox.push(piece(80 << 10));
        assert!(outbox.has_room(30 << 10), "a reply takes no room of the updates");
        assert!(!outbox.has_room(33 << 10), "but of the whole");
        assert!(!outbox.has_reply_room(33 << 10));
        outbox.reserve(20 << 10);
        assert!(!outbox.has_room(13 << 10) && outbox.has_room(11 << 10));
        outbox.unreserve(20 << 10);
        assert_eq!(outbox.reply_bytes(), 80 << 10);

        let mut outbox = Outbox::default();
        while outbox.has_room(1000) {
            outbox.push_update(piece(1000));
        }
        assert!((UPDATE_BYTES - 1000..=UPDATE_BYTES).contains(&outbox.bytes()));
        let mut outbox = Outbox::default();
        while outbox.has_room(1) {
            outbox.push_update(piece(1));
        }
        assert!(outbox.bytes() < OUTBOX_BYTES / 64, "small frames cost more than their bytes");
    }
}
