//! Times on the wire: RFC 3339, UTC, milliseconds, `Z`.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment as the wire shows it, `2026-11-24T01:02:03.456Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub DateTime<Utc>);

impl Timestamp {
    pub fn now() -> Self {
        Self(Utc::now())
    }

    /// From milliseconds since 1970; the epoch itself where the number is out of range.
    pub fn from_unix_ms(unix_ms: i64) -> Self {
        Self(DateTime::from_timestamp_millis(unix_ms).unwrap_or_default())
    }

    pub fn unix_ms(self) -> i64 {
        self.0.timestamp_millis()
    }
}

impl Timestamp {
    /// Calls `with` with the text. Written out by hand: an auth reply holds a hundred of these, and the general formatter
    /// takes ten times as long. Years outside 0…9999 are not written here.
    fn with_text<T>(self, with: impl FnOnce(&str) -> T) -> T {
        let (date, time) = (self.0.date_naive(), self.0.time());
        let Ok(year @ 0..=9999) = u32::try_from(date.year()) else {
            return with(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true));
        };
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, digits: usize, mut value: u32| {
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, date.month());
        put(8, 2, date.day());
        put(11, 2, time.hour());
        put(14, 2, time.minute());
        // A leap second is 59 with more than 999 ms; `60` is what the general formatter writes.
        put(17, 2, time.second() + time.nanosecond() / 1_000_000_000);
        put(20, 3, time.nanosecond() % 1_000_000_000 / 1_000_000);
        with(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DateTime::<Utc>::deserialize(deserializer).map(Self)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;
    use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

    #[test]
    fn the_text_is_the_general_formatters() {
        let date = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).expect("a date");
        let mut times: Vec<DateTime<Utc>> = vec![
            date(2026, 1, 1).and_hms_nano_opt(0, 0, 0, 0).expect("a time").and_utc(),
            date(1999, 12, 31).and_hms_nano_opt(23, 59, 59, 999_999_999).expect("a time").and_utc(),
            date(2016, 12, 31).and_hms_nano_opt(23, 59, 59, 1_500_000_000).expect("a leap second").and_utc(),
            date(-5, 3, 4).and_hms_opt(5, 6, 7).expect("a time").and_utc(),
            date(12_345, 3, 4).and_hms_opt(5, 6, 7).expect("a time").and_utc(),
        ];
        times.extend((0..2000).map(|n| DateTime::from_timestamp_millis(n * 1_234_567_891).expect("a time")));
        for at in times {
            assert_eq!(Timestamp(at).to_string(), at.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
    }
}
