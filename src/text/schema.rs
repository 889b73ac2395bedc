//! The rules of `text` as JSON Schema, for the documents: what fits them is taken, what does not is refused, but for what
//! no schema can say (towers of marks, hosts that are none). Character classes are made from the rules themselves.

use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, SchemaType, Type};

use super::link::{HANDLE_CHARS_MAX, OWN_MEDIA};
use super::password::{CHARS_MAX, CHARS_MIN};
use super::{EMAIL_BYTES_MAX, is_blank, is_forbidden};

/// What no line may hold, as a character class.
static FORBIDDEN: LazyLock<String> = LazyLock::new(|| class_of(|c| is_forbidden(c, false)));
/// The same of a paragraph.
static FORBIDDEN_IN_LINES: LazyLock<String> = LazyLock::new(|| class_of(|c| is_forbidden(c, true)));
/// Blanks that are trimmed away at the ends of a line.
static SPACES: LazyLock<String> = LazyLock::new(|| class_of(|c| c.is_whitespace() && !is_forbidden(c, false)));
static SPACES_OF_LINES: LazyLock<String> = LazyLock::new(|| class_of(|c| c.is_whitespace() && !is_forbidden(c, true)));
static WHITE: LazyLock<String> = LazyLock::new(|| class_of(char::is_whitespace));

/// The inside of a character class that has just what `rule` has. Plain ranges: `\p{…}` and `\u{…}` are not known to every
/// reader of patterns.
fn class_of(rule: impl Fn(char) -> bool) -> String {
    let mut class = String::new();
    let mut chars = ('\0'..=char::MAX).peekable();
    while let Some(first) = chars.next() {
        if !rule(first) {
            continue;
        }
        let mut last = first;
        while let Some(next) = chars.next_if(|c| rule(*c)) {
            last = next;
        }
        write_char(&mut class, first);
        if last != first {
            class.push('-');
            write_char(&mut class, last);
        }
    }
    class
}

fn write_char(class: &mut String, c: char) {
    match u32::from(c) {
        bmp @ ..0x10000 => class.push_str(&format!("\\u{bmp:04X}")),
        _ => class.push(c),
    }
}

/// Schemas that those here refer to, by name: long patterns that would else stand at every field.
pub fn named() -> [(&'static str, Object); 3] {
    let blank = class_of(is_blank);
    let pattern = |pattern: String, about: &str| {
        ObjectBuilder::new().schema_type(SchemaType::AnyValue).pattern(Some(pattern)).description(Some(about)).build()
    };
    [
        (VISIBLE, pattern(format!("[^{blank}]"), "A text that has something to see")),
        (LINE, pattern(format!("^[{}]*$|[^{blank}]", *SPACES), "A line that is empty or has something to see")),
        (
            PARAGRAPH,
            pattern(format!("^[{}]*$|[^{blank}]", *SPACES_OF_LINES), "Lines that are empty or have something to see"),
        ),
    ]
}

const VISIBLE: &str = "VisibleText";
const LINE: &str = "VisibleOrEmptyLine";
const PARAGRAPH: &str = "VisibleOrEmptyLines";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// With a schema of [`named`] besides.
fn also(builder: ObjectBuilder, name: &str) -> Object {
    let more: Value = json!([{"$ref": format!("#/components/schemas/{name}")}]);
    builder.extensions(Some(Extensions::from_iter([("allOf", more)]))).build()
}

/// The same, or null, which clears.
pub fn clearable(mut schema: Object) -> Object {
    schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    schema
}

/// [`super::name`].
pub fn name(chars_max: usize) -> Object {
    let builder = text().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(format!("^[^{}]*$", *FORBIDDEN)));
    also(builder, VISIBLE)
}

/// [`super::line`].
pub fn line(chars_max: usize) -> Object {
    let builder = text().max_length(Some(chars_max)).pattern(Some(format!("^[^{}]*$", *FORBIDDEN)));
    also(builder, LINE)
}

/// [`super::paragraph`].
pub fn paragraph(chars_max: usize) -> Object {
    let builder = text().max_length(Some(chars_max)).pattern(Some(format!("^[^{}]*$", *FORBIDDEN_IN_LINES)));
    also(builder, PARAGRAPH)
}

/// Something to see, and no U+0000.
pub fn visible(chars_max: usize) -> Object {
    let builder = text().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(r"^[^\u0000]*$".to_owned()));
    also(builder, VISIBLE)
}

/// What is looked for: not white space alone, and no U+0000.
pub fn words(chars_max: usize) -> Object {
    let pattern = format!(r"^[^\u0000]*[^\u0000{}][^\u0000]*$", *WHITE);
    text().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(pattern)).build()
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
    let name = r"\.*[A-Za-z0-9_-][A-Za-z0-9_.-]*";
    format!(r"https://{host}([/?#][!-\[\]-~]*)?|{OWN_MEDIA}{name}(/{name})*(\?[A-Za-z0-9_.~=&%+-]*)?")
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
    use super::{FORBIDDEN, SPACES, class_of};

    #[test]
    fn classes_are_ranges_of_what_the_rule_has() {
        assert_eq!(class_of(|c| ('a'..='c').contains(&c) || c == 'x'), r"\u0061-\u0063\u0078");
        assert_eq!(class_of(|c| ('\u{FFFF}'..='\u{10001}').contains(&c)), "\\uFFFF-\u{10001}");
        assert_eq!(SPACES.as_str(), r"\u0020\u00A0\u1680\u2000-\u200A\u202F\u205F\u3000");
        assert!(FORBIDDEN.starts_with(r"\u0000-\u001F\u007F-\u009F\u2028-\u202E"), "{}", *FORBIDDEN);
    }
}
