//! The sockets of one recording client: connect to some node, drive [`Member`], and start over on another node when it
//! ends. The driver steers it by orders; without orders it lives until its handle goes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::member::{BATCH_FRAMES, Member, Status};
use crate::rest::Rest;

/// How often a client looks at its clock. Sends of one look go out as one batch.
const TICK: Duration = Duration::from_millis(25);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Pause after a connection that failed or was refused.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// Receive buffer of the client's socket, bytes: small, so that a client that stops reading is felt by the node soon.
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;
/// Most bytes of the commands in one message; below the protocol's limit of a frame.
const BATCH_BYTES: usize = 48 << 10;
/// Orders not yet followed.
const ORDERS: usize = 16;

/// A node as clients reach it.
#[derive(Debug, Clone)]
pub struct Door {
    pub name: String,
    pub direct: SocketAddr,
    pub proxied: SocketAddr,
}

/// What the driver tells a client.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Leave and come back after so long.
    Away(Duration),
    /// Stop reading and writing for so long, socket open.
    Stall(Duration),
    /// Leave and resume on the next node at once.
    Move,
}

/// A running client; ends on drop.
#[derive(Debug)]
pub struct Handle {
    pub client: u32,
    pub orders: mpsc::Sender<Order>,
    pub status: Arc<Mutex<Status>>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the client on the node numbered `first`. `may_send` allows new messages.
pub fn start(member: Member, rest: Rest, first: usize, may_send: watch::Receiver<bool>) -> Handle {
    let (orders, inbox) = mpsc::channel(ORDERS);
    let (client, status) = (member.identity.client, member.status());
    let doors = Arc::clone(&rest.doors);
    let driver = Driver { member, rest, doors, inbox, may_send, next: first };
    Handle { client, orders, status, task: tokio::spawn(driver.run()) }
}

struct Driver {
    member: Member,
    rest: Rest,
    doors: Arc<[Door]>,
    inbox: mpsc::Receiver<Order>,
    may_send: watch::Receiver<bool>,
    next: usize,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let door = self.doors[self.next % self.doors.len()].clone();
            self.next += 1;
            // Every third client goes through the proxies.
            let address = if self.member.identity.client.is_multiple_of(3) { door.proxied } else { door.direct };
            let away = match timeout(CONNECT_DEADLINE, connect(address)).await {
                Ok(Some(socket)) => {
                    self.member.opened(&door.name);
                    let away = self.live(socket, &door.name).await;
                    self.member.closed();
                    away
                }
                _ => RECONNECT_AFTER,
            };
            tokio::time::sleep(away).await;
        }
    }

    /// One socket from its opening to its end; returns how long to stay away.
    async fn live(&mut self, mut socket: WebSocketStream<TcpStream>, node: &str) -> Duration {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                biased;
                order = self.inbox.recv() => match order {
                    Some(Order::Away(time)) => return time,
                    Some(Order::Stall(time)) => tokio::time::sleep(time).await,
                    Some(Order::Move) => return Duration::ZERO,
                    None => return RECONNECT_AFTER,
                },
                _ = tick.tick() => {
                    let elapsed = last.elapsed();
                    last = Instant::now();
                    let may_send = *self.may_send.borrow();
                    let Some(out) = self.member.on_tick(elapsed, may_send) else { return RECONNECT_AFTER };
                    if let Some(body) = self.member.twin(&out) {
                        let identity = self.member.identity.clone();
                        let rest = self.rest.clone();
                        let other = self.next;
                        tokio::spawn(async move { rest.send(other, &identity, &body).await });
                    }
                    if !write(&mut socket, &out).await {
                        return RECONNECT_AFTER;
                    }
                }
                frame = socket.next() => match frame {
                    Some(Ok(Frame::Text(text))) => {
                        if !self.member.on_text(&text) {
                            eprintln!("client {}: {node} wrote what is no frame: {text}", self.member.identity.client);
                            return RECONNECT_AFTER;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return RECONNECT_AFTER,
                }
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Option<WebSocketStream<TcpStream>> {
    let tcp = TcpSocket::new_v4().ok()?;
    tcp.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).ok()?;
    let stream = tcp.connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut request = format!("ws://{address}/v1/ws").into_client_request().ok()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("haus.v1"));
    let (socket, _) = client_async(request, stream).await.ok()?;
    Some(socket)
}

/// Writes commands, several as one batch.
async fn write(socket: &mut WebSocketStream<TcpStream>, out: &[Value]) -> bool {
    for text in batches(out) {
        if timeout(CONNECT_DEADLINE, socket.send(Frame::text(text))).await.is_ok_and(|sent| sent.is_ok()) {
            continue;
        }
        return false;
    }
    true
}

/// Commands as messages: one alone as it is, several as an array within the protocol's limits.
fn batches(out: &[Value]) -> Vec<String> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for frame in out.iter().map(Value::to_string) {
        bytes += frame.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_FRAMES && bytes <= BATCH_BYTES => batch.push(frame),
            _ => {
                bytes = frame.len();
                batches.push(vec![frame]);
            }
        }
    }
    let whole = |batch: Vec<String>| match batch.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(",")),
    };
    batches.into_iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{BATCH_BYTES, BATCH_FRAMES, batches};

    #[test]
    fn batches_stay_within_the_limits_and_lose_nothing() {
        assert_eq!(batches(&[json!({"id": 1})]), [r#"{"id":1}"#]);
        let small: Vec<Value> = (0..BATCH_FRAMES + 1).map(|id| json!({"id": id})).collect();
        let large: Vec<Value> = (0..40).map(|id| json!({"id": id, "d": "x".repeat(BATCH_BYTES / 9)})).collect();
        for frames in [small, large] {
            let (mut seen, texts) = (Vec::new(), batches(&frames));
            assert!(texts.len() > 1);
            for text in texts {
                assert!(text.len() < BATCH_BYTES + 2 * BATCH_FRAMES);
                match serde_json::from_str(&text).expect("JSON") {
                    Value::Array(batch) => {
                        assert!(batch.len() <= BATCH_FRAMES);
                        seen.extend(batch);
                    }
                    one => seen.push(one),
                }
            }
            assert_eq!(seen, frames);
        }
    }
}
