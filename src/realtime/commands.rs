//! Commands of clients: parsing, what each needs before it may run, and the order they keep. What touches data goes to
//! the `Backend`; its answer comes back through the inbox.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::inbox::{SessionAddr, ToWorker};
use super::reads::{Read, What};
use super::session::{COMMANDS_PER_10S, OPEN_THREADS, Pending, Phase, REFRESHES_PER_10S, Session};
use super::worker::Worker;
use super::{CommandName, SocketReply};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::time::Timestamp;
use crate::protocol::types::{MediaType, SendBody};
use crate::protocol::{CloseCode, json, reply};

/// Frames in one batch.
const BATCH_FRAMES: usize = 64;
/// What is repeated of a client's words in a refusal, characters.
const CLIPPED_CHARS: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    id: Option<u64>,
    cmd: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    d: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SendD {
    thread_id: Uuid,
    nonce: Option<Uuid>,
    content: Option<String>,
    media_url: Option<String>,
    media_type: Option<MediaType>,
    reply_to_id: Option<Uuid>,
    #[serde(default)]
    mentions: Vec<Uuid>,
}

/// The thread of a command whose body the backend reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfThread {
    thread_id: Uuid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CloseD {
    thread_id: Uuid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FocusD {
    #[serde(rename = "threadId")]
    _thread_id: Option<Uuid>,
    #[serde(rename = "active")]
    _active: Option<bool>,
}

impl Worker {
    /// One text message: a frame, or a batch of at most 64.
    pub(super) fn text(&mut self, slot: u32, session: &mut Session, payload: &[u8]) {
        if std::str::from_utf8(payload).is_err() {
            return self.close(slot, session, CloseCode::InvalidUtf8, None);
        }
        let batch = payload.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        if !batch {
            return match json::from_slice::<Frame<'_>>(payload) {
                Ok(frame) => self.command(slot, session, &frame),
                Err(error) => self.malformed(slot, session, &error.to_string()),
            };
        }
        match serde_json::from_slice::<Vec<&RawValue>>(payload) {
            Ok(frames) if frames.len() > BATCH_FRAMES => {
                self.malformed(slot, session, "a batch holds at most 64 frames");
            }
            // It carries nothing, like an empty fragment.
            Ok(frames) if frames.is_empty() => {
                self.is_flooding(slot, session);
            }
            Ok(frames) => {
                for raw in frames {
                    if self.is_too_fast(slot, session) {
                        return;
                    }
                    match json::from_str::<Frame<'_>>(raw.get()) {
                        Ok(frame) => self.command(slot, session, &frame),
                        Err(error) => self.malformed(slot, session, &error.to_string()),
                    }
                }
            }
            Err(error) => self.malformed(slot, session, &error.to_string()),
        }
    }

    fn malformed(&mut self, slot: u32, session: &mut Session, why: &str) {
        if session.offend(self.now_ms) {
            return self.close(slot, session, CloseCode::Protocol, None);
        }
        let refusal = Refusal::new(ErrorCode::Invalid, format!("not a frame: {}", clip(why)));
        self.refuse(slot, session, None, "", &refusal);
    }

    pub(super) fn refuse(&mut self, slot: u32, session: &mut Session, id: Option<u64>, cmd: &str, refusal: &Refusal) {
        session.push(reply::err(id, &clip(cmd), refusal));
        self.mark_dirty_session(slot, session);
    }

    fn command(&mut self, slot: u32, session: &mut Session, frame: &Frame<'_>) {
        if session.phase == Phase::Closing {
            return;
        }
        let d = frame.d.map_or("{}", RawValue::get);
        let (id, cmd) = (frame.id, frame.cmd.as_ref());
        if cmd != "message.send" && self.is_over_rate(session, cmd) {
            let refusal = Refusal::new(ErrorCode::RateLimited, "too many commands; slow down").retry_after(5_000);
            return self.refuse(slot, session, id, cmd, &refusal);
        }
        if cmd == "auth" {
            return self.auth(slot, session, id, d);
        }
        if session.phase != Phase::Live {
            return self.refuse(slot, session, id, cmd, &Refusal::new(ErrorCode::Unauthenticated, "send auth first"));
        }
        let result = match cmd {
            "message.send" => parse::<SendD>(d).map(|send| self.send(slot, session, id, send)),
            // What a client puts into a ping to tell it from others is its own.
            "ping" => parse::<serde_json::Map<String, serde_json::Value>>(d).map(|_| {
                #[derive(serde::Serialize)]
                #[serde(rename_all = "camelCase")]
                struct Pong {
                    server_time: Timestamp,
                }
                session.push(reply::ok(id, &Pong { server_time: Timestamp::now() }));
                self.mark_dirty_session(slot, session);
            }),
            "read" => self.on_thread(slot, session, id, CommandName::Read, d),
            "history" => self.on_thread(slot, session, id, CommandName::History, d),
            "thread.open" => parse::<OfThread>(d).and_then(|open| {
                let threads = session.open.get_or_insert_default();
                if !threads.contains(&open.thread_id) {
                    if threads.len() == OPEN_THREADS {
                        threads.remove(0);
                    }
                    threads.push(open.thread_id);
                }
                self.on_thread(slot, session, id, CommandName::ThreadOpen, d)
            }),
            "thread.close" => parse::<CloseD>(d).map(|close| {
                if let Some(open) = &mut session.open {
                    open.retain(|thread| *thread != close.thread_id);
                }
                session.push(reply::ok(id, &serde_json::Map::new()));
                self.mark_dirty_session(slot, session);
            }),
            "threads.list" => self.start(slot, session, id, CommandName::ThreadsList, d, None),
            "profiles.get" => self.start(slot, session, id, CommandName::ProfilesGet, d, None),
            "sync" => self.sync(slot, session, id, d),
            // Which conversation is on screen: nothing acts on it yet, and no reply is owed.
            "focus" => parse::<FocusD>(d).map(drop),
            _ => Err(Refusal::new(ErrorCode::UnknownCmd, format!("unknown command {}", clip(cmd)))),
        };
        if let Err(refusal) = result {
            self.refuse(slot, session, id, cmd, &refusal);
        }
    }

    /// Counts a command that is no send, before anything is done for it.
    fn is_over_rate(&self, session: &mut Session, cmd: &str) -> bool {
        session.commands = session.commands.saturating_add(1);
        let refreshes = cmd == "auth" && session.phase == Phase::Live;
        session.refreshes = session.refreshes.saturating_add(u16::from(refreshes));
        self.shared.options.limits_on
            && (session.commands > COMMANDS_PER_10S || (refreshes && session.refreshes > REFRESHES_PER_10S))
    }

    fn send(&mut self, slot: u32, session: &mut Session, id: Option<u64>, send: SendD) {
        let body = SendBody {
            content: send.content,
            media_url: send.media_url,
            media_type: send.media_type,
            reply_to_id: send.reply_to_id,
            mentions: send.mentions,
            nonce: send.nonce,
        };
        session.in_work += 1;
        let work = session.work.get_or_insert_default().entry(send.thread_id).or_default();
        if work.busy || !work.waiting.is_empty() {
            let pending = Pending::Send { id, body: Box::new(body) };
            session.waiting_bytes = session.waiting_bytes.saturating_add(pending.bytes() as u32);
            work.waiting.push_back(pending);
            return;
        }
        work.sends += 1;
        let to = self.addr(slot, session);
        self.shared.backend.send(
            session.profile_id,
            send.thread_id,
            body,
            SocketReply { to, id, thread_id: send.thread_id },
        );
    }

    fn on_thread(
        &mut self,
        slot: u32,
        session: &mut Session,
        id: Option<u64>,
        name: CommandName,
        d: &str,
    ) -> Result<(), Refusal> {
        let thread_id = parse::<OfThread>(d)?.thread_id;
        self.start(slot, session, id, name, d, Some(thread_id))
    }

    /// Starts a command now, or after those of the same thread that came before it.
    fn start(
        &mut self,
        slot: u32,
        session: &mut Session,
        id: Option<u64>,
        name: CommandName,
        d: &str,
        thread: Option<Uuid>,
    ) -> Result<(), Refusal> {
        session.in_work += 1;
        if let Some(thread) = thread {
            let work = session.work.get_or_insert_default().entry(thread).or_default();
            if work.busy || work.sends > 0 || !work.waiting.is_empty() {
                let pending = Pending::Other { id, name, d: d.to_owned() };
                session.waiting_bytes = session.waiting_bytes.saturating_add(pending.bytes() as u32);
                work.waiting.push_back(pending);
                return Ok(());
            }
            work.busy = true;
        }
        self.begin(slot, session, id, name, d, thread);
        Ok(())
    }

    fn begin(
        &mut self,
        slot: u32,
        session: &mut Session,
        id: Option<u64>,
        name: CommandName,
        d: &str,
        thread: Option<Uuid>,
    ) {
        if name != CommandName::Read {
            return self.queue_read(slot, session, Read::new(id, What::Command(name), d, thread));
        }
        let d = d.to_owned();
        let address = session.guard.address();
        let (to, actor_id, shared) = (self.addr(slot, session), session.profile_id, self.shared.clone());
        self.shared.runtime.spawn(async move {
            let frame = match shared.backend.command(actor_id, address, name, &d).await {
                Ok(value) => reply::ok(id, &value),
                Err(refusal) => reply::err(id, name.wire_name(), &refusal),
            };
            shared.to_worker(to, ToWorker::Reply { to, frame, thread });
        });
    }

    /// A command of a thread has finished: what waited for it may start.
    pub(super) fn work_done(&mut self, slot: u32, session: &mut Session, thread_id: Uuid, is_send: bool) {
        let Some(all) = session.work.as_mut() else { return };
        let Some(work) = all.get_mut(&thread_id) else { return };
        if is_send {
            work.sends = work.sends.saturating_sub(1);
        } else {
            work.busy = false;
        }
        let mut sends = Vec::new();
        let mut other = None;
        while !work.busy {
            let next = work.waiting.pop_front();
            let bytes = next.as_ref().map_or(0, Pending::bytes) as u32;
            session.waiting_bytes = session.waiting_bytes.saturating_sub(bytes);
            match next {
                Some(Pending::Send { id, body }) => {
                    work.sends += 1;
                    sends.push((id, body));
                }
                Some(Pending::Other { id, name, d }) if work.sends == 0 => {
                    work.busy = true;
                    other = Some((id, name, d));
                }
                Some(waits) => {
                    session.waiting_bytes = session.waiting_bytes.saturating_add(bytes);
                    work.waiting.push_front(waits);
                    break;
                }
                None => break,
            }
        }
        if !work.busy && work.sends == 0 && work.waiting.is_empty() {
            all.remove(&thread_id);
            if all.is_empty() {
                session.work = None;
            }
        }
        let to = self.addr(slot, session);
        for (id, body) in sends {
            self.shared.backend.send(session.profile_id, thread_id, *body, SocketReply { to, id, thread_id });
        }
        if let Some((id, name, d)) = other {
            self.begin(slot, session, id, name, &d, Some(thread_id));
        }
    }
}

impl Worker {
    /// Asks for nothing, answers a command: the reply goes out, what waited for it goes on.
    pub(super) fn reply(&mut self, to: SessionAddr, frame: Bytes, thread: Option<Uuid>, is_send: bool) {
        self.on(to, |worker, slot, session| {
            session.in_work = session.in_work.saturating_sub(1);
            session.push(frame);
            if let Some(thread) = thread {
                worker.work_done(slot, session, thread, is_send);
            }
        });
    }
}

impl CommandName {
    pub(super) const fn wire_name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ThreadOpen => "thread.open",
            Self::ThreadsList => "threads.list",
            Self::ProfilesGet => "profiles.get",
            Self::History => "history",
        }
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(d: &'a str) -> Result<T, Refusal> {
    // The text repeats what the client sent.
    json::from_str(d).map_err(|error| Refusal::new(ErrorCode::Invalid, format!("d: {}", clip(&error.to_string()))))
}

/// The beginning of what a client sent, to be repeated to it.
fn clip(text: &str) -> String {
    text.chars().take(CLIPPED_CHARS).collect()
}
