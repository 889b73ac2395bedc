//! A client of the socket as the protocol describes it; nothing is hidden: every frame is kept in order of arrival.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// One frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub text: String,
    pub json: Value,
}

/// How the server ended a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

/// One socket.
pub struct Client {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that were read while something else was waited for.
    pub kept: VecDeque<Frame>,
    next_id: u64,
    pub hello: Value,
}

impl Client {
    pub async fn connect(address: &str) -> Self {
        Self::connect_with(address, &[]).await.expect("upgraded")
    }

    /// With headers; an `Err` is the status and headers of a refused upgrade.
    pub async fn connect_with(address: &str, headers: &[(&'static str, String)]) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{address}/v1/ws").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (ws, _) = connect_async(request).await.map_err(Box::new)?;
        let mut client = Self { ws, kept: VecDeque::new(), next_id: 1, hello: Value::Null };
        match client.read().await {
            Ok(first) => {
                assert_eq!(first.json["up"], "hello", "the server speaks first: {}", first.text);
                client.hello = first.json["d"].clone();
                Ok(client)
            }
            Err(closed) => panic!("closed before hello: {closed:?}"),
        }
    }

    pub async fn send_text(&mut self, text: String) {
        // A socket that the server has closed meanwhile shows in what is read next.
        let _ = self.ws.send(Message::text(text)).await;
    }

    /// The next frame from the wire, or how the socket was closed.
    async fn read(&mut self) -> Result<Frame, Closed> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.ws.next()).await.expect("a frame in time");
            match next {
                Some(Ok(Message::Text(text))) => {
                    let json = serde_json::from_str(text.as_str()).expect("JSON");
                    return Ok(Frame { text: text.as_str().to_owned(), json });
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() });
                }
                Some(Ok(Message::Close(None))) => return Err(Closed { code: 1005, reason: String::new() }),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Closed { code: 1006, reason: String::new() }),
            }
        }
    }

    /// The first frame, kept or to come, that `wanted` accepts; the others stay kept, in order.
    pub async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Frame {
        if let Some(at) = self.kept.iter().position(|frame| wanted(&frame.json)) {
            return self.kept.remove(at).unwrap();
        }
        loop {
            match self.read().await {
                Ok(frame) if wanted(&frame.json) => return frame,
                Ok(frame) => self.kept.push_back(frame),
                Err(closed) => panic!("closed: {closed:?}; kept {:?}", self.kept),
            }
        }
    }

    /// The next notice or update of this name.
    pub async fn up(&mut self, name: &str) -> Value {
        self.until(|json| json["up"] == name).await.json
    }

    /// Reads until the server closes.
    pub async fn closed(&mut self) -> Closed {
        loop {
            match self.read().await {
                Ok(frame) => self.kept.push_back(frame),
                Err(closed) => return closed,
            }
        }
    }

    /// Sends a command; returns its `id`.
    pub async fn start(&mut self, cmd: &str, d: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send_text(json!({"id": id, "cmd": cmd, "d": d}).to_string()).await;
        id
    }

    /// The reply to `id`: `Ok(ok)` or `Err(err)`.
    pub async fn reply(&mut self, id: u64) -> Result<Value, Value> {
        let frame = self.until(|json| json["id"] == id && json.get("up").is_none()).await.json;
        match frame.get("ok") {
            Some(ok) => Ok(ok.clone()),
            None => Err(frame["err"].clone()),
        }
    }

    pub async fn call(&mut self, cmd: &str, d: Value) -> Result<Value, Value> {
        let id = self.start(cmd, d).await;
        self.reply(id).await
    }

    /// The code of a refused command.
    pub async fn refused(&mut self, cmd: &str, d: Value) -> String {
        match self.call(cmd, d).await {
            Err(err) => err["code"].as_str().unwrap().to_owned(),
            Ok(ok) => panic!("{cmd} was not refused: {ok}"),
        }
    }

    pub async fn auth(&mut self, token: &str) -> Value {
        self.call("auth", json!({"token": token})).await.expect("authenticated")
    }

    /// `auth` with positions to resume from; returns the reply, what came up to `resumed`, and `resumed`.
    pub async fn resume(&mut self, token: &str, epoch: &str, streams: Value) -> (Value, Vec<Frame>, Value) {
        let resume = json!({"epoch": epoch, "streams": streams});
        let ok = self.call("auth", json!({"token": token, "resume": resume})).await.expect("authenticated");
        let resumed = self.up("resumed").await;
        (ok, self.kept.drain(..).collect(), resumed["d"].clone())
    }

    pub async fn say(&mut self, thread: Uuid, content: &str) -> Value {
        let d = json!({"threadId": thread, "nonce": Uuid::now_v7(), "content": content});
        self.call("message.send", d).await.unwrap_or_else(|err| panic!("{content}: {err}"))
    }

    /// The next update of a stream.
    pub async fn update(&mut self, stream: &str) -> Frame {
        self.until(|json| json["s"] == stream).await
    }

    /// Everything that came before the answer to a `ping`: what the server had for this socket until now.
    pub async fn drain(&mut self) -> Vec<Frame> {
        self.call("ping", json!({})).await.expect("pong");
        self.kept.drain(..).collect()
    }
}
