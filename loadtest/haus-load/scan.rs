//! Reads out of a server frame the few bytes a load generator needs: kind, stream, `seq`, reply id and the stamp in the content.
//! It looks at fixed places first and searches only when they do not match, which is many times cheaper than parsing JSON;
//! it relies on what `haus.v1` promises: compact JSON, `up` or `id` first.

/// What a text frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// An update with a position: kind, stream name and `seq`.
    Update { name: &'a [u8], stream: &'a [u8], seq: u64 },
    /// A frame without a position (`hello`, `hb`, `typing`, `lag` …).
    Plain { name: &'a [u8] },
    /// A reply to the command with this id.
    Reply { id: u64, ok: bool },
    /// A JSON array of frames.
    Batch,
    /// Nothing we know.
    Unknown,
}

/// Bytes of a stamp: mark, run, url index, intended time.
pub const STAMP_BYTES: usize = 24;
const MARK: &[u8; 3] = b"~hl";

/// A stamp found in a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Tag of the run that sent it.
    pub run: u16,
    /// Index of the url the sender was connected to.
    pub url: u8,
    /// Intended send time, nanoseconds of CLOCK_MONOTONIC.
    pub intended_ns: u64,
}

/// Where a search for stream and position gives up; both stand near the front of a frame.
const HEAD_BYTES: usize = 192;

/// Says what `payload` is.
#[inline]
pub fn kind(payload: &[u8]) -> Kind<'_> {
    if let Some(rest) = payload.strip_prefix(b"{\"up\":\"") {
        let Some(quote) = position(rest, b'"') else { return Kind::Unknown };
        let (name, after) = (&rest[..quote], &rest[quote + 1..]);
        return match stream_and_seq(after) {
            Some((stream, seq)) => Kind::Update { name, stream, seq },
            None => Kind::Plain { name },
        };
    }
    if let Some(rest) = payload.strip_prefix(b"{\"id\":") {
        let (id, digits) = number(rest);
        return match rest.get(digits..) {
            Some(after) if digits > 0 && after.starts_with(b",\"ok\":") => Kind::Reply { id, ok: true },
            Some(after) if digits > 0 && after.starts_with(b",\"err\":") => Kind::Reply { id, ok: false },
            _ => Kind::Unknown,
        };
    }
    if payload.first() == Some(&b'[') { Kind::Batch } else { Kind::Unknown }
}

/// Stream and `seq` after the name; `None` when the frame has no position of its own.
#[inline]
fn stream_and_seq(after: &[u8]) -> Option<(&[u8], u64)> {
    if let Some(rest) = after.strip_prefix(b",\"s\":\"") {
        let quote = position(rest, b'"')?;
        if let Some(tail) = rest.get(quote + 1..).and_then(|t| t.strip_prefix(b",\"seq\":")) {
            let (seq, digits) = number(tail);
            return (digits > 0).then_some((&rest[..quote], seq));
        }
    }
    // Another order of the members: search the part before `d`, so that nothing inside it is taken for the frame's own.
    let head = &after[..after.len().min(HEAD_BYTES)];
    let head = find(head, b"\"d\":").map_or(head, |d| &head[..d]);
    let stream_at = find(head, b"\"s\":\"")? + 5;
    let quote = position(&head[stream_at..], b'"')?;
    let seq_at = find(head, b"\"seq\":")? + 6;
    let (seq, digits) = number(&head[seq_at..]);
    (digits > 0).then_some((&head[stream_at..stream_at + quote], seq))
}

/// Finds the stamp in `payload`. `hint` is where one was found last; frames of a run look alike, so it nearly always stands within a few bytes of it.
#[inline]
pub fn stamp(payload: &[u8], hint: &mut usize) -> Option<Stamp> {
    const NEAR: usize = 12;
    let from = hint.saturating_sub(NEAR);
    let near = payload.get(from..(*hint + NEAR + MARK.len()).min(payload.len()));
    let at = match near.and_then(|window| find(window, MARK)) {
        Some(offset) => from + offset,
        None => find(payload, MARK)?,
    };
    *hint = at;
    let body = payload.get(at + MARK.len()..at + STAMP_BYTES)?;
    Some(Stamp { run: hex(&body[..4])? as u16, url: hex(&body[4..5])? as u8, intended_ns: hex(&body[5..])? })
}

