//! What waits to be written to one socket: ready frames, shared with other sockets, bounded in bytes. An idle outbox
//! holds no memory of its own; the first frame needs none either.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;

/// Updates waiting for one socket, bytes; a stream whose next update would pass it goes on from the log instead.
pub const UPDATE_BYTES: usize = 64 << 10;
/// Replies waiting for one socket, bytes; above it the server stops reading from the socket.
pub const REPLY_BYTES: usize = 32 << 10;
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

/// Frames in order, the first kept inline.
#[derive(Debug, Default)]
pub struct Outbox {
    first: Bytes,
    rest: VecDeque<Bytes>,
    /// Bytes in all of them.
    bytes: usize,
}

impl Outbox {
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        if self.first.is_empty() {
            self.first = frame;
        } else {
            self.rest.push_back(frame);
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether an update of `len` bytes may wait here; one that finds the outbox empty always may.
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes == 0 || self.bytes + len <= UPDATE_BYTES
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
                for (slot, frame) in slices[1..].iter_mut().zip(&self.rest) {
                    *slot = IoSlice::new(frame);
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
            if written < self.first.len() {
                self.first = self.first.slice(written..);
                return;
            }
            written -= self.first.len();
            self.first = self.rest.pop_front().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flush, Outbox};
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
                    outbox.push(Bytes::from(frame));
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
            }
        }
    }
}
