//! A worker that meets a defect. The rest of the product is never asked here.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Node;
use crate::courier::Courier;
use crate::courier::in_process::InProcess;
use crate::limits::Addresses;
use crate::protocol::codes::Refusal;
use crate::protocol::types::{SendBody, ThreadRow};
use crate::realtime::inbox::{NewSocket, Snapshot, ToWorker};
use crate::realtime::{
    Access, Backend, CommandName, Credential, EngineOptions, Later, LogReader, Polled, Positions, SocketReply, Welcome,
};
use crate::updates::{StreamId, Update};

struct Nobody;

fn never<T>() -> Later<'static, Result<T, Refusal>>
where
    T: Send + 'static,
{
    Box::pin(async { Err(Refusal::unavailable()) })
}

impl Backend for Nobody {
    fn authenticate(&self, _: Credential) -> Later<'_, Result<Access, Refusal>> {
        never()
    }
    fn welcome(&self, _: Access) -> Later<'_, Result<Welcome, Refusal>> {
        never()
    }
    fn send(&self, _: Uuid, _: Uuid, _: SendBody, _: SocketReply) {}
    fn command<'a>(
        &'a self,
        _: Uuid,
        _: IpAddr,
        _: CommandName,
        _: &'a str,
    ) -> Later<'a, Result<Box<RawValue>, Refusal>> {
        never()
    }
    fn stands(&self, _: Access) -> Later<'_, Result<(), Refusal>> {
        never()
    }
    fn positions(&self, _: Uuid, _: Vec<Uuid>) -> Later<'_, Result<Positions, Refusal>> {
        never()
    }
    fn snapshot(&self, _: Uuid, _: StreamId) -> Later<'_, Result<Snapshot, Refusal>> {
        never()
    }
    fn cursor(&self, _: &ThreadRow) -> String {
        String::new()
    }
}

impl LogReader for Nobody {
    fn pages<'a>(&'a self, _: &'a [(StreamId, u64)], _: u32) -> Later<'a, Result<Vec<Vec<Update>>, Refusal>> {
        never()
    }
    fn heads<'a>(&'a self, _: &'a [StreamId]) -> Later<'a, Result<Vec<(StreamId, u64)>, Refusal>> {
        never()
    }
    fn poll(&self, _: Option<String>, _: u32) -> Later<'_, Result<Polled, Refusal>> {
        never()
    }
}

/// A socket of the node: the peer's side.
fn connect(node: &Node, listener: &TcpListener, addresses: &Arc<Addresses>) -> TcpStream {
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    peer.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let (stream, _) = listener.accept().expect("accepted");
    stream.set_nonblocking(true).expect("set");
    let guard = addresses.enter(Ipv4Addr::LOCALHOST.into(), u32::MAX).expect("a place");
    node.accept(NewSocket { socket: stream.into(), early: Vec::new(), credential: None, guard });
    peer
}

/// Whether `hello` came; false at the end of the stream.
fn is_greeted(peer: &mut TcpStream) -> bool {
    let mut head = [0; 2];
    peer.read_exact(&mut head).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_worker_that_panics_closes_its_sockets_and_takes_others() {
    let courier: Arc<dyn Courier> = Arc::new(InProcess::new(Arc::new(|_| {})));
    let options = EngineOptions {
        node: "n".into(),
        workers: 2,
        heartbeat_ms: 25_000,
        auth_timeout_ms: 5_000,
        slow_close_ms: 30_000,
        frame_bytes: 1 << 16,
        sends_per_10s: 50,
        sessions_per_profile: 20,
        limits_on: true,
    };
    let parts = Node::hub(&courier);
    let node =
        Node::start(options, String::new(), parts, courier, Arc::new(Nobody), Arc::new(Nobody)).expect("started");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let addresses = Arc::new(Addresses::default());
    for _ in 0..2 {
        let mut peers: Vec<TcpStream> = (0..6).map(|_| connect(&node, &listener, &addresses)).collect();
        assert!(peers.iter_mut().all(is_greeted), "both workers take sockets");
        let inbox = node.shared.hub.inbox(0).expect("a worker");
        inbox.push(ToWorker::Fail);
        let began = Instant::now();
        let open = peers.iter_mut().filter_map(|peer| {
            peer.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
            let mut rest = [0; 4096];
            loop {
                match peer.read(&mut rest) {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Some(()),
                    Err(_) => return None,
                }
            }
        });
        assert_eq!(open.count(), 3, "those of the other worker stay, {:?}", began.elapsed());
    }
    node.stop(crate::protocol::CloseCode::Drain).await;
}