/// Writes a stamp; readable by [`stamp`]. `url` above 15 is written as 15.
pub fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(MARK);
    put_hex(out, u64::from(stamp.run), 4);
    put_hex(out, u64::from(stamp.url.min(15)), 1);
    put_hex(out, stamp.intended_ns, 16);
}

/// Writes the lowest `digits` hexadecimal digits of `value`.
pub fn put_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (digit * 4) & 15) as usize]);
    }
}

#[inline]
fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for digit in digits {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(nibble);
    }
    Some(value)
}

/// Decimal number at the front of `text` and how many digits it has.
#[inline]
pub fn number(text: &[u8]) -> (u64, usize) {
    let mut value = 0u64;
    let mut digits = 0;
    while let Some(digit @ b'0'..=b'9') = text.get(digits) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        digits += 1;
    }
    (value, digits)
}

#[inline]
fn position(text: &[u8], byte: u8) -> Option<usize> {
    text.iter().position(|b| *b == byte)
}

/// First place of `needle` in `text`.
#[inline]
pub fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = 0;
    while let Some(offset) = position(text.get(at..)?, first) {
        at += offset;
        if text[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Splits a JSON array of objects into its objects, minding strings and escapes.
pub fn split_batch(array: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut depth, mut start, mut in_string, mut escaped) = (Vec::new(), 0usize, 0, false, false);
    for (at, byte) in array.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' => {
                if depth == 0 {
                    start = at;
                }
                depth += 1;
            }
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    parts.push(&array[start..=at]);
                }
            }
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::{Kind, Stamp, kind, put_stamp, split_batch, stamp};

    const THREAD: &[u8] = b"01940000-0000-7000-8000-000000000001";

    #[test]
    fn an_update_is_known_in_the_usual_order_and_in_another() {
        let usual = br#"{"up":"message.created","s":"01940000-0000-7000-8000-000000000001","seq":58,"at":"x","d":{"message":{"seq":99}}}"#;
        let other = br#"{"up":"message.created","at":"x","seq":58,"s":"01940000-0000-7000-8000-000000000001","d":{}}"#;
        for frame in [&usual[..], &other[..]] {
            assert_eq!(kind(frame), Kind::Update { name: b"message.created", stream: THREAD, seq: 58 });
        }
    }

    #[test]
    fn a_position_inside_d_is_not_the_frames_own() {
        let added = br#"{"up":"hb","d":{"s":"user","seq":12}}"#;
        assert_eq!(kind(added), Kind::Plain { name: b"hb" });
    }

    #[test]
    fn replies_batches_and_rubbish_are_told_apart() {
        assert_eq!(kind(br#"{"id":712,"ok":{"seq":1}}"#), Kind::Reply { id: 712, ok: true });
        assert_eq!(kind(br#"{"id":7,"err":{"code":"rate_limited"}}"#), Kind::Reply { id: 7, ok: false });
        assert_eq!(kind(br#"[{"id":7}]"#), Kind::Batch);
        assert_eq!(kind(br#"{"id":"x"}"#), Kind::Unknown);
        assert_eq!(kind(b""), Kind::Unknown);
        assert_eq!(kind(br#"{"up":"cut"#), Kind::Unknown);
    }

    #[test]
    fn a_stamp_is_found_with_a_good_hint_a_bad_one_and_none() {
        let sent = Stamp { run: 0xbeef, url: 1, intended_ns: 0x0123_4567_89ab_cdef };
        let mut frame = br#"{"up":"message.created","d":{"message":{"content":""#.to_vec();
        let place = frame.len();
        put_stamp(&mut frame, sent);
        frame.extend_from_slice(b"....\"}}}");
        for first_hint in [0, place, place - 3, place + 9, 10_000] {
            let mut hint = first_hint;
            assert_eq!(stamp(&frame, &mut hint), Some(sent), "hint {first_hint}");
            assert_eq!(hint, place);
        }
        assert_eq!(stamp(b"no mark here ~h", &mut 5), None);
        assert_eq!(stamp(b"~hlbeef1012345", &mut 0), None, "cut short");
    }

    #[test]
    fn a_batch_is_split_outside_strings_only() {
        let parts = split_batch(br#"[{"a":"}{\"["},{"b":{"c":1}}]"#);
        assert_eq!(parts, [&br#"{"a":"}{\"["}"#[..], &br#"{"b":{"c":1}}"#[..]]);
    }
}
