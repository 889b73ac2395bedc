//! How much JSON a value makes, counted without making it, and how many rows of a page fit into so many bytes.

use std::io;

use serde::Serialize;

use super::types::ThreadRow;

/// Largest page of an answer on the socket and of its twin over REST, bytes of JSON: rows beyond it are for the next
/// page. It fits beside what else may wait for a socket, so that one who does not read holds this and little more.
pub const PAGE_BYTES: usize = 96 << 10;
/// What an answer says besides its rows, at most.
const ENVELOPE_BYTES: usize = 512;
/// A thread's row without its texts, at most.
const ROW_BYTES: usize = 640;

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 += buf.len();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of JSON that `value` makes.
pub fn json_bytes<T: Serialize>(value: &T) -> usize {
    let mut counter = Counter(0);
    // What cannot be rendered is told where it is rendered.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// How many of `rows`, from the first on, fit into `bytes` with an envelope around them. One always does: a page that is
/// empty would never end.
pub fn fitting<'a, T: Serialize + 'a>(rows: impl IntoIterator<Item = &'a T>, bytes: usize) -> usize {
    let mut left = bytes.saturating_sub(ENVELOPE_BYTES);
    let mut count = 0;
    for row in rows {
        let size = json_bytes(row) + 1;
        if size > left && count > 0 {
            break;
        }
        left = left.saturating_sub(size);
        count += 1;
    }
    count
}

/// The same for rows of threads, of which most lists fit by far: their texts are looked at before they are counted.
pub fn fitting_threads<'a>(rows: impl Iterator<Item = &'a ThreadRow> + Clone, bytes: usize) -> usize {
    let (count, most) =
        rows.clone().fold((0, ENVELOPE_BYTES), |(count, most), row| (count + 1, most + most_bytes(row)));
    if most <= bytes { count } else { fitting(rows, bytes) }
}

fn most_bytes(row: &ThreadRow) -> usize {
    let texts = [&row.name, &row.description, &row.avatar].into_iter().flatten();
    let peer = row.peer.iter().map(|peer| peer.display_name.len() + peer.avatar.as_ref().map_or(0, String::len));
    // A control character is written as six.
    ROW_BYTES + 6 * (texts.map(String::len).sum::<usize>() + peer.sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::{fitting, json_bytes};

    #[test]
    fn bytes_are_counted_as_they_are_written() {
        let text = "a\u{1}\"🔥".to_owned();
        assert_eq!(json_bytes(&text), serde_json::to_string(&text).expect("json").len());
    }

    #[test]
    fn rows_fit_in_order_and_one_always_does() {
        let rows = ["x".repeat(98), "x".repeat(98), "x".repeat(98)];
        assert_eq!(fitting(&rows, 512 + 303), 3);
        assert_eq!(fitting(&rows, 512 + 302), 2);
        assert_eq!(fitting(&rows, 0), 1);
        assert_eq!(fitting::<String>(&[], 0), 0);
    }
}
