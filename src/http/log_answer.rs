//! The answer of `GET …/updates`, written piece by piece as its reader takes it: however much is asked for, and however
//! slowly it is read, a connection holds little of it.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use sqlx::PgPool;
use uuid::Uuid;

use super::problem::Problem;
use crate::messaging::log::{VisiblePiece, visible_updates};
use crate::protocol::codes::Refusal;

/// About the most bytes of one piece: hyper holds one that is written and one that waits.
const PIECE_BYTES: i64 = 32 << 10;
/// Most updates of one piece.
const PIECE_UPDATES: i64 = 128;

/// What is still to be read for one answer.
#[derive(Debug, Clone, Copy)]
pub struct LogReader {
    pub actor: Uuid,
    pub thread: Uuid,
    /// The position reached.
    pub since: i64,
    /// Updates that may follow.
    pub left: i64,
}

impl LogReader {
    /// The next piece, and whether it is the last.
    async fn next(&mut self, pool: &PgPool) -> Result<(VisiblePiece, bool), Refusal> {
        let limit = self.left.min(PIECE_UPDATES);
        let piece = visible_updates(pool, self.actor, self.thread, self.since, limit, PIECE_BYTES).await?;
        self.since = piece.last;
        self.left -= piece.updates.len() as i64;
        let is_last = piece.updates.is_empty() || self.left <= 0 || piece.last >= piece.head;
        Ok((piece, is_last))
    }
}

/// `{"updates":[…],"head":…,"epoch":…}`. The first piece is read before the answer begins, so that who may not see the
/// thread is told so; should the database fail later, the connection is cut off, and the reader sees no whole answer.
///
/// # Errors
/// `not_found`, `unavailable`.
pub async fn stream(pool: PgPool, mut reader: LogReader, epoch: String) -> Result<Response, Problem> {
    let (first, is_last) = reader.next(&pool).await?;
    let head = first.head;
    let begin = text(&first, r#"{"updates":["#, is_last.then(|| end(head, &epoch)));
    let state = (!is_last).then_some((pool, reader, epoch, first.updates.is_empty()));
    let rest = stream::unfold(state, move |state| async move {
        let (pool, mut reader, epoch, is_first) = state?;
        match reader.next(&pool).await {
            Ok((piece, is_last)) => {
                let comma = if is_first || piece.updates.is_empty() { "" } else { "," };
                let bytes = text(&piece, comma, is_last.then(|| end(head, &epoch)));
                Some((Ok(bytes), (!is_last).then_some((pool, reader, epoch, false))))
            }
            Err(refusal) => Some((Err(io::Error::other(refusal.message)), None)),
        }
    });
    let whole = stream::StreamExt::chain(stream::iter([Ok(begin)]), rest);
    let mut response = Response::new(Body::from_stream(whole));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn text(piece: &VisiblePiece, before: &str, after: Option<String>) -> Bytes {
    let updates: Vec<&str> = piece.updates.iter().map(|update| update.get()).collect();
    format!("{before}{}{}", updates.join(","), after.unwrap_or_default()).into()
}

fn end(head: i64, epoch: &str) -> String {
    format!(r#"],"head":{head},"epoch":{}}}"#, serde_json::json!(epoch))
}
