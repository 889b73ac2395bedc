//! A connection in memory: two queues with room for so many bytes towards the client, and what the worker is told of it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::realtime::socket::Ready;

/// What the sockets of one worker are ready for: its poller.
#[derive(Default)]
pub struct Poller {
    ready: Mutex<BTreeMap<u32, Ready>>,
    pub wake: Notify,
}

impl Poller {
    fn note(&self, slot: u32, more: Ready) {
        let mut all = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = all.entry(slot).or_insert(Ready { slot, ..Ready::default() });
        ready.readable |= more.readable;
        ready.ended |= more.ended;
        ready.writable |= more.writable;
        self.wake.notify_one();
    }

    pub fn take(&self) -> BTreeMap<u32, Ready> {
        std::mem::take(&mut self.ready.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn is_empty(&self) -> bool {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

struct Pipe {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Bytes that may lie in `to_client`.
    room: usize,
    slot: Option<u32>,
    /// A write met no room.
    is_blocked: bool,
    server_finished: bool,
    client_gone: bool,
}

struct Shared {
    pipe: Mutex<Pipe>,
    poller: Arc<Poller>,
    /// Told when something has arrived at the client, or the server is gone.
    arrived: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pipe> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, pipe: &Pipe, ready: Ready) {
        if let Some(slot) = pipe.slot {
            self.poller.note(slot, ready);
        }
    }
}

/// The end that a worker holds.
pub struct ServerEnd(Arc<Shared>);

/// The end that a client holds.
pub struct ClientEnd(Arc<Shared>);

/// A connection with room for so many bytes towards the client, who is woken through `arrived`.
pub fn connect(poller: &Arc<Poller>, room: usize, arrived: Arc<Notify>) -> (ServerEnd, ClientEnd) {
    let pipe = Pipe {
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
        room,
        slot: None,
        is_blocked: false,
        server_finished: false,
        client_gone: false,
    };
    let shared = Arc::new(Shared { pipe: Mutex::new(pipe), poller: poller.clone(), arrived });
    (ServerEnd(shared.clone()), ClientEnd(shared))
}

impl ServerEnd {
    pub fn register(&self, slot: u32) {
        let mut pipe = self.0.lock();
        pipe.slot = Some(slot);
        self.0.tell(&pipe, Ready { readable: !pipe.to_server.is_empty(), ended: pipe.client_gone, ..Ready::default() });
    }

    pub fn finish(&self) {
        self.0.lock().server_finished = true;
        self.0.arrived.notify_one();
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Read for ServerEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock();
        if pipe.to_server.is_empty() && !pipe.client_gone {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.to_server.read(buffer)
    }
}

impl Write for ServerEnd {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock();
        if pipe.client_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = buffer.len().min(pipe.room.saturating_sub(pipe.to_client.len()));
        if count == 0 && !buffer.is_empty() {
            pipe.is_blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.to_client.extend(&buffer[..count]);
        self.0.arrived.notify_one();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ClientEnd {
    /// Takes all that has arrived; `true` where the server will send no more.
    pub fn take(&self, into: &mut Vec<u8>) -> bool {
        let mut pipe = self.0.lock();
        let (front, back) = pipe.to_client.as_slices();
        into.extend_from_slice(front);
        into.extend_from_slice(back);
        pipe.to_client.clear();
        if std::mem::take(&mut pipe.is_blocked) {
            self.0.tell(&pipe, Ready { writable: true, ..Ready::default() });
        }
        pipe.server_finished
    }

    pub fn write(&self, bytes: &[u8]) {
        let mut pipe = self.0.lock();
        pipe.to_server.extend(bytes);
        self.0.tell(&pipe, Ready { readable: true, ..Ready::default() });
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        pipe.client_gone = true;
        self.0.tell(&pipe, Ready { readable: true, ended: true, ..Ready::default() });
    }
}
