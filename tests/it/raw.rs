//! A client below the websocket library: bytes on a TCP connection, for what a library would never send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::socket::PATIENCE;

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// First byte (flags and opcode) and payload.
    Frame(u8, Vec<u8>),
    /// A close frame: its code.
    Close(u16),
    /// The end of the connection without a close frame.
    End,
}

/// A masked frame with any first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=65535 => {
            out.push(0x80 | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0x83, 0xFE, 0x47];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// One upgraded connection.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    /// Upgraded; `hello` is left unread.
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut raw = Self { stream };
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        raw.send(head.as_bytes()).await;
        let answer = raw.head().await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455, 1.3: {answer}");
        raw
    }

    /// Upgraded, `hello` read.
    pub async fn greeted(address: &str) -> Self {
        let mut raw = Self::open(address).await;
        assert!(matches!(raw.got().await, Got::Frame(0x81, _)));
        raw
    }

    /// Live.
    pub async fn live(address: &str, token: &str) -> Self {
        let mut raw = Self::greeted(address).await;
        raw.send(&text(&format!(r#"{{"id":1,"cmd":"auth","d":{{"token":"{token}"}}}}"#))).await;
        let Got::Frame(0x81, reply) = raw.got().await else { panic!("no reply") };
        assert!(reply.starts_with(br#"{"id":1,"ok""#), "{}", String::from_utf8_lossy(&reply));
        raw
    }

    /// Errors are left to what is read next.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let count = tokio::time::timeout(PATIENCE, self.stream.read(&mut byte)).await.unwrap().unwrap();
            assert!(count == 1, "{}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    pub async fn got(&mut self) -> Got {
        tokio::time::timeout(PATIENCE, self.read_one()).await.expect("something in time").unwrap_or(Got::End)
    }

    async fn read_one(&mut self) -> std::io::Result<Got> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        assert_eq!(head[1] & 0x80, 0, "a server never masks");
        let length = match head[1] {
            126 => usize::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await? as usize,
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        if head[0] == 0x88 {
            return Ok(Got::Close(u16::from_be_bytes([payload[0], payload[1]])));
        }
        Ok(Got::Frame(head[0], payload))
    }

    /// Reads on to the close frame; then the server must end the connection, too.
    pub async fn closed(&mut self) -> u16 {
        let code = loop {
            match self.got().await {
                Got::Frame(..) => {}
                Got::Close(code) => break code,
                Got::End => return 1006,
            }
        };
        assert_eq!(self.got().await, Got::End);
        code
    }

    /// How long the server leaves the connection open; panics after `most`.
    pub async fn ended_within(&mut self, most: Duration) -> Duration {
        let began = std::time::Instant::now();
        let mut sink = [0; 1024];
        let all = async { while self.stream.read(&mut sink).await.is_ok_and(|count| count > 0) {} };
        tokio::time::timeout(most, all).await.expect("closed by the server in time");
        began.elapsed()
    }
}
