//! One socket of ours: how it is opened without blocking, what it says until it is live, and its position in every thread.

use crate::error::{LoadError, doing};
use crate::frame::put_client_text;
use mio::net::TcpStream;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, socket_with, sockopt};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};

/// Sockets bound to one loopback address before the next is used; well below the 28,232 ephemeral ports of one address.
const SOCKETS_PER_ADDRESS: u32 = 5_000;
/// The most sockets one process may open: the usual hard descriptor limit of 20,000 less what the process needs itself.
pub const MAX_SOCKETS: usize = 19_500;
/// Id of the `auth` command.
pub const AUTH_ID: u64 = 1;
/// Id of `threads.list`.
pub const LIST_ID: u64 = 2;
/// Id of `thread.open`.
pub const OPEN_ID: u64 = 3;
/// Ids of sends start here.
pub const FIRST_SEND_ID: u64 = 16;

/// Where to connect.
#[derive(Debug, Clone)]
pub struct Target {
    /// Address of the server.
    pub addr: SocketAddr,
    /// `Host` header.
    pub host: String,
}

impl Target {
    /// Reads `http://host:port` or `ws://host:port`; a path is ignored.
    pub fn parse(url: &str) -> Result<Self, LoadError> {
        let bad = |why: &str| LoadError::Usage(format!("--url {url}: {why}"));
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
        let rest = rest.ok_or_else(|| bad("expected http:// or ws:// (no TLS)"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let mut addrs = host.to_socket_addrs().map_err(|e| bad(&e.to_string()))?;
        let addr = addrs.find(SocketAddr::is_ipv4).ok_or_else(|| bad("no IPv4 address"))?;
        Ok(Self { addr, host: host.to_owned() })
    }
}

/// How far a socket has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not opened.
    Idle,
    /// TCP connect under way.
    Connecting,
    /// Upgrade sent.
    Upgrading,
    /// Upgraded (or, on a floor, connected): the server speaks next.
    Greeting,
    /// `auth` sent.
    Authenticating,
    /// Further pages of the thread list asked for.
    Listing,
    /// Ready: gets updates, may send.
    Live,
    /// Closed by either side.
    Ended,
}

/// A socket's position in one thread.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Key of the thread.
    pub key: u64,
    /// Index of the thread in the directory.
    pub thread: u32,
    /// Last `seq` seen.
    pub last: u64,
}

/// One socket.
pub struct Conn {
    /// The stream while open.
    pub stream: Option<TcpStream>,
    /// How far it has come.
    pub phase: Phase,
    /// Index of the person who logs in.
    pub person: u32,
    /// Index of the url it uses.
    pub url: u8,
    /// Start of a frame whose end has not come.
    pub tail: Vec<u8>,
    /// Bytes to write.
    pub out: Vec<u8>,
    /// Listed for a flush.
    pub dirty: bool,
    /// Not reading, on purpose.
    pub paused: bool,
    /// Positions, by thread.
    pub slots: Vec<Slot>,
    /// Slot hit last; the next update is most often of the same thread.
    pub recent: usize,
    /// Last `seq` of the user stream.
    pub user_last: u64,
    /// When the connect began, nanoseconds of CLOCK_MONOTONIC.
    pub dialed_ns: u64,
    /// Epoch the positions belong to; present when the next `auth` shall resume.
    pub epoch: Option<String>,
    /// Whether a resume is still owed.
    pub resuming: bool,
}

impl Conn {
    /// A socket not opened yet.
    pub fn new(person: u32, url: u8) -> Self {
        Self {
            stream: None,
            phase: Phase::Idle,
            person,
            url,
            tail: Vec::new(),
            out: Vec::new(),
            dirty: false,
            paused: false,
            slots: Vec::new(),
            recent: 0,
            user_last: 0,
            dialed_ns: 0,
            epoch: None,
            resuming: false,
        }
    }

