//! What the server says to a client, and what that changes.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Body, Client, Command, Fill, RETRY_MS};
use crate::checker::record::{PageMessage, Positions, Record, StreamId};

/// What the server says.
#[derive(Deserialize)]
struct Frame<'a> {
    id: Option<u64>,
    up: Option<&'a str>,
    s: Option<&'a str>,
    seq: Option<u64>,
    #[serde(borrow)]
    ok: Option<&'a RawValue>,
    err: Option<Refused>,
    #[serde(borrow)]
    d: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
    retryable: bool,
}

#[derive(Deserialize)]
struct AuthOk {
    epoch: String,
    streams: Positions,
    threads: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: Uuid,
    seq: u64,
}

#[derive(Deserialize)]
struct Rows {
    threads: Vec<Row>,
}

#[derive(Deserialize)]
struct Resumed {
    streams: Positions,
    reset: Vec<StreamId>,
    denied: Vec<StreamId>,
}

#[derive(Deserialize)]
struct SendOk {
    seq: u64,
    dup: bool,
}

#[derive(Deserialize)]
struct Created {
    nonce: Uuid,
    hash: u64,
}

#[derive(Deserialize)]
struct OfThread {
    thread: Uuid,
    seq: u64,
}

#[derive(Deserialize)]
struct Page {
    seq: u64,
    messages: Vec<PageMessage>,
}

fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

impl Client {
    pub(super) fn on_text(&mut self, payload: &[u8]) {
        let frame: Frame<'_> = serde_json::from_slice(payload).expect("a frame of the protocol");
        match (frame.up, frame.id) {
            (Some("resumed"), _) => self.on_resumed(read(frame.d).expect("resumed")),
            (Some(up), _) => {
                if let (Some(stream), Some(seq)) = (frame.s.and_then(StreamId::parse), frame.seq) {
                    self.on_update(up, stream, seq, frame.d);
                }
            }
            (None, Some(id)) => self.on_reply(id, &frame),
            (None, None) => panic!("a frame without an id: {}", String::from_utf8_lossy(payload)),
        }
    }

    fn on_update(&mut self, up: &str, stream: StreamId, seq: u64, d: Option<&RawValue>) {
        let client = self.handle.client;
        if up == "snapshot" {
            self.world.record(Record::Snapshot { client, stream, seq });
            let held = self.mirror.at(stream);
            self.mirror.go_on_from(stream, seq);
            match stream {
                StreamId::User => {
                    let rows: Rows = read(d).expect("a snapshot");
                    rows.threads.into_iter().for_each(|row| self.on_added(row.id, row.seq));
                }
                StreamId::Thread(thread) => {
                    let page = read(d).expect("a snapshot");
                    self.took_page(thread, self.next_id, page, held.unwrap_or(seq), false);
                }
            }
            return;
        }
        let created: Option<Created> = if up == "message.created" { read(d) } else { None };
        let (nonce, hash) = created.map_or((None, 0), |created| (Some(created.nonce), created.hash));
        let (kind, t_us) = (up.to_owned(), self.world.t_us());
        self.world.record(Record::Deliver { client, stream, seq, kind, nonce, hash, t_us });
        // What was asked for once more does nothing.
        let is_news = self.mirror.at(stream).is_none_or(|at| seq > at);
        self.mirror.deliver(stream, seq);
        if up == "thread.added" && is_news {
            let OfThread { thread, seq } = read(d).expect("an added thread");
            self.on_added(thread, seq);
        }
        if up == "thread.removed" && is_news {
            let OfThread { thread, seq } = read(d).expect("a removed thread");
            self.world.record(Record::Removed { client, thread, seq });
            if self.mirror.removed(thread, seq) {
                self.fills.retain(|fill| fill.thread != thread);
            }
        }
    }

    fn on_added(&mut self, thread: Uuid, seq: u64) {
        self.mirror.added(thread, seq);
        self.world.record(Record::Added { client: self.handle.client, thread, seq });
    }

    fn on_resumed(&mut self, resumed: Resumed) {
        for (stream, head) in &resumed.streams {
            self.mirror.raise(*stream, *head);
        }
        for stream in &resumed.reset {
            if let (StreamId::Thread(thread), Some(down_to)) = (*stream, self.mirror.at(*stream)) {
                self.fills.push_back(Fill { thread, down_to, before: None });
            }
            self.mirror.forget(*stream);
        }
        for stream in &resumed.denied {
            self.mirror.forget(*stream);
        }
        self.catching_up = self.catching_up.saturating_sub(1);
        self.gap_since = None;
        let Resumed { streams, reset, denied } = resumed;
        self.world.record(Record::Resumed { client: self.handle.client, streams, reset, denied });
    }

    fn on_reply(&mut self, id: u64, frame: &Frame<'_>) {
        let now_ms = self.world.now_ms();
        let Some((command, _)) = self.pending.remove(&id) else { return };
        match command {
            Command::Auth { resume } => match read::<AuthOk>(frame.ok) {
                Some(ok) => self.on_auth(resume, ok),
                None => self.auth_at_ms = Some(now_ms + RETRY_MS),
            },
            Command::Send(body) => self.on_sent(now_ms, body, frame),
            Command::Fill { fill, read: number } => match read::<Page>(frame.ok) {
                Some(page) => {
                    if fill.before.is_none() && fill.down_to < u64::MAX - 1 {
                        self.mirror.raise(StreamId::Thread(fill.thread), page.seq);
                    }
                    self.took_page(fill.thread, number, page, fill.down_to, fill.before.is_none());
                }
                None => self.fills.push_back(fill),
            },
            // The answer proper is `resumed`.
            Command::Sync if frame.ok.is_some() => {}
            Command::Sync => self.catching_up = self.catching_up.saturating_sub(1),
        }
    }

    fn on_auth(&mut self, resume: Positions, ok: AuthOk) {
        self.epoch = ok.epoch;
        let mut streams = ok.streams;
        streams.extend(ok.threads.iter().map(|row| (StreamId::Thread(row.id), row.seq)));
        streams.iter().for_each(|(stream, seq)| self.mirror.listed(*stream, *seq));
        self.is_authenticated = true;
        self.catching_up = u32::from(!resume.is_empty());
        self.world.record(Record::Auth { client: self.handle.client, resume, streams });
    }

    fn on_sent(&mut self, now_ms: u64, body: Body, frame: &Frame<'_>) {
        let (client, Body { thread, nonce, hash, .. }) = (self.handle.client, body);
        match (read::<SendOk>(frame.ok), &frame.err) {
            (Some(SendOk { seq, dup }), _) => {
                self.world.record(Record::Ack { client, thread, nonce, hash, seq, dup });
                if !dup && self.rng.chance(5) {
                    self.later.push_back((now_ms + self.rng.below(300), body));
                }
            }
            (None, Some(Refused { code, retryable: false })) => {
                self.world.record(Record::Nack { client, thread, nonce, hash, code: code.clone() });
            }
            _ => self.later.push_back((now_ms + RETRY_MS, body)),
        }
    }

    fn took_page(&mut self, thread: Uuid, read: u64, page: Page, down_to: u64, newest: bool) {
        let oldest = page.messages.iter().min_by_key(|message| message.seq).map(|message| (message.seq, message.no));
        let (client, messages) = (self.handle.client, page.messages);
        self.world.record(Record::Page { client, thread, read, newest, messages });
        if let Some((seq, no)) = oldest
            && seq > down_to.saturating_add(1)
            && no > 1
        {
            self.fills.push_back(Fill { thread, down_to, before: Some(no) });
        }
    }
}
