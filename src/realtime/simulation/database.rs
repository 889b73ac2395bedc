//! The database as the engine sees it: threads with their logs and stays, user streams, and the order of commits.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use bytes::Bytes;
use uuid::Uuid;

use crate::protocol::frame;
use crate::realtime::plan::Position;
use crate::updates::{StreamId, Touch, Update, UpdateKind};

/// A message as it was first sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    pub thread: Uuid,
    pub nonce: Uuid,
    pub hash: u64,
    /// Bytes that it has besides.
    pub padding: u16,
}

/// One update of a thread's log.
#[derive(Debug, Clone)]
pub enum Entry {
    Message { sender: Uuid, body: Body, no: u64 },
    Joined(Uuid),
    Left(Uuid),
}

/// Both ends inclusive.
#[derive(Debug, Clone, Copy)]
pub struct Stay {
    pub join: u64,
    pub leave: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Thread {
    pub log: Vec<Entry>,
    /// Stays of everybody who ever was in it.
    stays: BTreeMap<Uuid, Vec<Stay>>,
    nonces: HashMap<(Uuid, Uuid), u64>,
    last_no: u64,
}

#[derive(Debug, Clone, Copy)]
enum UserEntry {
    Added { thread: Uuid, seq: u64 },
    Removed { thread: Uuid, seq: u64 },
    State { thread: Uuid },
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Committed {
        seq: u64,
        no: u64,
    },
    /// The nonce had this place already.
    Repeated {
        seq: u64,
        no: u64,
    },
    Forbidden,
    Conflict,
}

/// All that is committed.
#[derive(Debug, Default)]
pub struct Database {
    pub threads: BTreeMap<Uuid, Thread>,
    users: BTreeMap<Uuid, Vec<UserEntry>>,
    commits: Vec<(StreamId, u64)>,
    pub epoch: u32,
    /// Nothing is answered.
    pub is_down: bool,
}

impl Thread {
    pub fn head(&self) -> u64 {
        self.log.len() as u64
    }

    pub fn present(&self, profile: Uuid) -> Option<Stay> {
        self.stays.get(&profile)?.last().copied().filter(|stay| stay.leave.is_none())
    }

    pub fn may_see(&self, profile: Uuid, seq: u64) -> bool {
        let stays = self.stays.get(&profile).map_or(&[][..], Vec::as_slice);
        stays.iter().any(|stay| stay.join <= seq && stay.leave.is_none_or(|leave| seq <= leave))
    }

    pub fn members(&self) -> impl Iterator<Item = Uuid> {
        self.stays.keys().copied().filter(|profile| self.present(*profile).is_some())
    }
}

impl Database {
    pub fn make_thread(&mut self, id: Uuid, members: &[Uuid]) -> Vec<Update> {
        let stays = members.iter().map(|profile| (*profile, vec![Stay { join: 0, leave: None }])).collect();
        self.threads.insert(id, Thread { stays, ..Thread::default() });
        members.iter().map(|profile| self.tell(*profile, UserEntry::Added { thread: id, seq: 0 })).collect()
    }

    /// Commits a send; its update where it is a new one.
    pub fn send(&mut self, sender: Uuid, body: Body) -> (Sent, Option<Update>) {
        let Some(thread) = self.threads.get_mut(&body.thread) else { return (Sent::Forbidden, None) };
        if let Some(seq) = thread.nonces.get(&(sender, body.nonce)) {
            return match &thread.log[*seq as usize - 1] {
                Entry::Message { body: first, no, .. } if *first == body => {
                    (Sent::Repeated { seq: *seq, no: *no }, None)
                }
                _ => (Sent::Conflict, None),
            };
        }
        if thread.present(sender).is_none() {
            return (Sent::Forbidden, None);
        }
        thread.last_no += 1;
        let no = thread.last_no;
        thread.log.push(Entry::Message { sender, body, no });
        let seq = thread.head();
        thread.nonces.insert((sender, body.nonce), seq);
        (Sent::Committed { seq, no }, Some(self.committed(StreamId::Thread(body.thread), seq)))
    }

    pub fn join(&mut self, id: Uuid, profile: Uuid) -> Vec<Update> {
        let Some(thread) = self.threads.get_mut(&id).filter(|thread| thread.present(profile).is_none()) else {
            return Vec::new();
        };
        thread.log.push(Entry::Joined(profile));
        let seq = thread.head();
        thread.stays.entry(profile).or_default().push(Stay { join: seq, leave: None });
        vec![self.committed(StreamId::Thread(id), seq), self.tell(profile, UserEntry::Added { thread: id, seq })]
    }

    pub fn leave(&mut self, id: Uuid, profile: Uuid) -> Vec<Update> {
        let Some(thread) = self.threads.get_mut(&id).filter(|thread| thread.present(profile).is_some()) else {
            return Vec::new();
        };
        thread.log.push(Entry::Left(profile));
        let seq = thread.head();
        if let Some(stay) = thread.stays.get_mut(&profile).and_then(|stays| stays.last_mut()) {
            stay.leave = Some(seq);
        }
        vec![self.committed(StreamId::Thread(id), seq), self.tell(profile, UserEntry::Removed { thread: id, seq })]
    }

    /// Something about a thread that only its reader is told.
    pub fn state(&mut self, profile: Uuid, thread: Uuid) -> Update {
        self.tell(profile, UserEntry::State { thread })
    }

    fn tell(&mut self, profile: Uuid, entry: UserEntry) -> Update {
        let entries = self.users.entry(profile).or_default();
        entries.push(entry);
        let seq = entries.len() as u64;
        self.committed(StreamId::User(profile), seq)
    }

