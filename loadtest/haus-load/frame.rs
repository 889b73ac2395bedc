//! Websocket frames (RFC 6455) as far as a load generator needs them: client frames under a zero mask, and server frames found
//! by their header alone. Fragmented messages and extensions are refused: the server sends neither.

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a pong.
pub const PONG: u8 = 10;

/// What the front of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Front {
    /// A whole frame: opcode, where its payload starts and where it ends.
    Whole { opcode: u8, start: usize, end: usize },
    /// Not all of a frame yet.
    Partial,
    /// No frame a server may send us.
    Bad(&'static str),
}

/// Looks at the frame at the front of `buf`.
#[inline]
pub fn front(buf: &[u8]) -> Front {
    let [first, second, rest @ ..] = buf else { return Front::Partial };
    if second & 0x80 != 0 {
        return Front::Bad("masked server frame");
    }
    if first & 0x80 == 0 {
        return Front::Bad("fragmented server frame");
    }
    let (start, length) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return Front::Partial,
        },
        127 => match rest {
            [a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize),
            _ => return Front::Partial,
        },
        short => (2, usize::from(short)),
    };
    let Some(end) = length.checked_add(start) else { return Front::Bad("frame length") };
    if buf.len() < end { Front::Partial } else { Front::Whole { opcode: first & 0x0f, start, end } }
}

/// Writes the header of a client frame of `length` payload bytes under a zero mask; the payload follows as it is.
pub fn put_client_header(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
}

/// Writes the header of a server frame of `length` payload bytes, as the floor's ready frames carry it.
pub fn put_server_header(out: &mut Vec<u8>, length: usize) {
    out.push(0x80 | TEXT);
    match length {
        0..=125 => out.push(length as u8),
        126..=65_535 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Writes a whole client text frame.
pub fn put_client_text(out: &mut Vec<u8>, payload: &[u8]) {
    put_client_header(out, TEXT, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::{Front, TEXT, front, put_client_text, put_server_header};

    #[test]
    fn every_length_form_is_found_and_every_cut_is_partial() {
        for length in [0usize, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut wire = Vec::new();
            put_server_header(&mut wire, length);
            let start = wire.len();
            wire.resize(start + length, b'x');
            assert_eq!(front(&wire), Front::Whole { opcode: TEXT, start, end: start + length });
            for cut in [0, 1, start - 1, (start + length).saturating_sub(1)] {
                if cut < wire.len() {
                    assert_eq!(front(&wire[..cut]), Front::Partial, "length {length}, cut {cut}");
                }
            }
        }
    }

    #[test]
    fn masked_and_fragmented_frames_are_refused() {
        assert!(matches!(front(&[0x81, 0x80, 0, 0, 0, 0]), Front::Bad(_)));
        assert!(matches!(front(&[0x01, 0x01, b'x']), Front::Bad(_)));
        assert_eq!(front(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]), Front::Bad("frame length"));
    }

    #[test]
    fn client_frames_carry_the_payload_under_a_zero_mask() {
        let mut wire = Vec::new();
        put_client_text(&mut wire, b"hi");
        assert_eq!(wire, [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    }
}
