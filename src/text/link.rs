//! Links and handles: `https` addresses, and media uploaded here.

use super::{Fault, is_bidi_control, is_control};

/// Characters of a handle, the `@` included.
pub(super) const HANDLE_CHARS_MAX: usize = 64;
/// Where media that was uploaded here is served.
pub(super) const OWN_MEDIA: &str = "/v1/media/";

/// A link that a client may open or show: an `https` address without user and password, or media uploaded here.
pub fn link(text: &str, bytes_max: usize) -> Result<String, Fault> {
    let text = text.trim();
    if text.is_empty() || text.len() > bytes_max {
        return Err(Fault::length(format!("must have 1 to {bytes_max} bytes")));
    }
    if let Some(rest) = text.strip_prefix(OWN_MEDIA) {
        return if is_media_path(rest) { Ok(text.to_owned()) } else { Err(not_a_link()) };
    }
    if text.chars().any(|c| c.is_whitespace() || is_control(c) || is_bidi_control(c) || c == '\\') {
        return Err(not_a_link());
    }
    match url::Url::parse(text) {
        // The parser also takes `https:host` and `https:///host`, which others read in another way.
        Ok(url)
            if url.scheme() == "https"
                && text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
                && url.host_str().is_some_and(|host| !host.is_empty())
                && url.username().is_empty()
                && url.password().is_none()
                && text[8..]
                    .split(['/', '?', '#'])
                    .next()
                    .is_some_and(|authority| !authority.is_empty() && !authority.contains(['@', '%'])) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(not_a_link()),
    }
}

/// What may follow [`OWN_MEDIA`]: names that lead nowhere else however they are read. An escape could hold a dot or a slash,
/// so there is none before the query.
fn is_media_path(rest: &str) -> bool {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.bytes().all(|b| b == b'.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    path.split('/').all(is_name) && query.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~=&%+".contains(&b))
}

fn not_a_link() -> Fault {
    Fault::format("must be an https:// address without user and password")
}

/// A [`link`], or a handle such as `@kiki.mizrahi`.
pub fn link_or_handle(text: &str, bytes_max: usize) -> Result<String, Fault> {
    let text = text.trim();
    let handle = text.strip_prefix('@').is_some_and(|name| {
        !name.is_empty()
            && text.len() <= HANDLE_CHARS_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    });
    if handle { Ok(text.to_owned()) } else { link(text, bytes_max) }
}