    fn committed(&mut self, stream: StreamId, seq: u64) -> Update {
        self.commits.push((stream, seq));
        self.update(stream, seq)
    }

    pub fn head(&self, stream: StreamId) -> u64 {
        match stream {
            StreamId::Thread(id) => self.threads.get(&id).map_or(0, Thread::head),
            StreamId::User(id) => self.users.get(&id).map_or(0, |entries| entries.len() as u64),
        }
    }

    /// Streams that moved since so many commits, at most `rows` of them, and how many commits that are then.
    pub fn moved(&self, since: usize, rows: usize) -> (Vec<(StreamId, u64)>, usize) {
        let to = self.commits.len().min(since + rows);
        let mut moved: BTreeMap<StreamId, u64> = BTreeMap::new();
        for (stream, seq) in &self.commits[since.min(to)..to] {
            let head = moved.entry(*stream).or_default();
            *head = (*head).max(*seq);
        }
        (moved.into_iter().collect(), to)
    }

    pub fn commits(&self) -> usize {
        self.commits.len()
    }

    /// The threads a person is in, and where they stand.
    pub fn positions(&self, profile: Uuid) -> Vec<(Uuid, Position)> {
        let position =
            |thread: &Thread| thread.present(profile).map(|stay| Position { head: thread.head(), join_seq: stay.join });
        self.threads.iter().filter_map(|(id, thread)| Some((*id, position(thread)?))).collect()
    }

    /// The update at a place of a stream, as every reader gets it.
    pub fn update(&self, stream: StreamId, seq: u64) -> Update {
        match stream {
            StreamId::Thread(id) => Self::render(stream, seq, &self.threads[&id].log[seq as usize - 1]),
            StreamId::User(id) => render(stream, seq, |d| user_entry(self.users[&id][seq as usize - 1], d)),
        }
    }

    /// An entry of a thread's log as an update.
    pub fn render(stream: StreamId, seq: u64, entry: &Entry) -> Update {
        render(stream, seq, |d| thread_entry(entry, d))
    }

    /// Up to `count` messages of a thread below number `before` that the person may see, the newest first.
    pub fn page(&self, profile: Uuid, id: Uuid, before: u64, count: usize) -> Vec<(u64, u64, Body)> {
        let Some(thread) = self.threads.get(&id) else { return Vec::new() };
        let places = thread.log.iter().enumerate().rev().filter_map(|(at, entry)| match entry {
            Entry::Message { body, no, .. } if *no < before && thread.may_see(profile, at as u64 + 1) => {
                Some((at as u64 + 1, *no, *body))
            }
            _ => None,
        });
        places.take(count).collect()
    }

    /// The rows of a page as JSON.
    pub fn page_json(&self, profile: Uuid, id: Uuid, before: u64, count: usize) -> String {
        let rows = self.page(profile, id, before, count).into_iter().map(|(seq, no, Body { nonce, hash, .. })| {
            format!(r#"{{"seq":{seq},"no":{no},"nonce":"{nonce}","hash":{hash}}}"#)
        });
        format!(r#"{{"seq":{},"messages":[{}]}}"#, self.head(StreamId::Thread(id)), rows.collect::<Vec<_>>().join(","))
    }

    pub fn thread_snapshot(&self, profile: Uuid, id: Uuid) -> Option<(Bytes, u64)> {
        let thread = self.threads.get(&id)?;
        thread.present(profile)?;
        let (seq, d) = (thread.head(), self.page_json(profile, id, u64::MAX, 50));
        let json = format!(r#"{{"up":"snapshot","s":"{id}","seq":{seq},"d":{d}}}"#);
        Some((frame::text(json.as_bytes()), seq))
    }
}

fn render(stream: StreamId, seq: u64, fill: impl FnOnce(&mut String) -> (UpdateKind, Touch)) -> Update {
    let mut d = String::new();
    let (kind, touch) = fill(&mut d);
    let name = match stream {
        StreamId::User(_) => "user".to_owned(),
        StreamId::Thread(id) => id.to_string(),
    };
    let json = format!(r#"{{"up":"{}","s":"{name}","seq":{seq},"d":{{{d}}}}}"#, kind.name());
    Update { stream, seq, kind, touch, frame: frame::text(json.as_bytes()) }
}

fn thread_entry(entry: &Entry, d: &mut String) -> (UpdateKind, Touch) {
    match entry {
        Entry::Message { body, no, .. } => {
            let _ = write!(d, r#""no":{no},"nonce":"{}","hash":{},"x":""#, body.nonce, body.hash);
            d.extend(std::iter::repeat_n('x', usize::from(body.padding)));
            d.push('"');
            (UpdateKind::MessageCreated, Touch::None)
        }
        Entry::Joined(_) => (UpdateKind::MemberJoined, Touch::None),
        Entry::Left(profile) => (UpdateKind::MemberLeft, Touch::Left([*profile].into())),
    }
}

fn user_entry(entry: UserEntry, d: &mut String) -> (UpdateKind, Touch) {
    let _ = match entry {
        UserEntry::Added { thread, seq } | UserEntry::Removed { thread, seq } => {
            write!(d, r#""thread":"{thread}","seq":{seq}"#)
        }
        UserEntry::State { thread } => write!(d, r#""thread":"{thread}""#),
    };
    match entry {
        UserEntry::Added { thread, seq } => (UpdateKind::ThreadAdded, Touch::Added { thread, seq }),
        UserEntry::Removed { thread, seq } => (UpdateKind::ThreadRemoved, Touch::Removed { thread, seq }),
        UserEntry::State { .. } => (UpdateKind::ThreadState, Touch::None),
    }
}
