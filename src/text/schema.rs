//! The rules of `text` as JSON Schema, for the documents: what fits them is taken, what does not is refused, but for what
//! no schema can say (towers of marks, hosts that are none). A test beside holds the two against each other, character by
//! character.

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, SchemaType, Type};

use super::password::{CHARS_MAX, CHARS_MIN};
use super::{EMAIL_BYTES_MAX, HANDLE_CHARS_MAX, OWN_MEDIA};

/// What no line may hold, as the inside of a character class: `is_control` and `is_bidi_control`.
const FORBIDDEN: &str = r"\u0000-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u206F\uFDD0-\uFDEF\uFFF9-\uFFFB\uFFFE\uFFFF";
/// The same of a paragraph, which may have tabs and line breaks.
const FORBIDDEN_IN_LINES: &str = r"\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u206F\uFDD0-\uFDEF\uFFF9-\uFFFB\uFFFE\uFFFF";
/// Blanks that are trimmed away.
const SPACES: &str = r" \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000";
/// What shows nothing by itself: `is_blank`. Those beyond U+FFFF stand as they are: not every reader knows `\u{…}`.
const BLANK: &str = "\\p{Cc}\\p{Cf}\\p{Z}\\p{Mn}\\p{Me}\\u115F\\u1160\\u2065\\u2800\\u3164\\uFFA0\\uFFF0-\\uFFF8\u{1D159}\u{E0000}-\u{E0FFF}";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A further condition, beside those that the builder knows.
fn also(builder: ObjectBuilder, pattern: String) -> Object {
    let more: Value = json!([{"pattern": pattern}]);
    builder.extensions(Some(Extensions::from_iter([("allOf", more)]))).build()
}

/// The same, or null, which clears.
pub fn clearable(mut schema: Object) -> Object {
    schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    schema
}

/// [`super::name`].
pub fn name(chars_max: usize) -> Object {
    let builder = text().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(format!("^[^{FORBIDDEN}]*$")));
    also(builder, format!("[^{BLANK}]"))
}

/// [`super::line`].
pub fn line(chars_max: usize) -> Object {
    let builder = text().max_length(Some(chars_max)).pattern(Some(format!("^[^{FORBIDDEN}]*$")));
    also(builder, format!("^[{SPACES}]*$|[^{BLANK}]"))
}

/// [`super::paragraph`].
pub fn paragraph(chars_max: usize) -> Object {
    let builder = text().max_length(Some(chars_max)).pattern(Some(format!("^[^{FORBIDDEN_IN_LINES}]*$")));
    also(builder, format!(r"^[{SPACES}\t\n\r]*$|[^{BLANK}]"))
}

/// Something to see, and no U+0000.
pub fn visible(chars_max: usize) -> Object {
    let builder = text().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(r"^[^\u0000]*$".to_owned()));
    also(builder, format!("[^{BLANK}]"))
}

/// What is looked for: not white space alone, and no U+0000.
pub fn words(chars_max: usize) -> Object {
    let builder = text().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(r"^[^\u0000]*$".to_owned()));
    also(builder, r"[^\u0009-\u000D\u0085\p{Z}]".to_owned())
}

/// [`super::link`]. Hosts in ASCII, as others are written in links (A-labels).
pub fn link(bytes_max: usize) -> Object {
    text().min_length(Some(1)).max_length(Some(bytes_max)).pattern(Some(format!("^({})$", links()))).build()
}

/// [`super::link_or_handle`].
pub fn link_or_handle(bytes_max: usize) -> Object {
    let handle = format!("@[A-Za-z0-9_.-]{{1,{}}}", HANDLE_CHARS_MAX - 1);
    text().min_length(Some(1)).max_length(Some(bytes_max)).pattern(Some(format!("^({}|{handle})$", links()))).build()
}

fn links() -> String {
    let host = r"([A-Za-z0-9-]+\.)*[A-Za-z][A-Za-z0-9-]*(:[0-9]{1,4})?";
    format!(r"https://{host}([/?#][!-\[\]-~]*)?|{OWN_MEDIA}[A-Za-z0-9_/?=&%-]+(\.[A-Za-z0-9_/?=&%-]+)*")
}

/// [`super::email`].
pub fn email() -> Object {
    text().format(Some(SchemaFormat::Custom("email".to_owned()))).max_length(Some(EMAIL_BYTES_MAX)).build()
}

/// [`super::password::check`], but for those that are refused by name.
pub fn password() -> Object {
    text()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
        .min_length(Some(CHARS_MIN))
        .max_length(Some(CHARS_MAX))
        .pattern(Some(r"^(?!(.)\1*$)[^\u0000-\u001F\u007F-\u009F]*$".to_owned()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::{BLANK, FORBIDDEN, FORBIDDEN_IN_LINES, SPACES};
    use crate::text::{is_blank, is_forbidden};
    use unicode_properties::{GeneralCategory as G, UnicodeGeneralCategory};

    enum Part {
        Range(char, char),
        Category(String),
    }

    /// The parts of a class of this file, written without its brackets.
    fn parts(class: &str) -> Vec<Part> {
        let mut chars = class.chars();
        let mut found: Vec<Part> = Vec::new();
        let mut is_range = false;
        while let Some(first) = chars.next() {
            let c = match first {
                '-' => {
                    is_range = true;
                    continue;
                }
                '\\' => match chars.next() {
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).collect();
                        u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).expect("a character")
                    }
                    Some('p') => {
                        found.push(Part::Category(chars.by_ref().skip(1).take_while(|c| *c != '}').collect()));
                        continue;
                    }
                    other => panic!("{other:?}"),
                },
                plain => plain,
            };
            match found.last_mut() {
                Some(Part::Range(_, to)) if is_range => *to = c,
                _ => found.push(Part::Range(c, c)),
            }
            is_range = false;
        }
        found
    }

    fn has(parts: &[Part], c: char) -> bool {
        let category = c.general_category();
        parts.iter().any(|part| match part {
            Part::Range(from, to) => (*from..=*to).contains(&c),
            Part::Category(name) => match name.as_str() {
                "Cc" => category == G::Control,
                "Cf" => category == G::Format,
                "Z" => matches!(category, G::SpaceSeparator | G::LineSeparator | G::ParagraphSeparator),
                "Mn" => category == G::NonspacingMark,
                "Me" => category == G::EnclosingMark,
                other => panic!("{other}"),
            },
        })
    }

    #[test]
    fn the_classes_are_the_rules_for_every_character() {
        let [blank, forbidden, in_lines, spaces] = [BLANK, FORBIDDEN, FORBIDDEN_IN_LINES, SPACES].map(parts);
        for c in '\0'..=char::MAX {
            assert_eq!(has(&blank, c), is_blank(c), "blank: {c:?}");
            assert_eq!(has(&forbidden, c), is_forbidden(c, false), "in a line: {c:?}");
            assert_eq!(has(&in_lines, c), is_forbidden(c, true), "in a paragraph: {c:?}");
            assert_eq!(has(&spaces, c), c.is_whitespace() && !is_forbidden(c, false), "space: {c:?}");
        }
    }
}
