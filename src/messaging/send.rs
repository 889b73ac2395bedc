//! One send: its checks before the database, the call of `engine.append_messages` for a whole batch, and what became of
//! each row.

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::render::{Created, LeanMessage, update};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::time::Timestamp;
use crate::protocol::types::{CONTENT_CHARS, MessageType, SendBody, SendOk};
use crate::telemetry::metrics;
use crate::text;
use crate::updates::{StreamId, Touch, Update, UpdateKind};

/// Most people one message may mention.
pub const MENTIONS: usize = 50;
/// Longest `mediaUrl`, bytes.
pub const MEDIA_URL_BYTES: usize = 2048;

/// A send that passed every check that needs no database.
#[derive(Debug, Clone)]
pub struct SendRequest {
    pub thread_id: Uuid,
    pub actor_id: Uuid,
    pub nonce: Uuid,
    pub body: SendBody,
    /// Keyed digest of the body; a repeated nonce must come with the same.
    pub mac: [u8; 16],
}

/// Makes requests out of bodies; holds the key of body digests.
pub struct SendChecker {
    key: hmac::Key,
}

impl SendChecker {
    pub fn new(mac_key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, mac_key) }
    }

    /// Checks sizes and shape. `invalid` names the field.
    pub fn check(&self, thread_id: Uuid, actor_id: Uuid, body: SendBody) -> Result<SendRequest, Refusal> {
        let invalid = |text: &str| Err(Refusal::new(ErrorCode::Invalid, text));
        let Some(nonce) = body.nonce else { return invalid("nonce: a UUID made by the client is required") };
        let content = body.content.as_deref().unwrap_or_default();
        if content.len() > CONTENT_CHARS && content.chars().count() > CONTENT_CHARS {
            return Err(Refusal::new(ErrorCode::TooLarge, format!("content: at most {CONTENT_CHARS} characters")));
        }
        if content.contains('\0') {
            return invalid("content: must not contain U+0000");
        }
        if text::is_invisible(content) && (body.media_url.is_none() || !content.is_empty()) {
            return invalid("content: a message needs text that can be seen, or mediaUrl");
        }
        if body.media_url.is_some() != body.media_type.is_some() {
            return invalid("mediaType: goes with mediaUrl, and only with it");
        }
        if let Some(url) = body.media_url.as_deref() {
            text::link(url, MEDIA_URL_BYTES).map_err(|fault| fault.of("mediaUrl"))?;
        }
        if body.mentions.len() > MENTIONS {
            return invalid("mentions: at most 50");
        }
        let mac = self.digest(&body);
        Ok(SendRequest { thread_id, actor_id, nonce, body, mac })
    }

    /// HMAC-SHA-256 over the length-prefixed fields, cut to 128 bits.
    fn digest(&self, body: &SendBody) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        let mut field = |bytes: Option<&[u8]>| {
            context.update(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_be_bytes());
            context.update(bytes.unwrap_or_default());
        };
        field(body.content.as_deref().map(str::as_bytes));
        field(body.media_url.as_deref().map(str::as_bytes));
        field(body.media_type.map(|kind| kind.as_str().as_bytes()));
        field(body.reply_to_id.as_ref().map(|id| id.as_bytes().as_slice()));
        for mention in &body.mentions {
            field(Some(mention.as_bytes()));
        }
        let tag = context.sign();
        let mut mac = [0; 16];
        mac.copy_from_slice(&tag.as_ref()[..16]);
        mac
    }
}

/// What became of one row of a batch.
pub type Outcome = Result<SendOk, Refusal>;

/// Commits a batch in one call (one round trip, one transaction). Outcomes stand in the order of `batch`; updates in
/// the order of their commit. No (thread, actor, nonce) may stand in `batch` twice.
///
/// Nonces are nearly always new. So the call first leaves them to the unique index, and only where that refuses (nothing
/// is committed then) is it repeated with every nonce looked up. Not for use inside a transaction: [`append_within`].
pub async fn append(
    connection: &mut PgConnection,
    batch: &[SendRequest],
) -> Result<(Vec<Outcome>, Vec<Update>), sqlx::Error> {
    match call(connection, batch, true).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            metrics().statements.with_label_values(&["send_again"]).inc();
            call(connection, batch, false).await
        }
        done => done,
    }
}

