//! The floor: a bare loop that writes ready frames to sockets and does nothing else. No rooms to look up by name, no database, no
//! parsing. It is what the operating system allows, and so what the server's figures are divided by. Runs as a child process.

use crate::error::{LoadError, doing};
use crate::frame::put_server_header;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};

/// Room number by which a socket says that it publishes.
pub const PUBLISHER: u32 = u32::MAX;
/// What arrives in one read of this size is a batch.
const READ_BYTES: usize = 64 * 1024;
const LISTENER: Token = Token(usize::MAX - 1);

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// One `write` per message and recipient.
    OneWrite,
    /// What arrived together is joined once and written once to each recipient.
    Coalesced,
}

impl Mode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneWrite => "one-write",
            Self::Coalesced => "coalesced",
        }
    }
}

struct Peer {
    stream: TcpStream,
    room: Option<u32>,
    input: Vec<u8>,
    pending: Vec<u8>,
}

struct Loop {
    mode: Mode,
    peers: Vec<Peer>,
    rooms: Vec<Vec<usize>>,
    joined: Vec<Vec<u8>>,
    touched: Vec<usize>,
}

/// Serves until the publisher leaves. Prints the port it listens on as the one line of its output.
pub fn serve(mode: Mode) -> Result<(), LoadError> {
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).map_err(doing("floor: bind"))?;
    let mut poll = Poll::new().map_err(doing("floor: epoll"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(doing("floor: epoll"))?;
    println!("{}", listener.local_addr().map_err(doing("floor: address"))?.port());
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BYTES];
    let mut floor = Loop { mode, peers: Vec::new(), rooms: Vec::new(), joined: Vec::new(), touched: Vec::new() };
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(doing("floor: epoll")(e)),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                floor.accept(&listener, &poll)?;
                continue;
            }
            let at = event.token().0;
            if event.is_writable() && !floor.peers[at].pending.is_empty() {
                floor.peers[at].write(&[]);
            }
            if event.is_readable() && !floor.read(at, &mut buffer) && floor.peers[at].room == Some(PUBLISHER) {
                return Ok(());
            }
        }
    }
}

impl Peer {
    /// Writes now what can be written and keeps the rest for when the socket is writable.
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if self.pending.is_empty() {
            let written = self.try_write(bytes);
            self.pending.extend_from_slice(&bytes[written..]);
        } else {
            self.pending.extend_from_slice(bytes);
            let pending = std::mem::take(&mut self.pending);
            let written = self.try_write(&pending);
            self.pending = pending;
            self.pending.drain(..written);
        }
    }

    /// How many bytes the socket took; all of them when it is gone, so that nothing is kept for it.
    #[inline]
    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return written,
                Err(_) => return bytes.len(),
            }
        }
        written
    }
}

impl Loop {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> Result<(), LoadError> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(doing("floor: accept")(e)),
            };
            stream.set_nodelay(true).map_err(doing("floor: socket option"))?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(self.peers.len()), interest).map_err(doing("floor: epoll"))?;
            self.peers.push(Peer { stream, room: None, input: Vec::new(), pending: Vec::new() });
        }
    }

    /// Reads one socket until it is empty; false when it has ended.
    fn read(&mut self, at: usize, buffer: &mut [u8]) -> bool {
        loop {
            match self.peers[at].stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.peers[at].input.extend_from_slice(&buffer[..count]);
                    if self.peers[at].room == Some(PUBLISHER) {
                        self.publish(at);
                    } else {
                        self.join(at);
                    }
                    if count < buffer.len() {
                        return true;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// The first four bytes of a socket name its room.
    fn join(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let Some(room) = peer.input.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) else { return };
        if peer.room.is_some() {
            return;
        }
        peer.input.drain(..4);
        peer.room = Some(room);
        peer.write(&text(b"{\"up\":\"ready\"}"));
        if room != PUBLISHER {
            let room = room as usize;
            if self.rooms.len() <= room {
                self.rooms.resize(room + 1, Vec::new());
                self.joined.resize(room + 1, Vec::new());
            }
            self.rooms[room].push(at);
        }
    }

    /// Fans out everything that has come from the publisher, then answers it all in one write.
    fn publish(&mut self, publisher: usize) {
        let input = std::mem::take(&mut self.peers[publisher].input);
        let mut rest = input.as_slice();
        let mut answers = Vec::new();
        while let Some((room, id, frame)) = next_publish(&mut rest) {
            match self.mode {
                Mode::OneWrite => {
                    for member in &self.rooms[room] {
                        self.peers[*member].write(frame);
                    }
                }
                Mode::Coalesced => {
                    if self.joined[room].is_empty() {
                        self.touched.push(room);
                    }
                    self.joined[room].extend_from_slice(frame);
                }
            }
            answers.extend_from_slice(&text(format!("{{\"id\":{id},\"ok\":{{}}}}").as_bytes()));
        }
        for room in self.touched.drain(..) {
            for member in &self.rooms[room] {
                self.peers[*member].write(&self.joined[room]);
            }
            self.joined[room].clear();
        }
        self.peers[publisher].write(&answers);
        self.peers[publisher].input = rest.to_vec();
    }
}

/// Takes one publish off the front of `rest`.
fn next_publish<'a>(rest: &mut &'a [u8]) -> Option<(usize, u64, &'a [u8])> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (room, after) = after.split_first_chunk::<4>()?;
    let (id, after) = after.split_first_chunk::<8>()?;
    let (frame, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some((u32::from_le_bytes(*room) as usize, u64::from_le_bytes(*id), frame))
}

fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 4);
    put_server_header(&mut frame, payload.len());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::next_publish;

    #[test]
    fn publishes_are_taken_whole_and_a_cut_one_waits() {
        let mut wire = Vec::new();
        for (room, id, frame) in [(3u32, 16u64, &b"abc"[..]), (4, 17, b"de")] {
            wire.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            wire.extend_from_slice(&room.to_le_bytes());
            wire.extend_from_slice(&id.to_le_bytes());
            wire.extend_from_slice(frame);
        }
        let mut rest = &wire[..wire.len() - 1];
        assert_eq!(next_publish(&mut rest), Some((3, 16, &b"abc"[..])));
        assert_eq!(next_publish(&mut rest), None);
        assert_eq!(rest.len(), 4 + 4 + 8 + 1, "the header and what is there of the frame");
    }
}
