//! What a name, a line, a text, an address and a link may hold: the one place for it, whichever door they come through.
//! Rules about passwords are in `password`. Pure; the caller knows the name of the field and turns a [`Fault`] into its
//! error.
//!
//! Names and lines are shown among other people's words, so what could hide or turn these around is refused: controls,
//! bidirectional overrides and isolates (UAX #9), names of invisible characters alone, towers of combining marks. All
//! are kept in NFC (UAX #15), so that equal words are equal bytes. The content of a message is kept as it was typed
//! (clients show it isolated); it only must not be invisible as a whole.

mod link;
pub mod password;
pub mod schema;

pub use link::{link, link_or_handle};

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use crate::protocol::codes::{ErrorCode, Refusal};

/// Combining marks one character may carry. Written languages need up to three in NFC (Hebrew with points and accents).
const MARKS_MAX: usize = 4;
/// Bytes of an address (RFC 5321, 4.5.3.1).
pub const EMAIL_BYTES_MAX: usize = 254;
const EMAIL_LOCAL_BYTES_MAX: usize = 64;

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `length` or `format`.
    pub code: &'static str,
    /// A sentence without the field's name.
    pub message: Cow<'static, str>,
}

impl Fault {
    fn length(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: "length", message: message.into() }
    }

    fn format(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: "format", message: message.into() }
    }

    /// The refusal of the field with this name.
    pub fn of(self, field: &str) -> Refusal {
        Refusal::new(ErrorCode::Invalid, format!("{field}: {}", self.message))
    }
}

/// A name: one line of 1 to `chars_max` characters with something to see, trimmed, in NFC.
pub fn name(text: &str, chars_max: usize) -> Result<String, Fault> {
    let name = line(text, chars_max)?;
    match name.is_empty() {
        true => Err(Fault::length(format!("must have 1 to {chars_max} characters"))),
        false => Ok(name),
    }
}

/// One line of at most `chars_max` characters, trimmed, in NFC; may be empty.
pub fn line(text: &str, chars_max: usize) -> Result<String, Fault> {
    shown(text, chars_max, false)
}

/// Several lines of at most `chars_max` characters, trimmed, in NFC, with LF for every line break; may be empty.
pub fn paragraph(text: &str, chars_max: usize) -> Result<String, Fault> {
    shown(text, chars_max, true)
}

/// Whether there is nothing to see in `text`: it is empty, or all white space, format characters and blanks.
pub fn is_invisible(text: &str) -> bool {
    text.chars().all(is_blank)
}

fn shown(text: &str, chars_max: usize, lines: bool) -> Result<String, Fault> {
    // A bound before the work: NFC makes no text shorter than a third.
    if text.chars().count() > chars_max.saturating_mul(4) {
        return Err(Fault::length(format!("must have at most {chars_max} characters")));
    }
    let text: String = text.nfc().collect();
    let text = if lines { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
    // Before it is trimmed, so that the documents can say it.
    if text.chars().count() > chars_max {
        return Err(Fault::length(format!("must have at most {chars_max} characters")));
    }
    let mut marks = 0;
    for c in text.chars() {
        if is_bidi_control(c) {
            return Err(Fault::format("must not contain characters that turn the direction of writing"));
        }
        if is_forbidden(c, lines) {
            return Err(Fault::format("must not contain control characters"));
        }
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if marks > MARKS_MAX {
            return Err(Fault::format(format!("must not have more than {MARKS_MAX} combining marks on one character")));
        }
    }
    let text = text.trim();
    if !text.is_empty() && is_invisible(text) {
        return Err(Fault::format("must have something to see"));
    }
    Ok(text.to_owned())
}

/// What no line may hold; with `lines`, no paragraph.
fn is_forbidden(c: char, lines: bool) -> bool {
    is_bidi_control(c) || is_control(c) && !(lines && matches!(c, '\n' | '\r' | '\t'))
}

/// Controls (Cc), line and paragraph separators, and what stands for no character.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FDD0}'..='\u{FDEF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{FFFE}' | '\u{FFFF}')
}