/// The same as a part of the caller's transaction, with every nonce looked up.
pub async fn append_within(
    transaction: &mut PgConnection,
    batch: &[SendRequest],
) -> Result<(Vec<Outcome>, Vec<Update>), sqlx::Error> {
    call(transaction, batch, false).await
}

async fn call(
    connection: &mut PgConnection,
    batch: &[SendRequest],
    nonces_are_new: bool,
) -> Result<(Vec<Outcome>, Vec<Update>), sqlx::Error> {
    let column = |pick: fn(&SendRequest) -> Uuid| batch.iter().map(pick).collect::<Vec<_>>();
    let text = |pick: fn(&SendRequest) -> Option<&str>| batch.iter().map(pick).collect::<Vec<_>>();
    let mentions: Vec<Option<String>> = batch.iter().map(|row| mention_literal(&row.body.mentions)).collect();
    let rows = sqlx::query(
        "SELECT ord, code, seq, no, message_id, sent_at, wait_ms \
         FROM engine.append_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, $11)",
    )
    .bind(column(|row| row.thread_id))
    .bind(column(|row| row.actor_id))
    .bind(column(|row| row.nonce))
    .bind(batch.iter().map(|row| row.mac.as_slice()).collect::<Vec<_>>())
    .bind(text(|row| row.body.content.as_deref()))
    .bind(text(|row| row.body.media_url.as_deref()))
    .bind(text(|row| row.body.media_type.map(|kind| kind.as_str())))
    .bind(batch.iter().map(|row| row.body.reply_to_id).collect::<Vec<_>>())
    .bind(mentions)
    .bind(batch.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind(nonces_are_new)
    .fetch_all(connection)
    .await?;

    let mut outcomes: Vec<Outcome> =
        batch.iter().map(|_| Err(Refusal::new(ErrorCode::Internal, "no outcome"))).collect();
    let mut updates = Vec::with_capacity(rows.len());
    for row in &rows {
        let index = (row.try_get::<i32, _>(0)? - 1) as usize;
        let code: &str = row.try_get(1)?;
        let (Some(request), Some(slot)) = (batch.get(index), outcomes.get_mut(index)) else { continue };
        *slot = match code {
            "ok" | "dup" => {
                let ok = SendOk {
                    message_id: row.try_get(4)?,
                    seq: row.try_get(2)?,
                    no: row.try_get(3)?,
                    sent_at: row.try_get::<DateTime<Utc>, _>(5)?.into(),
                    dup: code == "dup",
                };
                if !ok.dup {
                    updates.push(created(request, &ok));
                }
                Ok(ok)
            }
            refused => Err(refusal(refused, row.try_get(6)?)),
        };
    }
    Ok((outcomes, updates))
}

/// The update of a committed send.
fn created(request: &SendRequest, ok: &SendOk) -> Update {
    let body = &request.body;
    let message = LeanMessage {
        id: ok.message_id,
        no: ok.no as u64,
        sender_id: request.actor_id,
        kind: if body.media_url.is_some() { MessageType::Media } else { MessageType::Text },
        content: body.content.as_deref(),
        media_url: body.media_url.as_deref(),
        media_type: body.media_type,
        reply_to_id: body.reply_to_id,
        mentions: &body.mentions,
        nonce: Some(request.nonce),
        is_edited: false,
        is_deleted: false,
        is_pinned: false,
        rev: 1,
        sent_at: ok.sent_at,
        edited_at: None,
    };
    let (stream, seq, kind) = (StreamId::Thread(request.thread_id), ok.seq as u64, UpdateKind::MessageCreated);
    let frame = update(kind, stream, seq, Timestamp(ok.sent_at.0), &Created { message });
    metrics().updates_encoded.inc();
    Update { stream, seq, kind, touch: Touch::None, frame }
}

/// Above the rate, and not a repeat as far as one looked.
pub fn rate_limited(wait_ms: u32) -> Refusal {
    Refusal::new(ErrorCode::RateLimited, "too many messages; slow down").retry_after(wait_ms.max(1))
}

pub(super) fn conflict() -> Refusal {
    Refusal::new(ErrorCode::NonceConflict, "this nonce was used for another message")
}

pub(super) fn no_thread() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "no such thread")
}

