//! The file of people that `haus seed --out` writes: one JSON line each, `{"profileId","token","threads":[ids]}`.

use crate::error::LoadError;
use serde::Deserialize;
use std::path::Path;

/// One person who can log in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Profile id.
    #[serde(default)]
    pub profile_id: String,
    /// Access token.
    pub token: String,
    /// Threads of this seed that the person is a member of.
    #[serde(default)]
    pub threads: Vec<String>,
}

/// Reads at most `most` people from `path`.
pub fn load(path: &Path, most: usize) -> Result<Vec<Person>, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|e| LoadError::Usage(format!("--tokens {}: {e}", path.display())))?;
    parse(&text, most).map_err(|why| LoadError::Usage(format!("--tokens {}: {why}", path.display())))
}

fn parse(text: &str, most: usize) -> Result<Vec<Person>, String> {
    let mut people = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(most) {
        people.push(serde_json::from_str(line).map_err(|e| format!("line {}: {e}", number + 1))?);
    }
    if people.is_empty() { Err("holds no people".to_owned()) } else { Ok(people) }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn people_are_read_up_to_the_limit_and_a_bad_line_is_named() {
        let text =
            "{\"profileId\":\"p\",\"token\":\"t\",\"threads\":[\"a\"]}\n\n{\"profileId\":\"q\",\"token\":\"u\"}\n{}";
        let people = parse(text, 2).unwrap_or_default();
        assert_eq!(people.len(), 2);
        assert_eq!(people[0].threads, ["a"]);
        assert!(people[1].threads.is_empty());
        assert!(parse(text, 3).is_err_and(|why| why.starts_with("line 4")));
        assert!(parse("\n", 3).is_err());
    }
}
