//! Bytes in and out of a socket: reading until it is empty, cutting what came into frames, writing what is queued.
//! What a text frame means is decided in `incoming`.

use crate::clock::now_ns;
use crate::conn::Phase;
use crate::engine::{Ended, Engine};
use crate::frame::{CLOSE, Front, PING, PONG, TEXT, front, put_client_header};
use std::io::{ErrorKind, Read, Write};

/// Bytes asked for in one `read`.
const READ_BYTES: usize = 256 * 1024;
/// The longest frame taken; longer ones end the socket.
const FRAME_LIMIT: usize = 4 * 1024 * 1024;
/// A socket's own buffers are given back when empty and larger than this.
const KEEP_BYTES: usize = 4 * 1024;
/// The read buffer: the longest frame cut short, and one more read.
pub const BUFFER_BYTES: usize = FRAME_LIMIT + READ_BYTES;

impl Engine {
    /// Socket `i` became writable: a connect was decided, or queued bytes may go.
    pub fn writable(&mut self, i: usize) {
        if self.conns[i].phase == Phase::Connecting {
            let outcome = self.conns[i].stream.as_ref().map(|s| s.take_error().and_then(|e| e.map_or(Ok(()), Err)));
            match outcome {
                Some(Ok(())) => self.greet(i),
                Some(Err(e)) => self.end(i, Ended::Because(format!("connect: {}", e.kind()))),
                None => {}
            }
        } else if !self.conns[i].out.is_empty() {
            self.write(i);
        }
    }

    /// Writes what socket `i` takes of its queue.
    pub fn write(&mut self, i: usize) {
        let conn = &mut self.conns[i];
        let Some(stream) = conn.stream.as_mut() else { return };
        let mut written = 0;
        while written < conn.out.len() {
            match stream.write(&conn.out[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return self.end(i, Ended::Because(format!("write: {}", e.kind()))),
            }
        }
        if written == conn.out.len() {
            conn.out.clear();
            if conn.out.capacity() > KEEP_BYTES {
                conn.out = Vec::new();
            }
        } else {
            conn.out.drain(..written);
        }
    }

    /// Reads socket `i` until it is empty. A short read means empty: that spares a second `read` a frame.
    pub fn read(&mut self, i: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let conn = &mut self.conns[i];
            let Some(stream) = conn.stream.as_mut() else { break };
            let kept = conn.tail.len();
            match stream.read(&mut buffer[kept..kept + READ_BYTES]) {
                Ok(0) => {
                    self.end(i, Ended::Because("end of stream".to_owned()));
                    break;
                }
                Ok(count) => {
                    let now = now_ns();
                    self.tally.counts.reads += 1;
                    self.tally.counts.bytes += count as u64;
                    buffer[..kept].copy_from_slice(&conn.tail);
                    conn.tail.clear();
                    let end = kept + count;
                    let used = self.consume(i, &buffer[..end], now);
                    self.keep_tail(i, &buffer[used..end]);
                    if count < READ_BYTES {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    self.end(i, Ended::Because(format!("read: {}", e.kind())));
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    fn keep_tail(&mut self, i: usize, rest: &[u8]) {
        if rest.len() > FRAME_LIMIT {
            return self.end(i, Ended::Because("frame too long".to_owned()));
        }
        let tail = &mut self.conns[i].tail;
        if rest.is_empty() && tail.capacity() > KEEP_BYTES {
            *tail = Vec::new();
        }
        tail.extend_from_slice(rest);
    }

    /// Takes whole frames off the front of `bytes`; returns how many bytes were used.
    fn consume(&mut self, i: usize, bytes: &[u8], now: u64) -> usize {
        let mut used = 0;
        if self.conns[i].phase == Phase::Upgrading {
            used = match self.upgraded(i, bytes) {
                Some(length) => length,
                None => return 0,
            };
        }
        loop {
            match front(&bytes[used..]) {
                Front::Partial => return used,
                Front::Bad(why) => {
                    self.end(i, Ended::Because(why.to_owned()));
                    return bytes.len();
                }
                Front::Whole { opcode, start, end } => {
                    let payload = &bytes[used + start..used + end];
                    used += end;
                    self.tally.counts.frames += 1;
                    match opcode {
                        TEXT => self.text(i, payload, now),
                        PING => {
                            put_client_header(&mut self.conns[i].out, PONG, payload.len());
                            self.conns[i].out.extend_from_slice(payload);
                            self.mark_dirty(i);
                        }
                        CLOSE => {
                            let code = payload.get(..2).map_or(1005, |c| u16::from_be_bytes([c[0], c[1]]));
                            self.end(i, Ended::Because(code.to_string()));
                            return bytes.len();
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
