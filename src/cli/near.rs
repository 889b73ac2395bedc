//! Which setting a misspelt variable was meant to be.

use std::collections::BTreeSet;

/// How the names of our settings begin.
pub const OURS: &str = "HAUS_";
/// Slips in a name of at least [`LONG`] characters after the beginning; in a shorter one, one.
const SLIPS: usize = 2;
const LONG: usize = 6;

/// The setting that `name` most likely means: it is `name` without our beginning (`HAUS_REDIS_URL`), has more words
/// (`HAUS_SECRET`), or differs by a slip or two.
pub fn meant<'a>(name: &str, known: &BTreeSet<&'a str>) -> Option<&'a str> {
    let word = name.strip_prefix(OURS)?;
    if let Some(bare) = known.get(word) {
        return Some(bare);
    }
    let longer = format!("{name}_");
    if let Some(whole) = known.iter().find(|setting| setting.starts_with(&longer)) {
        return Some(whole);
    }
    let slips = if word.chars().count() < LONG { 1 } else { SLIPS };
    let ours = known.iter().filter_map(|setting| Some((*setting, setting.strip_prefix(OURS)?)));
    let near = ours.map(|(setting, other)| (distance(word, other), setting)).filter(|(far, _)| *far <= slips);
    near.min().map(|(_, setting)| setting)
}

/// Letters added, left out, changed, or two neighbours exchanged (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let changed = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{distance, meant};

    #[test]
    fn slips_are_counted() {
        for (one, other, far) in [("", "ab", 2), ("LISTEN", "LISTEN", 0), ("LSITEN", "LISTEN", 1), ("ENV", "BIN", 3)] {
            assert_eq!((distance(one, other), distance(other, one)), (far, far), "{one} {other}");
        }
    }

    #[test]
    fn what_is_meant_is_found_and_what_is_somebody_elses_is_left_alone() {
        let known =
            ["REDIS_URL", "HAUS_LISTEN", "HAUS_NODE", "HAUS_ENV", "HAUS_ORIGINS", "HAUS_ACCESS_TTL_MS", "HAUS_PG_BIN"];
        let known = BTreeSet::from(known);
        for (name, setting) in [
            ("HAUS_REDIS_URL", "REDIS_URL"),
            ("HAUS_LISTENS", "HAUS_LISTEN"),
            ("HAUS_LSITNE", "HAUS_LISTEN"),
            ("HAUS_NODES", "HAUS_NODE"),
            ("HAUS_ORIGIN", "HAUS_ORIGINS"),
            ("HAUS_ACCESS_TTL", "HAUS_ACCESS_TTL_MS"),
            ("HAUS_ENVV", "HAUS_ENV"),
        ] {
            assert_eq!(meant(name, &known), Some(setting), "{name}");
        }
        for name in
            ["HAUS_BIN", "HAUS_URL", "HAUS_TOKENS", "HAUS_PORT", "HAUS_SERVICE_HOST", "HAUS_PORT_8080_TCP", "LISTEN"]
        {
            assert_eq!(meant(name, &known), None, "{name}");
        }
    }
}
