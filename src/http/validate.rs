//! Rules for what people type, collected so that one answer names every field that is wrong.

use super::problem::{FieldError, Problem};

/// Bytes of an address (RFC 5321, 4.5.3.1).
const EMAIL_BYTES_MAX: usize = 254;
const EMAIL_LOCAL_BYTES_MAX: usize = 64;
/// Characters of a password (ASVS 5.0, 6.2.1 and 6.2.9); the upper bound keeps hashing cheap to feed.
const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_CHARS_MAX: usize = 256;

/// The errors found so far.
#[derive(Debug, Default)]
pub struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    /// Notes an error unless `ok`.
    pub fn require(&mut self, ok: bool, path: &str, code: &'static str, message: impl Into<String>) {
        if !ok {
            self.errors.push(FieldError { path: path.to_owned(), code, message: message.into() });
        }
    }

    /// A trimmed text of `min…max` characters without control characters (line breaks allowed when `max` > 200).
    pub fn text(&mut self, path: &str, value: &str, min: usize, max: usize) -> String {
        let value = value.trim().to_owned();
        let chars = value.chars().count();
        self.require((min..=max).contains(&chars), path, "length", format!("must have {min} to {max} characters"));
        let lines = max > 200;
        let control = value.chars().any(|c| c.is_control() && !(lines && matches!(c, '\n' | '\t' | '\r')));
        self.require(!control, path, "format", "must not contain control characters");
        value
    }

    /// [`Checks::text`] of a field that may be cleared; an empty text clears it.
    pub fn clearable(&mut self, path: &str, value: Option<Option<String>>, max: usize) -> Option<Option<String>> {
        value.map(|value| value.map(|text| self.text(path, &text, 0, max)).filter(|text| !text.is_empty()))
    }

    /// A trimmed e-mail address.
    pub fn email(&mut self, path: &str, value: &str) -> String {
        let value = value.trim().to_owned();
        self.require(is_email(&value), path, "format", "must be an e-mail address");
        value
    }

    /// A password; never trimmed.
    pub fn password(&mut self, path: &str, value: &str) {
        let chars = value.chars().count();
        self.require(
            (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&chars),
            path,
            "length",
            format!("must have {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters"),
        );
        let mut chars = value.chars();
        let first = chars.next();
        self.require(first.is_none() || chars.any(|c| Some(c) != first), path, "format", "must not be one character");
    }

    /// The problem, when anything was noted.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// Whether `text` has the shape of an address that mail can be sent to. Deliberately narrower than RFC 5322: no
/// comments, no quoted strings, no address literals.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let local_ok = !local.is_empty()
        && local.len() <= EMAIL_LOCAL_BYTES_MAX
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c));
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let domain_ok = domain.contains('.') && domain.split('.').all(label_ok);
    text.len() <= EMAIL_BYTES_MAX && local_ok && domain_ok
}

#[cfg(test)]
mod tests {
    use super::{Checks, is_email};

    #[test]
    fn addresses() {
        for good in ["a@b.co", "first.last+tag@sub.example.org", "o'neil@example.com", "ü@exämple.de"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "", "a", "a@", "@b.co", "a@b", "a b@c.de", "a@b..de", ".a@b.de", "a.@b.de", "a@-b.de", "a@b.de\n",
            "a@@b.de", "<a@b.de>", &long,
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    #[test]
    fn all_errors_come_at_once() {
        let mut checks = Checks::default();
        checks.email("email", "nope");
        checks.password("password", "short");
        checks.text("displayName", "  ", 1, 80);
        let Err(problem) = checks.finish() else { panic!("must be refused") };
        assert!(format!("{problem:?}").matches("FieldError").count() == 3);
        let mut checks = Checks::default();
        checks.password("password", "aaaaaaaaaaaa");
        assert!(checks.finish().is_err());
        let mut checks = Checks::default();
        checks.password("password", "ein langes Wort");
        assert_eq!(checks.clearable("bio", Some(Some("  ".into())), 500), Some(None));
        assert!(checks.finish().is_ok());
    }
}
