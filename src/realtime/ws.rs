//! Reading of RFC 6455 frames out of a buffer, in place: header (tungstenite's parser), mask, and the rules a client
//! must keep. Holds no state and no buffer; `session` keeps what is incomplete.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::protocol::CloseCode;

/// What the front of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole frame yet; `need` bytes in all, 0 while even the header is short.
    Incomplete { need: usize },
    /// A whole frame: its payload is `buffer[start..end]`, unmasked; the next frame begins at `end`.
    Frame { kind: FrameKind, fin: bool, start: usize, end: usize },
}

/// Kinds of frames a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Text,
    Continuation,
    Ping,
    Pong,
    Close,
}

/// Looks at the front of `buffer` and unmasks a whole frame in place. An error is the close code that the offence gets:
/// 1002 for what RFC 6455 forbids, 1003 for binary, 1009 for a payload above `max_bytes` (told from the header alone).
pub fn parse(buffer: &mut [u8], max_bytes: usize) -> Result<Parsed, CloseCode> {
    let mut cursor = Cursor::new(&buffer[..]);
    let (header, length) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Parsed::Incomplete { need: 0 }),
        Err(_) => return Err(CloseCode::ProtocolViolation),
    };
    let start = cursor.position() as usize;
    let Some(mask) = header.mask else { return Err(CloseCode::ProtocolViolation) };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(CloseCode::ProtocolViolation);
    }
    let kind = match header.opcode {
        OpCode::Data(Data::Text) => FrameKind::Text,
        OpCode::Data(Data::Continue) => FrameKind::Continuation,
        OpCode::Data(Data::Binary) => return Err(CloseCode::UnsupportedData),
        OpCode::Control(Control::Ping) => FrameKind::Ping,
        OpCode::Control(Control::Pong) => FrameKind::Pong,
        OpCode::Control(Control::Close) => FrameKind::Close,
        _ => return Err(CloseCode::ProtocolViolation),
    };
    let control = matches!(kind, FrameKind::Ping | FrameKind::Pong | FrameKind::Close);
    if control && (!header.is_final || length > 125) {
        return Err(CloseCode::ProtocolViolation);
    }
    if length >> 63 == 1 {
        // RFC 6455, 5.2: the most significant bit must be 0.
        return Err(CloseCode::ProtocolViolation);
    }
    if length > max_bytes as u64 {
        return Err(CloseCode::MessageTooBig);
    }
    let end = start + length as usize;
    if buffer.len() < end {
        return Ok(Parsed::Incomplete { need: end });
    }
    unmask(&mut buffer[start..end], mask);
    Ok(Parsed::Frame { kind, fin: header.is_final, start, end })
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    if mask == [0; 4] {
        return;
    }
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Checks the payload of a close frame (RFC 6455, 5.5.1 and 7.4): empty, or a code a peer may send and UTF-8.
pub fn close_is_valid(payload: &[u8]) -> bool {
    match payload {
        [] => true,
        [_] => false,
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let known = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            known && std::str::from_utf8(reason).is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameKind, Parsed, close_is_valid, parse};
    use crate::protocol::CloseCode;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
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
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    #[test]
    fn frames_of_every_length_come_back_and_every_cut_is_incomplete() {
        for length in [0, 1, 7, 8, 9, 125, 126, 127, 1000, 65535, 65536] {
            let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let frame = masked(0x81, &payload);
            let mut whole = frame.clone();
            let Ok(Parsed::Frame { kind: FrameKind::Text, fin: true, start, end }) = parse(&mut whole, 70_000) else {
                panic!("no frame of {length}")
            };
            assert_eq!((&whole[start..end], end), (&payload[..], frame.len()));
            for cut in (0..frame.len()).step_by(1 + frame.len() / 40) {
                assert!(
                    matches!(parse(&mut frame[..cut].to_vec(), 70_000), Ok(Parsed::Incomplete { .. })),
                    "cut {cut}"
                );
            }
        }
    }

    #[test]
    fn offences_get_their_code() {
        let cases: [(Vec<u8>, CloseCode); 9] = [
            (vec![0x81, 0x01, b'x'], CloseCode::ProtocolViolation),
            (masked(0xC1, b"x"), CloseCode::ProtocolViolation),
            (masked(0xA1, b"x"), CloseCode::ProtocolViolation),
            (masked(0x91, b"x"), CloseCode::ProtocolViolation),
            (masked(0x83, b"x"), CloseCode::ProtocolViolation),
            (masked(0x8B, b"x"), CloseCode::ProtocolViolation),
            (masked(0x09, b"x"), CloseCode::ProtocolViolation),
            (masked(0x82, b"x"), CloseCode::UnsupportedData),
            (masked(0x81, &[b'x'; 2000]), CloseCode::MessageTooBig),
        ];
        for (mut bytes, code) in cases {
            assert_eq!(parse(&mut bytes, 1024), Err(code), "{bytes:02x?}");
        }
        assert_eq!(parse(&mut masked(0x89, &[0; 126]), 1024), Err(CloseCode::ProtocolViolation));
        // A claimed length is judged from the header alone: nothing is allocated for it.
        let mut claim = vec![0x81, 0xFF];
        claim.extend((1_u64 << 40).to_be_bytes());
        claim.extend([0; 4]);
        assert_eq!(parse(&mut claim, 1024), Err(CloseCode::MessageTooBig));
    }

    #[test]
    fn close_payloads() {
        for (payload, valid) in [
            (&[][..], true),
            (&[3][..], false),
            (&[0x03, 0xE8][..], true),
            (&[0x03, 0xEC][..], false),
            (&[0x03, 0xED][..], false),
            (&[0x13, 0x88][..], false),
            (&[0x0F, 0xA0, b'x'][..], true),
            (&[0x03, 0xE8, 0xFF][..], false),
        ] {
            assert_eq!(close_is_valid(payload), valid, "{payload:?}");
        }
    }
}