    /// The slot of the thread with this key.
    #[inline]
    pub fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        if self.slots.get(self.recent).is_none_or(|slot| slot.key != key) {
            self.recent = self.slots.iter().position(|slot| slot.key == key)?;
        }
        self.slots.get_mut(self.recent)
    }

    /// Queues the upgrade request (RFC 6455, section 4.1). The key is fixed: nothing between us and the server caches.
    pub fn queue_upgrade(&mut self, host: &str) {
        self.out.extend_from_slice(b"GET /v1/ws HTTP/1.1\r\nHost: ");
        self.out.extend_from_slice(host.as_bytes());
        self.out.extend_from_slice(
            b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: aGF1cy1sb2FkLWtleS0wMQ==\r\nSec-WebSocket-Protocol: haus.v1\r\n\r\n",
        );
    }

    /// Queues `auth`, with the positions held when `epoch` is known. `caps` is their JSON; `thread_id` gives the text of a thread's id.
    pub fn queue_auth<'a>(&mut self, token: &str, device: usize, caps: &str, thread_id: impl Fn(u32) -> &'a [u8]) {
        let mut text = format!(
            "{{\"id\":{AUTH_ID},\"cmd\":\"auth\",\"d\":{{\"token\":\"{token}\",\"device\":{{\"id\":\"00000000-0000-4000-8000-{device:012x}\",\
             \"kind\":\"web\"}},\"caps\":{caps}"
        );
        if let Some(epoch) = &self.epoch {
            // Writing to a String cannot fail.
            let _ = write!(text, ",\"resume\":{{\"epoch\":\"{epoch}\",\"streams\":{{\"user\":{}", self.user_last);
            for slot in &self.slots {
                let _ = write!(text, ",\"{}\":{}", String::from_utf8_lossy(thread_id(slot.thread)), slot.last);
            }
            text.push_str("}}");
            self.resuming = true;
        }
        text.push_str("}}");
        put_client_text(&mut self.out, text.as_bytes());
    }
}

/// Starts a non-blocking connect from a loopback address of its own range when the server is on loopback.
pub fn open(target: &Target, index: u32) -> Result<TcpStream, LoadError> {
    let fail = |what| move |e: rustix::io::Errno| doing(what)(e.into());
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(fail("socket"))?;
    sockopt::set_tcp_nodelay(&fd, true).map_err(fail("socket option"))?;
    if target.addr.ip().is_loopback() {
        // Addresses of this process alone: ports of the last run stay in TIME_WAIT for a minute, and where most of an
        // address's are taken, finding a free one costs more than the connection.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let last = 2 + (index / SOCKETS_PER_ADDRESS % 250) as u8;
        bind(&fd, &SocketAddrV4::new(Ipv4Addr::new(127, high, low, last), 0)).map_err(fail("bind"))?;
    }
    match connect(&fd, &target.addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(e) => return Err(fail("connect")(e)),
    }
    Ok(TcpStream::from_std(std::net::TcpStream::from(fd)))
}

/// Raises the soft descriptor limit to the hard one and checks that `sockets` fit.
pub fn make_room(sockets: usize) -> Result<(), LoadError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, which the check below judges.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if sockets > MAX_SOCKETS || sockets as u64 + 200 > have {
        return Err(LoadError::Usage(format!(
            "--sockets {sockets}: at most {} in one process here",
            (have.saturating_sub(200)).min(MAX_SOCKETS as u64)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Conn, Slot, Target};

    #[test]
    fn urls_are_read_and_bad_ones_named() {
        let target = Target::parse("http://127.0.0.1:8080/x").map(|t| (t.addr.port(), t.host));
        assert!(target.is_ok_and(|t| t == (8080, "127.0.0.1:8080".to_owned())));
        assert!(Target::parse("https://127.0.0.1:1").is_err());
        assert!(Target::parse("http://127.0.0.1").is_err());
    }

    #[test]
    fn auth_resumes_only_when_positions_are_held() {
        let mut conn = Conn::new(0, 0);
        conn.slots.push(Slot { key: 1, thread: 0, last: 42 });
        conn.user_last = 17;
        conn.queue_auth("tok", 3, "[]", |_| b"thread");
        assert!(!String::from_utf8_lossy(&conn.out).contains("resume") && !conn.resuming);
        conn.out.clear();
        conn.epoch = Some("e".to_owned());
        conn.queue_auth("tok", 3, "[]", |_| b"thread");
        let text = String::from_utf8_lossy(&conn.out).into_owned();
        assert!(text.ends_with(r#","resume":{"epoch":"e","streams":{"user":17,"thread":42}}}}"#), "{text}");
        assert!(conn.resuming);
    }
}