fn refusal(code: &str, wait_ms: Option<i32>) -> Refusal {
    let make = |code, text: &str| Refusal::new(code, text);
    match code {
        "nonce_conflict" => conflict(),
        "not_found" => no_thread(),
        "forbidden" => make(ErrorCode::Forbidden, "this account may not write"),
        "blocked" => make(ErrorCode::Blocked, "no messages pass between these two"),
        "thread_archived" => make(ErrorCode::ThreadArchived, "the thread is archived"),
        "read_only" => make(ErrorCode::ReadOnly, "only moderators write here"),
        "slow_mode" => make(ErrorCode::SlowMode, "slow mode: wait before the next message")
            .retry_after(wait_ms.unwrap_or(1000).max(1) as u32),
        "invalid_reply" => make(ErrorCode::NotFound, "replyToId: no such message in this thread"),
        "invalid_mention" => make(ErrorCode::NotFound, "mentions: only active members of the thread"),
        _ => make(ErrorCode::Internal, "the send was refused"),
    }
}

/// A Postgres array literal of ids; NULL where there are none.
fn mention_literal(ids: &[Uuid]) -> Option<String> {
    if ids.is_empty() {
        return None;
    }
    let list: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    Some(format!("{{{}}}", list.join(",")))
}

#[cfg(test)]
mod tests {
    use super::{SendChecker, mention_literal};
    use crate::protocol::codes::ErrorCode;
    use crate::protocol::types::{MediaType, SendBody};
    use uuid::Uuid;

    fn body(content: &str) -> SendBody {
        SendBody { content: Some(content.into()), nonce: Some(Uuid::now_v7()), ..SendBody::default() }
    }

    #[test]
    fn bad_bodies_are_refused_by_name() {
        let checker = SendChecker::new(&[7; 32]);
        let check =
            |body| checker.check(Uuid::nil(), Uuid::nil(), body).map_err(|refusal| (refusal.code, refusal.message));
        let expect = |body, code, field: &str| {
            let (got, text) = check(body).expect_err("refused");
            assert_eq!(got, code, "{text}");
            assert!(text.starts_with(field), "{text}");
        };
        expect(body("  \n"), ErrorCode::Invalid, "content");
        expect(body("a\0b"), ErrorCode::Invalid, "content");
        expect(body(&"ü".repeat(4001)), ErrorCode::TooLarge, "content");
        expect(SendBody { nonce: None, ..body("x") }, ErrorCode::Invalid, "nonce");
        expect(SendBody { media_type: Some(MediaType::Image), ..body("x") }, ErrorCode::Invalid, "mediaType");
        expect(SendBody { mentions: vec![Uuid::nil(); 51], ..body("x") }, ErrorCode::Invalid, "mentions");
        assert!(check(body(&"ü".repeat(4000))).is_ok());
    }

    #[test]
    fn digests_tell_bodies_apart() {
        let checker = SendChecker::new(&[7; 32]);
        let mac = |body| checker.check(Uuid::nil(), Uuid::nil(), body).expect("valid").mac;
        assert_eq!(mac(body("x")), mac(body("x")));
        assert_ne!(mac(body("x")), mac(body("y")));
        assert_ne!(mac(body("x")), mac(SendBody { reply_to_id: Some(Uuid::nil()), ..body("x") }));
        assert_ne!(
            mac(body("x")),
            SendChecker::new(&[8; 32]).check(Uuid::nil(), Uuid::nil(), body("x")).expect("valid").mac
        );
    }

    #[test]
    fn mention_literals_are_arrays() {
        assert_eq!(mention_literal(&[]), None);
        assert_eq!(mention_literal(&[Uuid::nil()]).as_deref(), Some("{00000000-0000-0000-0000-000000000000}"));
    }
}
