//! Ready-made websocket frames: RFC 6455 header and payload in one buffer, made once and shared by every receiver.

use bytes::{BufMut, Bytes, BytesMut};

use super::codes::CloseCode;

/// A final, unmasked text frame around `json`.
pub fn text(json: &[u8]) -> Bytes {
    whole(0x81, json)
}

/// A ping whose payload is empty.
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// A pong that repeats `payload` (control frames hold at most 125 bytes).
pub fn pong(payload: &[u8]) -> Bytes {
    whole(0x8A, &payload[..payload.len().min(125)])
}

/// A close frame; the reason is JSON of at most 123 bytes, `{"c":"drain","ra":1200}`.
pub fn close(code: CloseCode, retry_after_ms: Option<u32>) -> Bytes {
    let reason = match retry_after_ms {
        Some(ra) => format!(r#"{{"c":"{}","ra":{ra}}}"#, code.name()),
        None => format!(r#"{{"c":"{}"}}"#, code.name()),
    };
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&(code as u16).to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    whole(0x88, &payload)
}

/// Length of the header that a payload of `payload_bytes` gets.
pub const fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=65535 => 4,
        _ => 10,
    }
}

/// The JSON inside a frame made by [`text`].
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

fn whole(first: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(header_bytes(payload.len()) + payload.len());
    out.put_u8(first);
    match payload.len() {
        short @ 0..=125 => out.put_u8(short as u8),
        middle @ 126..=65535 => {
            out.put_u8(126);
            out.put_u16(middle as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(payload);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::{payload, text};

    #[test]
    fn header_grows_with_the_payload() {
        for len in [0, 1, 125, 126, 65535, 65536] {
            let body = vec![b'x'; len];
            let frame = text(&body);
            assert_eq!(payload(&frame), &body[..]);
        }
    }
}
