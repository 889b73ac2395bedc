//! The documents for machines, made once, in every encoding they are asked for.

use std::io::Write;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderMap;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::stored::{ASK, Stored};
use super::{asyncapi, router};

/// Quality and window (as a power of two) of Brotli.
const BROTLI: (u32, u32) = (9, 22);

struct Document {
    hash: String,
    plain: Vec<u8>,
    gzip: Option<Vec<u8>>,
    brotli: Option<Vec<u8>>,
}

static OPENAPI: LazyLock<Document> = LazyLock::new(|| Document::of(&router::openapi()));
static ASYNCAPI: LazyLock<Document> = LazyLock::new(|| Document::of(&asyncapi::document()));

/// `/openapi.json`.
pub fn openapi(headers: &HeaderMap) -> Response {
    OPENAPI.answer(headers)
}

/// `/asyncapi.json`.
pub fn asyncapi(headers: &HeaderMap) -> Response {
    ASYNCAPI.answer(headers)
}

impl Document {
    fn of<T: Serialize>(value: &T) -> Self {
        let plain = serde_json::to_vec(value).unwrap_or_default();
        let hash = hex::encode(&digest(&SHA256, &plain).as_ref()[..8]);
        Self { hash, gzip: gzip(&plain).ok(), brotli: brotli(&plain).ok(), plain }
    }

    fn answer(&'static self, headers: &HeaderMap) -> Response {
        let Self { hash, plain, gzip, brotli } = self;
        let stored =
            Stored { content_type: "application/json", hash, plain, gzip: gzip.as_deref(), brotli: brotli.as_deref() };
        stored.answer(headers, ASK)
    }
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}

fn brotli(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, BROTLI.0, BROTLI.1);
    encoder.write_all(plain)?;
    encoder.flush()?;
    drop(encoder);
    Ok(out)
}
