//! The poll loop: opens sockets, reads what came, writes what is queued. One thread, edge-triggered epoll, one read buffer for all
//! sockets. What a frame means is decided in `incoming`; what to send and when, by the scenarios.

use crate::clock::{Alarm, SECOND_NS, now_ns};
use crate::conn::{Conn, FIRST_SEND_ID, Phase, Target, open};
use crate::directory::Directory;
use crate::error::{LoadError, doing};
use crate::outgoing::Peer;
use crate::tally::Tally;
use crate::tokens::Person;
use crate::transfer::BUFFER_BYTES;
use mio::{Events, Interest, Poll, Token};
use std::io::ErrorKind;

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
    /// Where every `read` goes.
    pub buffer: Vec<u8>,
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
    /// Read marks.
    pub marks: Marks,
    /// Sockets that got `resumed` since they were last counted.
    pub resumed: usize,
}

/// Read marks, where a scenario wants them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// Whether every message that comes is marked read.
    pub wanted: bool,
    /// Sockets whose `thread.open` was answered.
    pub opened: usize,
    /// Marks sent.
    pub sent: u64,
    /// Marks answered `ok`.
    pub answered: u64,
    /// Marks answered with an error.
    pub refused: u64,
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
    pub fn new(
        peer: Peer,
        targets: Vec<Target>,
        people: Vec<Person>,
        sockets: usize,
        in_flight: u64,
    ) -> Result<Self, LoadError> {
        let poll = Poll::new().map_err(doing("epoll"))?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let conns = (0..sockets)
            .map(|i| Conn::new((i % people.len().max(1)) as u32, (i % targets.len().max(1)) as u8))
            .collect();
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            alarm,
            buffer: vec![0; BUFFER_BYTES],
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
            marks: Marks::default(),
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
