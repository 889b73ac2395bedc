//! Bodies that are made once and served as they are: plain, gzip or Brotli by what the client takes, with a strong
//! `ETag` each, or 304 if the client holds the very one. Which files there are is not here.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Keep it, but ask each time whether it is still the one.
pub const ASK: &str = "no-cache";
/// Its address changes with its content: keep it for a year and never ask.
pub const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// One body in up to three encodings.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub content_type: &'static str,
    /// A name of the plain content.
    pub hash: &'a str,
    pub plain: &'static [u8],
    pub gzip: Option<&'static [u8]>,
    pub brotli: Option<&'static [u8]>,
}

impl Stored<'_> {
    /// The answer to a request with these headers.
    pub fn answer(&self, headers: &HeaderMap, caching: &'static str) -> Response {
        let (encoding, body) = self.choose(headers);
        let tag = if encoding.is_empty() {
            Cow::Borrowed(self.hash)
        } else {
            Cow::Owned(format!("{}-{encoding}", self.hash))
        };
        let tag = format!("\"{tag}\"");
        let mut response = match holds(headers, &tag) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => Response::new(Body::from(body)),
        };
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        if let Ok(value) = HeaderValue::from_str(&tag) {
            out.insert(header::ETAG, value);
        }
        if self.gzip.is_some() || self.brotli.is_some() {
            out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if !encoding.is_empty() && response.status() == StatusCode::OK {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        response
    }

    /// The smallest form the client takes, and its name as an encoding (empty: plain).
    fn choose(&self, headers: &HeaderMap) -> (&'static str, &'static [u8]) {
        let taken = Taken::read(headers);
        match (self.brotli, self.gzip) {
            (Some(body), _) if taken.has("br") => ("br", body),
            (_, Some(body)) if taken.has("gzip") => ("gzip", body),
            _ => ("", self.plain),
        }
    }
}

/// What `Accept-Encoding` names, over all its lines.
struct Taken(Vec<(String, bool)>);

impl Taken {
    fn read(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        let parts = lines.flat_map(|line| line.split(',')).map(|part| {
            let (name, weight) = part.split_once(';').unwrap_or((part, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), |weight| weight.trim().parse::<f32>());
            (name.trim().to_ascii_lowercase(), weight.is_ok_and(|weight| weight > 0.0))
        });
        Self(parts.collect())
    }

    /// Named with a weight above 0, or covered by `*` and not named.
    fn has(&self, encoding: &str) -> bool {
        let of = |name: &str| self.0.iter().find(|(one, _)| one == name).map(|(_, taken)| *taken);
        of(encoding).or_else(|| of("*")).unwrap_or(false)
    }
}

/// Whether `If-None-Match` names this tag (weak comparison, RFC 9110, 13.1.2).
fn holds(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::{ASK, Stored};
    use axum::http::{HeaderMap, HeaderName, header};

    const STORED: Stored<'_> =
        Stored { content_type: "text/plain", hash: "1f", plain: b"plain", gzip: Some(b"zip"), brotli: Some(b"br") };

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn the_client_gets_the_smallest_form_it_takes() {
        let form = |lines: &[&str]| {
            let pairs: Vec<_> = lines.iter().map(|line| (header::ACCEPT_ENCODING, *line)).collect();
            let response = STORED.answer(&headers(&pairs), ASK);
            let encoding = response.headers().get(header::CONTENT_ENCODING);
            encoding.map_or("plain".to_owned(), |value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(form(&[]), "plain");
        assert_eq!(form(&["identity"]), "plain");
        assert_eq!(form(&["gzip, deflate, br, zstd"]), "br");
        assert_eq!(form(&["gzip", "br"]), "br", "two lines are one list");
        assert_eq!(form(&["GZIP"]), "gzip");
        assert_eq!(form(&["br;q=0, gzip;q=0.5"]), "gzip");
        assert_eq!(form(&["br; q=0.0, *"]), "gzip");
        assert_eq!(form(&["*;q=0"]), "plain");
        assert_eq!(form(&["br;q=nonsense"]), "plain");
    }

    #[test]
    fn a_held_form_is_not_sent_again_and_another_form_is() {
        let status = |pairs: &[(HeaderName, &str)]| STORED.answer(&headers(pairs), ASK).status().as_u16();
        let (held, takes) = (header::IF_NONE_MATCH, header::ACCEPT_ENCODING);
        assert_eq!(status(&[(held.clone(), "\"1f\"")]), 304);
        assert_eq!(status(&[(held.clone(), "\"0\", W/\"1f\"")]), 304);
        assert_eq!(status(&[(held.clone(), "*")]), 304);
        assert_eq!(status(&[(held.clone(), "\"1f\""), (takes.clone(), "br")]), 200);
        assert_eq!(status(&[(held.clone(), "\"1f-br\""), (takes, "br")]), 304);
        assert_eq!(status(&[(held, "\"other\"")]), 200);
    }
}
