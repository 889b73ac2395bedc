//! Replies to the client's commands, and history pages.

use std::time::Instant;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Body, Command, Fill, Member, RETRY_AFTER};
use crate::checker::record::{PageMessage, Positions, Record, StreamId};
use crate::wire::{AuthOk, Frame, Message, Page, Refusal, SendOk};

/// Messages asked for at once (the protocol's most).
const PAGE_LIMIT: u64 = 100;
/// A message number above every other that JSON carries exactly: asks for the newest page.
const BEYOND_ALL: u64 = 1 << 53;

impl Member {
    pub(super) fn on_reply(&mut self, id: u64, frame: &Frame<'_>) {
        let Some((command, _)) = self.pending.remove(&id) else { return };
        let ok = frame.ok.map(RawValue::get);
        match command {
            Command::Auth { resume } => self.on_auth(resume, ok),
            Command::Send(body) => self.on_send(body, ok, frame.err.as_ref()),
            Command::Fill { fill, read } => self.on_fill(fill, read, ok, frame.err.as_ref()),
            // The answer proper is `resumed`.
            Command::Sync if ok.is_some() => {}
            Command::Sync => self.catching_up = self.catching_up.saturating_sub(1),
        }
    }

    fn on_auth(&mut self, resume: Positions, ok: Option<&str>) {
        let Some(Ok(reply)) = ok.map(serde_json::from_str::<AuthOk>) else {
            self.auth_at = Some(Instant::now() + RETRY_AFTER);
            return;
        };
        self.epoch = reply.epoch;
        let mut streams = reply.streams;
        streams.extend(reply.threads.iter().map(|row| (StreamId::Thread(row.id), row.seq)));
        for (stream, seq) in &streams {
            self.mirror.listed(*stream, *seq);
        }
        self.is_authenticated = true;
        self.catching_up = u32::from(!resume.is_empty());
        self.recorder.write(&Record::Auth { client: self.identity.client, resume, streams });
    }

    fn on_send(&mut self, body: Body, ok: Option<&str>, refusal: Option<&Refusal>) {
        let client = self.identity.client;
        let (thread, nonce, hash) = (body.thread, body.nonce, body.hash);
        if let Some(Ok(reply)) = ok.map(serde_json::from_str::<SendOk>) {
            self.recorder.write(&Record::Ack { client, thread, nonce, hash, seq: reply.seq, dup: reply.dup });
            if !reply.dup {
                self.repeat_some(body);
            }
        } else if let Some(refusal) = refusal.filter(|refusal| !refusal.retryable) {
            self.recorder.write(&Record::Nack { client, thread, nonce, hash, code: refusal.code.clone() });
        } else {
            self.later.push_back((Instant::now() + RETRY_AFTER, body));
        }
    }

    fn on_fill(&mut self, mut fill: Fill, read: u64, ok: Option<&str>, refusal: Option<&Refusal>) {
        let Some(Ok(page)) = ok.map(serde_json::from_str::<Page<'_>>) else {
            if refusal.is_some_and(|refusal| refusal.retryable) {
                self.fills.push_back(fill);
            }
            return;
        };
        if fill.before.take().is_none() {
            self.mirror.raise(StreamId::Thread(fill.thread), page.seq);
        }
        self.took_page(fill.thread, read, &page, fill.down_to);
    }

    /// Records a page and asks for the one before it while `down_to` is not reached.
    pub(super) fn took_page(&mut self, thread: Uuid, read: u64, page: &Page<'_>, down_to: u64) {
        let messages: Vec<PageMessage> = page.messages.iter().map(Message::on_page).collect();
        let oldest = messages.iter().min_by_key(|message| message.seq).map(|message| (message.seq, message.no));
        let client = self.identity.client;
        self.recorder.write(&Record::Page { client, thread, read, newest: false, messages });
        if let Some((seq, no)) = oldest
            && seq > down_to + 1
            && no > 1
        {
            self.fills.push_back(Fill { thread, down_to, before: Some(no) });
        }
    }

    pub(super) fn read_history(&mut self, now: Instant, out: &mut Vec<Value>) {
        if self.pending.values().any(|(command, _)| matches!(command, Command::Fill { .. })) {
            return;
        }
        let Some(fill) = self.fills.pop_front() else { return };
        let (client, thread, read) = (self.identity.client, fill.thread, self.recorder.next_read());
        self.recorder.write(&Record::Read { client, thread, read });
        let before = fill.before.unwrap_or(BEYOND_ALL);
        let d = json!({"threadId": thread, "before": before, "limit": PAGE_LIMIT});
        out.push(self.command(now, "history", &d, Command::Fill { fill, read }));
    }
}
