//! Makes the page's files ready to be served: script and style joined into one file each, names that carry a hash of
//! the content (so that a browser may keep them for ever), gzip and Brotli beside the plain text. `http::page` serves
//! what is written here to `assets.rs`.

#[path = "build/bundle.rs"]
mod bundle;

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const WOFF2: &str = "font/woff2";

/// Window of Brotli, as a power of two: above every file here.
const BROTLI_WINDOW: u32 = 22;

struct Made {
    /// The path it is asked for, without the hash.
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    for watched in ["build.rs", "build", "web", "clients/js"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut table = String::from("const ASSETS: &[Asset] = &[\n");
    let mut hashed = Vec::new();
    // Those that others name come first.
    for (name, content_type) in [("emoji.woff2", WOFF2), ("emoji-all.woff2", WOFF2), ("icon.svg", SVG)] {
        let body = std::fs::read(format!("web/{name}"))?;
        add(Made { path: format!("/assets/{name}"), content_type, body }, &out, &mut table, &mut hashed)?;
    }
    for (name, files) in [("style", ["web/base.css", "web/style.css"].as_slice()), ("docs", &["web/docs.css"])] {
        let parts: Vec<String> = files.iter().map(std::fs::read_to_string).collect::<Result<_, _>>()?;
        let text = named(&parts.join("\n"), &hashed);
        add(
            Made { path: format!("/assets/{name}.css"), content_type: CSS, body: text.into_bytes() },
            &out,
            &mut table,
            &mut hashed,
        )?;
    }
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let script = bundle::bundle("web/app.js", &read)?;
    add(
        Made { path: "/assets/app.js".to_owned(), content_type: JS, body: script.into_bytes() },
        &out,
        &mut table,
        &mut hashed,
    )?;

    let mut kept = Vec::new();
    for (path, file) in [("/", "web/index.html"), ("/docs", "web/docs.html")] {
        let text = named(&std::fs::read_to_string(file)?, &hashed);
        add(Made { path: path.to_owned(), content_type: HTML, body: text.into_bytes() }, &out, &mut table, &mut kept)?;
    }
    // The library as its authors wrote it, for pages of others.
    let mut modules: Vec<PathBuf> =
        std::fs::read_dir("clients/js")?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    modules.retain(|path| path.extension().is_some_and(|ending| ending == "js"));
    modules.sort();
    for module in modules {
        let name = module.file_name().and_then(|name| name.to_str()).ok_or("a file name that is no text")?;
        add(
            Made { path: format!("/js/{name}"), content_type: JS, body: std::fs::read(&module)? },
            &out,
            &mut table,
            &mut kept,
        )?;
    }
    table.push_str("];\n");
    std::fs::write(out.join("assets.rs"), table)?;
    Ok(())
}

/// Writes a file's three forms and its row in the table, and notes its name with the hash.
fn add(made: Made, out: &Path, table: &mut String, names: &mut Vec<(String, String)>) -> Result<(), Box<dyn Error>> {
    let Made { path, content_type, body } = made;
    let hash = format!("{:016x}", fnv1a(&body));
    let file = path.trim_start_matches('/').replace('/', "_");
    let file = if file.is_empty() { "index.html".to_owned() } else { file };
    let text = content_type != WOFF2;
    let forms = [
        ("plain", Some(body.clone())),
        ("gzip", text.then(|| gzip(&body)).transpose()?),
        ("brotli", text.then(|| brotli(&body)).transpose()?),
    ];
    write!(table, "    Asset {{ path: {path:?}, content_type: {content_type:?}, hash: {hash:?}")?;
    for (form, bytes) in forms {
        let Some(bytes) = bytes else {
            write!(table, ", {form}: None")?;
            continue;
        };
        let place = out.join(format!("{file}.{form}"));
        std::fs::write(&place, bytes)?;
        let included = format!("include_bytes!({:?})", place.to_str().ok_or("a build folder that is no text")?);
        if form == "plain" {
            write!(table, ", {form}: {included}")?
        } else {
            write!(table, ", {form}: Some({included})")?
        }
    }
    table.push_str(" },\n");
    if let Some((stem, ending)) = path.rsplit_once('.') {
        names.push((path.clone(), format!("{stem}.{hash}.{ending}")));
    }
    Ok(())
}

/// The text with every path in `names` replaced by the one that carries its hash.
fn named(text: &str, names: &[(String, String)]) -> String {
    names.iter().fold(text.to_owned(), |text, (path, hashed)| text.replace(path.as_str(), hashed))
}

/// FNV-1a: enough to tell versions of one file apart.
fn fnv1a(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body)?;
    encoder.finish()
}

fn brotli(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressed = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut compressed, 4096, 11, BROTLI_WINDOW);
    encoder.write_all(body)?;
    encoder.flush()?;
    drop(encoder);
    Ok(compressed)
}
