//! Origins of browsers (RFC 6454): which pages of other hosts may open sockets and read answers. One parser for the
//! settings and for the header, so that case, default ports and a trailing slash make no difference.

use axum::http::{HeaderMap, HeaderValue, header};
use url::Url;

/// Scheme, host and port, in one form each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]`, with a slash at its end or without.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let rest = text.split_once("://")?.1;
        let bare = rest.strip_suffix('/').unwrap_or(rest);
        if bare.is_empty() || bare.contains(['/', '?', '#', '@', '\\']) {
            return None;
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

/// The own public address and the allow-list.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<Origin>,
    any: bool,
}

impl Origins {
    /// Reads `HAUS_PUBLIC_URL` (of which the origin counts) and `HAUS_ORIGINS`; `*` allows every origin.
    ///
    /// # Errors
    /// The setting that is none, named.
    pub fn parse(public_url: Option<&str>, entries: &[String]) -> Result<Self, String> {
        let mut origins = Self::default();
        if let Some(public) = public_url.map(str::trim).filter(|public| !public.is_empty()) {
            let url = Url::parse(public).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
            let origin = url.and_then(|url| Origin::parse(&url.origin().ascii_serialization()));
            let wrong = || format!("HAUS_PUBLIC_URL: {public:?} is no address such as https://chat.example.org");
            origins.allowed.push(origin.ok_or_else(wrong)?);
        }
        for entry in entries.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()) {
            if entry == "*" {
                origins.any = true;
                continue;
            }
            let wrong = || format!("HAUS_ORIGINS: {entry:?} is no origin such as https://chat.example.org");
            origins.allowed.push(Origin::parse(entry).ok_or_else(wrong)?);
        }
        Ok(origins)
    }

    /// Whether pages of this origin may read answers.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || origin.to_str().ok().and_then(Origin::parse).is_some_and(|origin| self.allowed.contains(&origin))
    }

    /// Whether a request may open a socket: it comes from no page (a native client), from one of the own host, or from an
    /// allowed one. Everything else, `null` included, may not.
    pub fn may_open(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        self.allows(origin) || is_own(origin, headers.get(header::HOST))
    }
}

/// Whether an origin is the host that was asked.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let own = || {
        let origin = Origin::parse(origin.to_str().ok()?)?;
        let host = Origin::parse(&format!("{}://{}", origin.scheme, host?.to_str().ok()?))?;
        Some(origin == host)
    };
    own().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::Origins;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn origins(public: Option<&str>, entries: &[&str]) -> Origins {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        Origins::parse(public, &entries).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn case_default_ports_and_slashes_make_no_difference() {
        let origins = origins(
            Some("https://Chat.Example.org/app/"),
            &["https://a.example/", " HTTP://B.example:80", "http://[::1]:3000"],
        );
        for good in [
            "https://a.example",
            "https://A.EXAMPLE",
            "https://a.example:443",
            "http://b.example",
            "http://b.example:80",
            "http://[::1]:3000",
            "http://[0:0::1]:3000",
            "https://chat.example.org",
            "https://chat.example.org:443",
        ] {
            assert!(origins.allows(&value(good)), "{good}");
        }
        for bad in [
            "http://a.example",
            "https://a.example:8443",
            "https://b.example",
            "null",
            "",
            "https://a.example.evil.example",
            "https://evil.example/https://a.example",
            "https://a.example@evil.example",
            "file://",
            "http://[::1]",
        ] {
            assert!(!origins.allows(&value(bad)), "{bad}");
        }
        assert!(
            super::Origins::parse(None, &["*".to_owned()]).is_ok_and(|any| any.allows(&value("https://x.example")))
        );
    }

    #[test]
    fn the_own_host_may_open_sockets_and_so_may_no_page_at_all() {
        let origins = origins(None, &[]);
        let opens = |origin: Option<&str>, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, value(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, value(origin));
            }
            origins.may_open(&headers)
        };
        assert!(opens(None, "h:1"));
        for (origin, host) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://h.example", "h.example"),
            ("https://h.example", "H.example:443"),
            ("http://H.example:80", "h.example"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(opens(Some(origin), host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://h.example", "h.example:80"),
            ("http://h.example", "g.example"),
            ("null", "null"),
            ("http://h.example", ""),
        ] {
            assert!(!opens(Some(origin), host), "{origin} {host}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for bad in [
            "banana",
            "https://",
            "https://a.example/path",
            "ftp://a.example",
            "https://u@a.example",
            "a.example",
            "null",
        ] {
            let error = Origins::parse(None, &[bad.to_owned()]).err().unwrap_or_default();
            assert!(error.contains("HAUS_ORIGINS") && error.contains(bad), "{bad}: {error}");
        }
        assert!(Origins::parse(Some("banana"), &[]).is_err_and(|error| error.contains("HAUS_PUBLIC_URL")));
    }
}
