//! Errors of what people typed, collected so that one answer names every field that is wrong. The rules are in `text`.

use super::problem::{FieldError, Problem};
use crate::text::{self, Fault, password};

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

    /// The value of a rule of `text`, or the empty text with the error noted.
    fn by(&mut self, path: &str, outcome: Result<String, Fault>) -> String {
        outcome.unwrap_or_else(|fault| {
            self.require(false, path, fault.code, fault.message);
            String::new()
        })
    }

    /// [`text::name`].
    pub fn name(&mut self, path: &str, value: &str, chars_max: usize) -> String {
        self.by(path, text::name(value, chars_max))
    }

    /// [`text::line`] of a field that may be cleared; an empty text clears it.
    pub fn clearable_line(
        &mut self,
        path: &str,
        value: Option<Option<String>>,
        chars_max: usize,
    ) -> Option<Option<String>> {
        value.map(|value| {
            value.map(|value| self.by(path, text::line(&value, chars_max))).filter(|text| !text.is_empty())
        })
    }

    /// [`text::paragraph`] of a field that may be cleared; an empty text clears it.
    pub fn clearable_paragraph(
        &mut self,
        path: &str,
        value: Option<Option<String>>,
        chars_max: usize,
    ) -> Option<Option<String>> {
        let paragraph = |value: String| self.by(path, text::paragraph(&value, chars_max));
        value.map(|value| value.map(paragraph).filter(|text| !text.is_empty()))
    }

    /// [`text::link_or_handle`].
    pub fn link_or_handle(&mut self, path: &str, value: &str, bytes_max: usize) -> String {
        self.by(path, text::link_or_handle(value, bytes_max))
    }

    /// [`text::email`].
    pub fn email(&mut self, path: &str, value: &str) -> String {
        let email = text::email(value);
        self.require(email.is_some(), path, "format", "must be an e-mail address");
        email.unwrap_or_default()
    }

    /// [`password::check`].
    pub fn password(&mut self, path: &str, value: &str, email: &str, name: &str) -> String {
        self.by(path, password::check(value, email, name))
    }

    /// The problem, when anything was noted.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::Checks;

    #[test]
    fn all_errors_come_at_once() {
        let mut checks = Checks::default();
        checks.email("email", "nope");
        checks.password("password", "short", "", "");
        checks.name("displayName", "  ", 80);
        let Err(problem) = checks.finish() else { panic!("must be refused") };
        assert!(format!("{problem:?}").matches("FieldError").count() == 3);
        let mut checks = Checks::default();
        checks.password("password", "aaaaaaaaaaaa", "", "");
        assert!(checks.finish().is_err());
        let mut checks = Checks::default();
        checks.password("password", "ein langes Wort", "", "");
        assert_eq!(checks.clearable_line("bio", Some(Some("  ".into())), 500), Some(None));
        assert!(checks.finish().is_ok());
    }
}
