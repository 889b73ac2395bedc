//! What a password may be. NFC with every space as U+0020 (RFC 8265, OpaqueString), so that the same keys are the same
//! password on every keyboard; 8 to 256 characters (ASVS 5.0, 6.2.1 and 6.2.9), none of the commonest (6.2.4, 6.2.12) and
//! nothing an onlooker knows: the own address or name. No rules of composition (6.2.5).

use std::collections::HashSet;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::Fault;

pub const CHARS_MIN: usize = 8;
/// Keeps hashing cheap to feed.
pub const CHARS_MAX: usize = 256;

/// Those of [`CHARS_MIN`] characters or more among the commonest, in lower case; the sources are named in the file.
static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().filter(|line| !line.starts_with("# ")).collect());

/// The form that is hashed. Whatever a person types at log-in goes through it too.
pub fn prepared(password: &str) -> String {
    let space = |c: char| if c.general_category() == GeneralCategory::SpaceSeparator { ' ' } else { c };
    password.chars().map(space).nfc().collect()
}

/// Checks a new password of the person with this address and name; gives its [`prepared`] form.
pub fn check(password: &str, email: &str, name: &str) -> Result<String, Fault> {
    let length = || Fault::length(format!("must have {CHARS_MIN} to {CHARS_MAX} characters"));
    if password.chars().count() > 4 * CHARS_MAX {
        return Err(length());
    }
    let password = prepared(password);
    if !(CHARS_MIN..=CHARS_MAX).contains(&password.chars().count()) {
        return Err(length());
    }
    if password.chars().any(char::is_control) {
        return Err(Fault::format("must not contain control characters"));
    }
    let first = password.chars().next();
    if password.chars().all(|c| Some(c) == first) {
        return Err(Fault::format("must not be one character repeated"));
    }
    let lower = password.to_lowercase();
    if COMMON.contains(lower.trim()) {
        return Err(Fault::format("is one of the commonest passwords; choose another"));
    }
    if is_known(&lower, email, name) {
        return Err(Fault::format("must not be your address or your name"));
    }
    Ok(password)
}

/// The address, its two halves and the name, as they are, backwards or with digits and signs around.
fn is_known(lower: &str, email: &str, name: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    let core = |text: &str| text.trim_matches(|c: char| !c.is_alphabetic()).to_owned();
    let email = super::email_key(email);
    let (local, domain) = email.rsplit_once('@').unwrap_or((&email, ""));
    let name = name.nfc().collect::<String>().to_lowercase();
    let known = [email.as_str(), local, domain, name.as_str()];
    let given = [letters(lower), letters(&core(lower))];
    known.iter().map(|text| letters(text)).filter(|text| text.chars().count() >= 4).any(|text| {
        let backwards: String = text.chars().rev().collect();
        given.iter().any(|given| *given == text || *given == backwards || *given == letters(&core(&text)))
    })
}

#[cfg(test)]
mod tests {
    use super::{CHARS_MIN, COMMON, check, prepared};

    fn refused(password: &str) -> bool {
        check(password, "ana.lopez@example.org", "Ana Ninja López").is_err()
    }

    #[test]
    fn the_commonest_and_the_known_are_refused() {
        for bad in [
            "short",
            "aaaaaaaaaaaa",
            "password123",
            "PassWord123",
            "iloveyou",
            "12345678",
            "ana.lopez@example.org",
            "Ana.Lopez@Example.org",
            "ana.lopez",
            "ANA.LOPEZ1",
            "anaNinjaLópez",
            "Ana Ninja López!",
            "example.org",
            "zepol.ana",
            "a long\u{7} secret",
            "\u{FF41}\u{FF41}\u{FF41}\u{FF41}\u{FF41}\u{FF41}\u{FF41}\u{FF41}",
        ] {
            assert!(refused(bad), "{bad:?}");
        }
        for good in [
            "correct horse",
            "a long enough secret",
            "ein langes Wort",
            "ana.lopez walks in",
            "пароль-на-век",
            "🦊🦊🦊🦊🐻🦊🦊🦊",
        ] {
            assert!(!refused(good), "{good:?}");
        }
        assert!(refused(&"xy".repeat(129)) && !refused(&"xy".repeat(128)));
        assert!(COMMON.len() > 10_000 && COMMON.iter().all(|common| common.chars().count() >= CHARS_MIN));
    }

    #[test]
    fn the_same_keys_are_the_same_password() {
        assert_eq!(prepared("cafe\u{0301} noir"), prepared("café\u{00A0}noir"));
        assert_ne!(prepared("Cafe noir"), prepared("cafe noir"));
    }
}
