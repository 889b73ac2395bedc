//! The stream below a session, and what its worker is told of it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

#[cfg(test)]
use super::simulation::pipe::ServerEnd;

/// A connection; never blocks.
pub enum Socket {
    Tcp(TcpStream),
    #[cfg(test)]
    Simulated(ServerEnd),
}

/// What a socket is ready for since it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ready {
    pub slot: u32,
    pub readable: bool,
    /// The peer has sent its last byte.
    pub ended: bool,
    pub writable: bool,
}

impl Ready {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            slot: event.token().0 as u32,
            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            ended: event.is_read_closed(),
            writable: event.is_writable(),
        }
    }
}

impl Socket {
    /// From now on the poller behind `registry` tells what it is ready for, under its slot.
    pub fn register(&mut self, registry: &Registry, slot: u32) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                registry.register(stream, Token(slot as usize), Interest::READABLE | Interest::WRITABLE)
            }
            #[cfg(test)]
            Self::Simulated(end) => {
                end.register(slot);
                Ok(())
            }
        }
    }

    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => registry.deregister(stream),
            #[cfg(test)]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Nothing more will be written.
    pub fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(test)]
            Self::Simulated(end) => {
                end.finish();
                Ok(())
            }
        }
    }
}

impl From<std::net::TcpStream> for Socket {
    /// `stream` must be set not to block.
    fn from(stream: std::net::TcpStream) -> Self {
        Self::Tcp(TcpStream::from_std(stream))
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            #[cfg(test)]
            Self::Simulated(end) => end.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            #[cfg(test)]
            Self::Simulated(end) => end.write(buffer),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            #[cfg(test)]
            Self::Simulated(end) => end.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