/// Embeddings, overrides and isolates; the marks (U+200E, U+200F, U+061C) turn nothing around.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{206A}'..='\u{206F}')
}

fn is_mark(c: char) -> bool {
    // Variation selectors and what joins emoji are marks by category, and belong to them.
    !matches!(c, '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
        && matches!(c.general_category(), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

/// Shows nothing by itself. A character newer than this program's tables is taken to show something, but for those that
/// Unicode keeps for invisible ones (Default_Ignorable_Code_Point).
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::SpaceSeparator
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::NonspacingMark
                | GeneralCategory::EnclosingMark
        )
        || matches!(c, '\u{2065}' | '\u{FFF0}'..='\u{FFF8}' | '\u{E0000}'..='\u{E0FFF}')
        // Letters and symbols that are drawn empty: Hangul fillers, the Braille blank.
        || matches!(c, '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{2800}' | '\u{1D159}')
}

/// An e-mail address as it is stored and compared: trimmed, NFC, the domain as A-labels in lower case (RFC 5890). The
/// local part keeps its case for sending; comparing ignores it.
pub fn email(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > 4 * EMAIL_BYTES_MAX {
        return None;
    }
    let text: String = text.nfc().collect();
    let (local, domain) = text.rsplit_once('@')?;
    let domain = idna::domain_to_ascii_strict(domain).ok()?;
    let address = format!("{local}@{domain}");
    is_email(&address).then_some(address)
}

/// [`email`] in lower case: equal for the same mailbox. An address that is none is only trimmed and lowered.
pub fn email_key(text: &str) -> String {
    email(text).unwrap_or_else(|| text.trim().to_owned()).to_lowercase()
}

/// Whether `text` has the shape of an address that mail can be sent to. Deliberately narrower than RFC 5322: no
/// comments, no quoted strings, no address literals.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let local_ok = !local.is_empty()
        && local.len() <= EMAIL_LOCAL_BYTES_MAX
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c));
    let label_ok = |label: &str| !label.is_empty() && label.len() <= 63;
    let domain_ok = domain.contains('.') && domain.split('.').all(label_ok);
    text.len() <= EMAIL_BYTES_MAX && local_ok && domain_ok
}

#[cfg(test)]
mod tests {
    use super::{email, email_key, is_invisible, line, link, link_or_handle, name, paragraph};

    #[test]
    fn names_have_something_to_see_and_turn_nothing_around() {
        let tower = format!("e{}", "\u{0301}".repeat(8));
        let bad = [
            "",
            "  ",
            "\u{200B}",
            "\u{2060}\u{200D}",
            "\u{3164}",
            "\u{2800}\u{2800}",
            "\u{115F}",
            "\u{FFA0}",
            "\u{E0041}\u{E0042}",
            "\u{00AD}",
            "\u{FE0F}",
            "\u{0301}",
            "\u{180E}",
            "a\u{0}b",
            "a\nb",
            "a\tb",
            "a\n",
            "\u{E0002}",
            "a\u{85}b",
            "\u{202E}evil",
            "a\u{2066}b",
            "a\u{2028}b",
            "a\u{FFFE}b",
            &tower,
        ];
        for text in bad {
            assert!(name(text, 80).is_err(), "{text:?}");
        }
        let good = [
            "Ana",
            "Zoë",
            "李小龍",
            "محمد",
            "שָׁלוֹם",
            "👩‍👩‍👧",
            "❤️",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "नमस्ते",
            "می‌خواهم",
            "a\u{200F}",
            // Newer than this program, perhaps.
            "\u{1FAEA}",
            "\u{1FBFF}",
            "Việt",
        ];
        for text in good {
            assert!(name(text, 80).is_ok(), "{text:?}");
        }
        assert_eq!(name(" Zoe\u{0308} ", 80).as_deref(), Ok("Zoë"));
        assert_eq!(name(&"e\u{0301}".repeat(80), 80).map(|name| name.chars().count()), Ok(80));
        assert!(name(&format!("{} ", "ü".repeat(80)), 80).is_err(), "the document counts what is sent");
        assert!(name(&"ü".repeat(81), 80).is_err() && name(&"x".repeat(100_000), 80).is_err());
    }

