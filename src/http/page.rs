//! The page at `/` and the client library at `/js/`, built into the binary and made ready by `build.rs`, served under a
//! policy that lets nothing else run.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::stored::{ASK, FOR_EVER, Stored};
use super::well_known;

/// What the page may load and reach: its own files and its own server. Trusted Types make writing markup from text
/// impossible. Not every browser counts the own host's web sockets as `'self'`, so these are named, see [`policy`].
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      connect-src 'self'";

/// One file of the page.
struct Asset {
    /// Without the hash.
    path: &'static str,
    content_type: &'static str,
    hash: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
    brotli: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

const FOLDER: &str = "/assets/";

/// Routes of the page, to be merged into the application's router.
pub fn page_router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let fixed = ASSETS.iter().filter(|asset| !asset.path.starts_with(FOLDER));
    let router = fixed.fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move |headers: HeaderMap| std::future::ready(serve(asset, ASK, &headers))))
    });
    router.route("/assets/{file}", get(hashed))
}

/// A file whose name carries the hash of its content. One of another version (a page that a node before or after this
/// one has given out) gets the present content, not to be kept.
async fn hashed(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let mut parts = file.splitn(3, '.');
    let (Some(stem), Some(hash), Some(ending)) = (parts.next(), parts.next(), parts.next()) else {
        return well_known::not_found().await.into_response();
    };
    let name = format!("{FOLDER}{stem}.{ending}");
    match ASSETS.iter().find(|asset| asset.path == name) {
        Some(asset) => serve(asset, if asset.hash == hash { FOR_EVER } else { ASK }, &headers),
        None => well_known::not_found().await.into_response(),
    }
}

fn serve(asset: &'static Asset, caching: &'static str, headers: &HeaderMap) -> Response {
    let Asset { content_type, hash, plain, gzip, brotli, .. } = *asset;
    let mut response = Stored { content_type, hash, plain, gzip, brotli }.answer(headers, caching);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy(headers.get(header::HOST)));
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

#[cfg(test)]
#[path = "../../build/bundle.rs"]
mod bundle;

#[cfg(test)]
mod tests {
    use super::bundle::bundle;
    use super::{ASSETS, Asset, POLICY, policy};

    fn text(path: &str) -> &'static str {
        let asset: &Asset = ASSETS.iter().find(|asset| asset.path == path).expect("the asset");
        std::str::from_utf8(asset.plain).expect("text")
    }

    #[test]
    fn every_module_of_the_library_is_served() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(root.join("clients/js")).expect("the folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
            let served = ASSETS.iter().any(|asset| asset.path == format!("/js/{name}"));
            assert_eq!(served, name.ends_with(".js"), "{name}");
        }
    }

    #[test]
    fn the_page_needs_few_files_and_names_them_by_hash() {
        let html = text("/");
        for (attribute, most) in [("src=\"/", 1), ("href=\"/", 3)] {
            let named: Vec<&str> = html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()).collect();
            assert!((1..=most).contains(&named.len()), "{attribute}: {named:?}");
            for name in named {
                let hashed = name.strip_prefix("assets/").is_some_and(|file| file.split('.').count() == 3);
                assert!(hashed, "{name} has no hash in its name");
            }
        }
        let whole: usize = ["/", "/assets/app.js", "/assets/style.css", "/assets/icon.svg"]
            .iter()
            .filter_map(|path| ASSETS.iter().find(|asset| asset.path == *path)?.brotli.map(<[u8]>::len))
            .sum();
        assert!(whole < 60_000, "{whole} bytes over the wire");
    }

    #[test]
    fn nothing_in_the_page_needs_inline_script_or_style() {
        let html = text("/");
        for forbidden in ["style=", "onclick=", "onload=", "<style", "javascript:"] {
            assert!(!html.contains(forbidden), "index.html has {forbidden}");
        }
        assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=\"/").count());
        for asset in ASSETS.iter().filter(|asset| asset.content_type.starts_with("text/")) {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text(asset.path).contains(forbidden), "{} uses {forbidden}", asset.path);
            }
        }
    }

    #[test]
    fn modules_are_joined_in_order_and_their_names_do_not_meet() {
        let read = |path: &str| {
            match path {
            "web/app.js" => Ok("import { one as first,\n  Two } from './a.js';\nimport { one } from './js/b.js';\nfirst(one);".to_owned()),
            "web/a.js" => Ok("const own = 1;\nexport function one() {}\nexport class Two {}\nexport { one as three } from './js/b.js';".to_owned()),
            "clients/js/b.js" => Ok("const own = 2;\nexport const one = own;".to_owned()),
            other => Err(format!("{other} is not asked for")),
        }
        };
        let text = bundle("web/app.js", &read).expect("a bundle");
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in {text}"));
        assert!(at("// clients/js/b.js") < at("// web/a.js") && at("// web/a.js") < at("// web/app.js"));
        assert!(
            text.contains("return { one };") && text.contains("return { one, Two, three: module0.one };"),
            "{text}"
        );
        assert!(text.contains("const { one: first, Two: Two } = module1;\nconst { one: one } = module0;"), "{text}");
        assert!(!text.contains("import ") && !text.contains("export "), "{text}");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for source in [
            "import all from './a.js';",
            "import * as all from './a.js';",
            "import './a.js';",
            "export default 1;",
            "export let changing = 1;",
            "export { own };",
            "import { never",
            "import { self } from './app.js';",
        ] {
            let read = |path: &str| if path == "web/app.js" { Ok(source.to_owned()) } else { Ok(String::new()) };
            assert!(bundle("web/app.js", &read).is_err(), "{source}");
        }
    }

    #[test]
    fn the_policy_names_the_sockets_of_a_plain_host_alone() {
        let of = |host: &str| policy(Some(&host.parse().expect("a header"))).to_str().expect("text").to_owned();
        assert!(of("haus.example:8080").ends_with("connect-src 'self' ws://haus.example:8080 wss://haus.example:8080"));
        assert_eq!(of("evil; script-src *"), POLICY);
        assert_eq!(policy(None), POLICY);
    }
}
