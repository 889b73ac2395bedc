//! The page at `/` and the client library at `/js/`, built into the binary. No template, no build step: what lies in
//! `web/` and `clients/js/` is served as it is, under a policy that lets nothing else run.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What the page may load and reach: its own files and its own server. Trusted Types make writing markup from text
/// impossible. Not every browser counts the own host's web sockets as `'self'`, so these are named, see [`policy`].
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; connect-src 'self'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

macro_rules! assets {
    ($($path:literal $kind:ident $file:literal),+ $(,)?) => {
        const ASSETS: &[Asset] = &[$(Asset { path: $path, content_type: $kind, body: include_str!(concat!("../../", $file)) }),+];
        #[cfg(test)]
        const FILES: &[&str] = &[$($file),+];
    };
}

assets! {
    "/" HTML "web/index.html",
    "/base.css" CSS "web/base.css",
    "/style.css" CSS "web/style.css",
    "/icon.svg" SVG "web/icon.svg",
    "/docs" HTML "web/docs.html",
    "/docs.css" CSS "web/docs.css",
    "/app.js" JS "web/app.js",
    "/conversation.js" JS "web/conversation.js",
    "/format.js" JS "web/format.js",
    "/list.js" JS "web/list.js",
    "/messages.js" JS "web/messages.js",
    "/js/backoff.js" JS "clients/js/backoff.js",
    "/js/catch_up.js" JS "clients/js/catch_up.js",
    "/js/connection.js" JS "clients/js/connection.js",
    "/js/emitter.js" JS "clients/js/emitter.js",
    "/js/errors.js" JS "clients/js/errors.js",
    "/js/haus.js" JS "clients/js/haus.js",
    "/js/people.js" JS "clients/js/people.js",
    "/js/queue.js" JS "clients/js/queue.js",
    "/js/reader.js" JS "clients/js/reader.js",
    "/js/session.js" JS "clients/js/session.js",
    "/js/storage.js" JS "clients/js/storage.js",
    "/js/store.js" JS "clients/js/store.js",
    "/js/stream.js" JS "clients/js/stream.js",
    "/js/thread.js" JS "clients/js/thread.js",
}

/// Routes of the page, to be merged into the application's router.
pub fn page_router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = etag(asset.body);
        router.route(asset.path, get(move |headers: HeaderMap| std::future::ready(serve(asset, &tag, &headers))))
    })
}

/// The file, or 304 if the browser has this very one. Browsers ask each time, so a new binary shows at once.
fn serve(asset: &'static Asset, tag: &str, headers: &HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|list| list.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { asset.body.into_response() };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    out.insert(header::CONTENT_SECURITY_POLICY, policy(headers.get(header::HOST)));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(value) = HeaderValue::from_str(tag) {
        out.insert(header::ETAG, value);
    }
    response
}

/// The policy with the sockets of the host that was asked, if that is a plain host and port.
fn policy(host: Option<&HeaderValue>) -> HeaderValue {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    host.and_then(|host| host.to_str().ok())
        .filter(|host| host.bytes().all(plain))
        .and_then(|host| HeaderValue::from_str(&format!("{POLICY} ws://{host} wss://{host}")).ok())
        .unwrap_or(HeaderValue::from_static(POLICY))
}

/// A name of the content: FNV-1a, enough to tell versions of one file apart.
fn etag(body: &str) -> String {
    let hash = body
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{hash:016x}\"")
}

#[cfg(test)]
mod tests {
    use super::{ASSETS, FILES, POLICY, etag, policy, serve};
    use axum::http::{HeaderMap, StatusCode, header};

    #[test]
    fn every_file_of_the_page_and_the_library_is_served() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["web", "clients/js"] {
            for entry in std::fs::read_dir(root.join(folder)).expect("the folder") {
                let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
                let served = [".html", ".css", ".js", ".svg"].iter().any(|end| name.ends_with(end));
                assert!(
                    !served || FILES.contains(&format!("{folder}/{name}").as_str()),
                    "{folder}/{name} is not in the list"
                );
            }
        }
    }

    #[test]
    fn nothing_in_the_page_needs_inline_script_or_style() {
        let html = ASSETS[0].body;
        for forbidden in ["style=", "onclick=", "onload=", "<style", "javascript:"] {
            assert!(!html.contains(forbidden), "index.html has {forbidden}");
        }
        assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=\"/").count());
        for asset in ASSETS {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!asset.body.contains(forbidden), "{} uses {forbidden}", asset.path);
            }
        }
    }

    #[test]
    fn the_policy_names_the_sockets_of_a_plain_host_alone() {
        let of = |host: &str| policy(Some(&host.parse().expect("a header"))).to_str().expect("text").to_owned();
        assert!(of("haus.example:8080").ends_with("connect-src 'self' ws://haus.example:8080 wss://haus.example:8080"));
        assert_eq!(of("evil; script-src *"), POLICY);
        assert_eq!(policy(None), POLICY);
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let tag = etag(ASSETS[0].body);
        let mut headers = HeaderMap::new();
        assert_eq!(serve(&ASSETS[0], &tag, &headers).status(), StatusCode::OK);
        headers.insert(header::IF_NONE_MATCH, tag.parse().expect("a header"));
        assert_eq!(serve(&ASSETS[0], &tag, &headers).status(), StatusCode::NOT_MODIFIED);
        headers.insert(header::IF_NONE_MATCH, "\"other\"".parse().expect("a header"));
        assert_eq!(serve(&ASSETS[0], &tag, &headers).status(), StatusCode::OK);
    }
}