    #[test]
    fn lines_may_be_empty_and_paragraphs_break() {
        assert_eq!(line("  ", 10).as_deref(), Ok(""));
        assert!(line("\u{200B}", 10).is_err() && line("a\nb", 10).is_err());
        assert_eq!(paragraph(" a\r\nb\rc\td ", 10).as_deref(), Ok("a\nb\nc\td"));
        assert!(paragraph("a\u{7}", 10).is_err() && paragraph("\u{202D}a", 10).is_err());
        assert!(
            is_invisible("\u{200B} \n\u{3164}\u{2800}\u{E0061}") && !is_invisible("\u{200B}a") && !is_invisible("❤️")
        );
    }

    #[test]
    fn addresses_have_one_form() {
        for good in ["a@b.co", "first.last+tag@sub.example.org", "o'neil@example.com", "ü@exämple.de"] {
            assert!(email(good).is_some(), "{good}");
        }
        assert_eq!(email(" ü@Exämple.DE ").as_deref(), Some("ü@xn--exmple-cua.de"));
        assert_eq!(email_key("Ana@EXÄMPLE.de"), email_key("ana@xn--exmple-cua.de"));
        assert_eq!(email_key("zoe\u{0308}@a.de"), email_key("ZOË@a.de"));
        assert_eq!(email_key("a@ｅｘａｍｐｌｅ.org"), "a@example.org");
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..de",
            ".a@b.de",
            "a.@b.de",
            "a@-b.de",
            "a@b_c.de",
            "a@b-.de",
            "a@@b.de",
            "<a@b.de>",
            "a@b.de\u{202E}",
            "a@xn--.de",
            &long,
        ] {
            assert!(email(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn links_are_https_or_our_own_media() {
        for good in [
            "https://a.example/x?y=1#z",
            "HTTPS://A.example",
            "https://exämple.de/ü",
            "/v1/media/0198.jpg?sig=a%2Bb&x=1",
            "/v1/media/a..b/c",
        ] {
            assert!(link(good, 200).is_ok(), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            " java\tscript:alert(1)",
            "http://a.example",
            "data:text/html,x",
            "//a.example",
            "https:a.example",
            "https:///a.example",
            "https://",
            "https://u:p@a.example",
            "https://u@a.example",
            "https://@a.example",
            "https://a.example\\@b.example",
            "https://a.example/ x",
            "/v1/media/../me",
            "/v1/media/",
            "/v1/media/%2e%2e/me",
            "/v1/media/%2E%2E%2Fme",
            "/v1/media/.%2e/me",
            "/v1/media/a%5c..%5cme",
            "/v1/media/a\\..\\me",
            "/v1/media/./a",
            "/v1/media/a/.",
            "/v1/media/a/../../me",
            "/v1/media/...",
            "/v1/media//me",
            "/v1/media/a//b",
            "/v1/media/a/",
            "/v1/media/?x=1",
            "/v1/media/a?x=../y",
            "/v1/media/a?x=1?y",
            "/v1/media/a#b",
            "/v1/media/a;b",
            "/v1/me",
            "/V1/media/a",
            "https://%2e%2e",
            "https://a.example%2f@b.example/x",
            "ftp://a.example",
            "",
            "https://a\u{202E}.example",
            "vbscript:x",
            "@ana",
        ] {
            assert!(link(bad, 200).is_err(), "{bad:?}");
        }
        assert!(link(&format!("https://a.example/{}", "x".repeat(200)), 200).is_err());
        assert!(link_or_handle("@kiki.mizrahi", 200).is_ok() && link_or_handle("https://a.example", 200).is_ok());
        assert!(link_or_handle("@javascript:x", 200).is_err() && link_or_handle("@", 200).is_err());
    }
}
