//! A TCP proxy between clients and a node that breaks connections on command: latency with seeded jitter, slices of a
//! few bytes, a black hole in which bytes wait and nothing closes, and a cut of all connections. It reads no protocol.
//!
//! Each connection holds one chunk in each direction; a peer that does not read stops the other side as without proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::RigError;
use super::rng::Rng;

/// Bytes in flight in each direction of a connection.
const CHUNK_BYTES: usize = 16 * 1024;

/// What the proxy does to bytes. The default does nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every chunk waits so long, milliseconds.
    pub latency_ms: u64,
    /// And up to so much longer, milliseconds, by the seed.
    pub jitter_ms: u64,
    /// Writes are split into pieces of at most so many bytes; 0 leaves them whole.
    pub slice_bytes: usize,
    /// Nothing passes and nothing closes until this ends.
    pub black_hole: bool,
}

/// A listening proxy; ends, with all its connections, on drop.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free loopback port and forwards to `target`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub async fn start(target: SocketAddr, seed: u64) -> Result<Self, RigError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(RigError::io("listen as proxy"))?;
        let address = listener.local_addr().map_err(RigError::io("listen as proxy"))?;
        let (faults, watched) = watch::channel(Faults::default());
        let (cuts, cut) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((client, _)) = listener.accept().await {
                connection += 1;
                tokio::spawn(forward(client, target, watched.clone(), cut.clone(), Rng::new(seed, connection)));
            }
        });
        Ok(Self { address, faults, cuts, accepting })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what happens from now on, to open connections too.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Closes every open connection; new ones are accepted.
    pub fn cut_all(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

async fn forward(
    client: TcpStream,
    target: SocketAddr,
    faults: watch::Receiver<Faults>,
    mut cut: watch::Receiver<u64>,
    rng: Rng,
) {
    cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without it slices would wait for acknowledgements (Nagle) and add a latency nobody set.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let faults = Arc::new(faults);
    // Either direction ending, or a cut, drops all four halves and so closes both sockets.
    tokio::select! {
        () = pump(from_client, to_server, Arc::clone(&faults), rng.clone()) => {}
        () = pump(from_server, to_client, faults, rng) => {}
        _ = cut.changed() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: Arc<watch::Receiver<Faults>>, mut rng: Rng) {
    let mut watched = faults.as_ref().clone();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
        if watched.wait_for(|faults| !faults.black_hole).await.is_err() {
            return;
        }
        let now = *watched.borrow();
        let wait_ms = now.latency_ms + rng.below(now.jitter_ms + 1);
        if wait_ms > 0 {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        let slice = if now.slice_bytes == 0 { CHUNK_BYTES } else { now.slice_bytes };
        for piece in chunk[..length].chunks(slice) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            if slice < CHUNK_BYTES {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::{FaultProxy, Faults};

    const SHORT: Duration = Duration::from_millis(150);

    /// A proxy before a server that sends everything back.
    async fn echo() -> (FaultProxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                });
            }
        });
        let proxy = FaultProxy::start(target, 1).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round_trip(&mut stream, b"open").await, b"open");
        (proxy, stream)
    }

    async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
        stream.write_all(bytes).await.unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await.unwrap();
        back
    }

    #[tokio::test]
    async fn latency_and_slices_delay_but_keep_every_byte() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Faults { latency_ms: 40, jitter_ms: 5, slice_bytes: 1, black_hole: false });
        let (start, text) = (Instant::now(), b"each byte by itself".as_slice());
        assert_eq!(round_trip(&mut stream, text).await, text);
        assert!(start.elapsed() >= Duration::from_millis(80), "both directions wait");
    }

    #[tokio::test]
    async fn a_cut_closes_and_new_connections_pass() {
        let (proxy, mut stream) = echo().await;
        proxy.cut_all();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round_trip(&mut next, b"again").await, b"again");
    }

    #[tokio::test]
    async fn a_black_hole_answers_nothing_closes_nothing_and_ends() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Faults { black_hole: true, ..Faults::default() });
        stream.write_all(b"wait").await.unwrap();
        let mut back = [0; 4];
        assert!(tokio::time::timeout(SHORT, stream.read_exact(&mut back)).await.is_err(), "nothing may come");
        proxy.set(Faults::default());
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"wait");
    }

    #[tokio::test]
    async fn the_end_of_the_proxy_ends_its_connections() {
        let (proxy, mut stream) = echo().await;
        drop(proxy);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
