//! The poll loop: opens sockets, reads what came, writes what is queued. One thread, edge-triggered epoll, one read buffer for all
//! sockets. What a frame means is decided in `incoming`; what to send and when, by the scenarios.

use crate::clock::{Alarm, SECOND_NS, now_ns};
use crate::conn::{Conn, FIRST_SEND_ID, Phase, Target, open};
use crate::directory::Directory;
use crate::error::{LoadError, doing};
use crate::frame::{CLOSE, Front, PING, PONG, TEXT, front, put_client_header};
use crate::outgoing::Peer;
use crate::tally::Tally;
use crate::tokens::Person;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};

/// Bytes asked for in one `read`.
const READ_BYTES: usize = 256 * 1024;
/// The longest frame taken; longer ones end the socket.
const FRAME_LIMIT: usize = 4 * 1024 * 1024;
/// A socket's own buffers are given back when empty and larger than this.
const KEEP_BYTES: usize = 4 * 1024;
/// Readiness reports taken in one turn.
const EVENTS: usize = 1024;
/// The longest one turn sleeps, nanoseconds.
const NAP_NS: u64 = SECOND_NS / 5;
/// Sends whose replies are awaited; a power of two. Beyond it sending pauses and the report says so.
const AWAITED: usize = 1 << 18;
const ALARM: Token = Token(usize::MAX - 1);

/// A send whose reply is awaited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Awaited {
    /// Its id; 0 for none.
    pub id: u64,
    /// When it was meant to be sent.
    pub intended_ns: u64,
    /// Thread it went to.
    pub thread: u32,
}

/// The loop and all it owns.
pub struct Engine {
    poll: Poll,
    events: Events,
    alarm: Alarm,
    buffer: Vec<u8>,
    dirty: Vec<u32>,
    /// What is on the other side.
    pub peer: Peer,
    /// Where to connect.
    pub targets: Vec<Target>,
    /// Who logs in.
    pub people: Vec<Person>,
    /// The sockets.
    pub conns: Vec<Conn>,
    /// Their threads.
    pub directory: Directory,
    /// The books.
    pub tally: Tally,
    /// Sends without a reply, by id modulo [`AWAITED`].
    pub awaited: Vec<Awaited>,
    /// Id of the next send.
    pub next_id: u64,
    /// Tag of this run in stamps.
    pub run: u16,
    /// Where a stamp was found last.
    pub stamp_hint: usize,
    /// Sockets on the way to live.
    pub handshakes: usize,
    /// Live sockets.
    pub live: usize,
    /// Sockets that got `resumed` since they were last counted.
    pub resumed: usize,
}

/// Why a socket ended.
pub enum Ended {
    /// Closed by us, on purpose: not counted.
    OnPurpose,
    /// Anything else, by name.
    Because(String),
}

impl Engine {
    /// A loop without open sockets: `people` are dealt round over `sockets`, and `targets` over these.
    pub fn new(peer: Peer, targets: Vec<Target>, people: Vec<Person>, sockets: usize, in_flight: u64) -> Result<Self, LoadError> {
        let poll = Poll::new().map_err(doing("epoll"))?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let conns = (0..sockets).map(|i| Conn::new((i % people.len().max(1)) as u32, (i % targets.len().max(1)) as u8)).collect();
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            alarm,
            buffer: vec![0; FRAME_LIMIT + READ_BYTES],
            dirty: Vec::new(),
            peer,
            targets,
            people,
            conns,
            directory: Directory::new(in_flight),
            tally: Tally::new()?,
            awaited: vec![Awaited::default(); AWAITED],
            next_id: FIRST_SEND_ID,
            run: (now_ns() >> 10) as u16,
            stamp_hint: 0,
            handshakes: 0,
            live: 0,
            resumed: 0,
        })
    }

    /// Starts to open socket `i`.
    pub fn dial(&mut self, i: usize) -> Result<(), LoadError> {
        let conn = &mut self.conns[i];
        let mut stream = open(&self.targets[usize::from(conn.url)], i as u32)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(i), interest).map_err(doing("epoll"))?;
        conn.stream = Some(stream);
        conn.phase = Phase::Connecting;
        conn.dialed_ns = now_ns();
        self.handshakes += 1;
        Ok(())
    }

    /// One turn: writes what is queued, sleeps until something happens or `wake_ns`, and reads everything that came.
    pub fn turn(&mut self, wake_ns: u64) -> Result<(), LoadError> {
        self.flush();
        let now = now_ns();
        let timeout = if wake_ns <= now {
            std::time::Duration::ZERO
        } else {
            if wake_ns < now + NAP_NS {
                self.alarm.set(wake_ns)?;
            }
            std::time::Duration::from_nanos(NAP_NS)
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(doing("epoll")(e)),
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == ALARM {
                continue;
            }
            let i = event.token().0;
            if event.is_writable() {
                self.writable(i);
            }
            if event.is_readable() && !self.conns[i].paused {
                self.read(i);
            }
        }
        self.events = events;
        Ok(())
    }

    fn writable(&mut self, i: usize) {
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

    /// Lists socket `i` for the flush at the end of the turn.
    #[inline]
    pub fn mark_dirty(&mut self, i: usize) {
        if !self.conns[i].dirty {
            self.conns[i].dirty = true;
            self.dirty.push(i as u32);
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for i in dirty.drain(..) {
            self.conns[i as usize].dirty = false;
            self.write(i as usize);
        }
        self.dirty = dirty;
    }

    fn write(&mut self, i: usize) {
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

    /// Ends socket `i` and takes it out of its threads.
    pub fn end(&mut self, i: usize, why: Ended) {
        let conn = &mut self.conns[i];
        let Some(mut stream) = conn.stream.take() else { return };
        // The descriptor is closed below, which takes it out of the epoll set in any case.
        let _ = self.poll.registry().deregister(&mut stream);
        if conn.phase == Phase::Live {
            self.live -= 1;
            for slot in &conn.slots {
                self.directory.threads[slot.thread as usize].members -= 1;
            }
        } else {
            self.handshakes -= 1;
        }
        conn.phase = Phase::Ended;
        conn.tail = Vec::new();
        conn.out = Vec::new();
        if let Ended::Because(why) = why {
            Tally::count(&mut self.tally.closed, why.as_bytes());
        }
    }
}
