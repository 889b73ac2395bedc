//! The byte stream of an HTTP connection, with two things that hyper leaves out: a peer that does not take its answer is
//! closed, and the answers that hyper makes itself (to what is no HTTP) look like all others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::refusal::Refusals;

/// While an answer waits for its peer, this much must go out...
const PACE_BYTES: usize = 10 << 10;
/// ...in each span of this length: 1 KiB a second, the pace below which a phone shows nothing.
const PACE_WINDOW: Duration = Duration::from_secs(10);

/// A connection before its upgrade.
pub struct Connection {
    stream: TcpStream,
    refusals: Arc<Refusals>,
    /// The end of the present span, while an answer waits.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Bytes that went out in it.
    taken: usize,
    /// What goes out in the place of an answer of hyper's own, and how much of that it stands for.
    instead: Option<(Bytes, usize)>,
}

impl Connection {
    pub fn new(stream: TcpStream, refusals: Arc<Refusals>) -> Self {
        Self { stream, refusals, waiting: None, taken: 0, instead: None }
    }

    /// The stream, when the connection becomes a socket.
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Judges the outcome of a write of `whole` bytes.
    fn paced(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<usize>>,
        whole: usize,
    ) -> Poll<io::Result<usize>> {
        match done {
            Poll::Ready(Ok(count)) => {
                self.taken += count;
                if count >= whole {
                    self.waiting = None;
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let waiting = self.waiting.get_or_insert_with(|| {
                    self.taken = 0;
                    Box::pin(sleep(PACE_WINDOW))
                });
                while waiting.as_mut().poll(context).is_ready() {
                    if self.taken < PACE_BYTES {
                        crate::telemetry::metrics().connections_refused.with_label_values(&["unread"]).inc();
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    self.taken = 0;
                    waiting.as_mut().reset(Instant::now() + PACE_WINDOW);
                }
                Poll::Pending
            }
        }
    }

    /// Writes what stands for an answer of hyper's own; `Ready(None)` when `head` is no such answer.
    fn poll_instead(
        &mut self,
        context: &mut Context<'_>,
        head: &[u8],
        whole: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        if self.instead.is_none() {
            match self.refusals.instead_of(head) {
                Some(answer) => self.instead = Some((answer, whole)),
                None => return Poll::Ready(Ok(None)),
            }
        }
        while let Some((answer, stands_for)) = self.instead.as_mut() {
            if answer.is_empty() {
                let stands_for = *stands_for;
                self.instead = None;
                return Poll::Ready(Ok(Some(stands_for)));
            }
            let done = Pin::new(&mut self.stream).poll_write(context, answer);
            let whole = answer.len();
            let count = ready!(self.paced(context, done, whole))?;
            if let Some((answer, _)) = self.instead.as_mut() {
                answer.advance(count);
            }
        }
        Poll::Ready(Ok(None))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(count) = ready!(self.poll_instead(context, buffer, buffer.len()))? {
            return Poll::Ready(Ok(count));
        }
        let done = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.paced(context, done, buffer.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole = buffers.iter().map(|buffer| buffer.len()).sum();
        let head: &[u8] = buffers.first().map_or(&[], |first| first);
        if let Some(count) = ready!(self.poll_instead(context, head, whole))? {
            return Poll::Ready(Ok(count));
        }
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.paced(context, done, whole)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
