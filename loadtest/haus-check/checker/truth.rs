//! The final log and the stays that follow from it: what a history is judged against.
//! Built in a first pass over the file; nothing changes it afterwards.
//!
//! Memory is one small entry per update of the log, none per delivery.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::record::Record;
use super::report::{Anomaly, Report};

/// One update of the final log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kind, as on the socket.
    pub kind: String,
    /// The sender's nonce, for messages that have one.
    pub nonce: Option<Uuid>,
    /// Body hash, for messages.
    pub hash: u64,
}

impl Entry {
    /// Whether the update is a message.
    pub fn is_message(&self) -> bool {
        self.kind == "message.created"
    }
}

/// A stay of a member: both ends inclusive, as in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// First visible `seq`.
    pub join: u64,
    /// Last visible `seq`; `None` while the member is in.
    pub leave: Option<u64>,
}

#[derive(Debug, Default)]
struct ThreadLog {
    entries: Vec<Option<Entry>>,
    stays: HashMap<Uuid, Vec<Stay>>,
    by_nonce: HashMap<Uuid, u64>,
    last_no: u64,
}

/// All threads of one history.
#[derive(Debug, Default)]
pub struct Truth {
    threads: HashMap<Uuid, ThreadLog>,
    profiles: HashMap<u32, Uuid>,
}

impl Truth {
    /// Takes in one record of the first pass; the log of a thread must come in the order of `seq`.
    pub fn learn(&mut self, line: u64, record: Record, report: &mut Report) {
        match record {
            Record::Client { client, profile } => {
                self.profiles.insert(client, profile);
            }
            Record::Thread { thread, members } => {
                let log = self.threads.entry(thread).or_default();
                for member in members {
                    log.stays.entry(member).or_insert_with(|| vec![Stay { join: 0, leave: None }]);
                }
            }
            Record::Log { thread, seq, kind, no, nonce, hash, profiles, .. } => {
                let log = self.threads.entry(thread).or_default();
                let entry = Entry { kind, nonce, hash };
                log.learn(line, seq, no, entry, &profiles, report);
            }
            _ => {}
        }
    }

    /// The profile behind a recording client.
    pub fn profile(&self, client: u32) -> Option<Uuid> {
        self.profiles.get(&client).copied()
    }

    /// Highest `seq` of the thread's log; 0 when it has none.
    pub fn head(&self, thread: &Uuid) -> u64 {
        self.threads.get(thread).map_or(0, |log| log.entries.len() as u64)
    }

    /// The update at `seq`, if the log has one.
    pub fn at(&self, thread: &Uuid, seq: u64) -> Option<&Entry> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.threads.get(thread)?.entries.get(index)?.as_ref()
    }

    /// Where the log has the message with this nonce.
    pub fn place_of(&self, thread: &Uuid, nonce: &Uuid) -> Option<u64> {
        self.threads.get(thread)?.by_nonce.get(nonce).copied()
    }

    /// Whether the profile may see `seq`.
    pub fn may_see(&self, thread: &Uuid, profile: &Uuid, seq: u64) -> bool {
        self.stays(thread, profile).iter().any(|stay| stay.join <= seq && stay.leave.is_none_or(|leave| seq <= leave))
    }

    /// The stay that is still open at the end of the log.
    pub fn open_stay(&self, thread: &Uuid, profile: &Uuid) -> Option<Stay> {
        self.stays(thread, profile).last().copied().filter(|stay| stay.leave.is_none())
    }

    /// Every stay of the profile in the thread, oldest first.
    pub fn stays(&self, thread: &Uuid, profile: &Uuid) -> &[Stay] {
        self.threads.get(thread).and_then(|log| log.stays.get(profile)).map_or(&[], Vec::as_slice)
    }

    /// The updates of `from..=to` that exist and that the profile was entitled to. Costs O(to - from).
    pub fn due(&self, thread: &Uuid, profile: &Uuid, from: u64, to: u64) -> Vec<u64> {
        let to = to.min(self.head(thread));
        (from..=to).filter(|seq| self.at(thread, *seq).is_some() && self.may_see(thread, profile, *seq)).collect()
    }

    /// Threads in which the profile is a member at the end.
    pub fn threads_of(&self, profile: &Uuid) -> Vec<Uuid> {
        let mut threads: Vec<Uuid> =
            self.threads.keys().filter(|thread| self.open_stay(thread, profile).is_some()).copied().collect();
        threads.sort_unstable();
        threads
    }

    /// Every message of every log with a nonce, for the last look at the sends.
    pub fn messages(&self) -> impl Iterator<Item = (&Uuid, u64, Uuid, u64)> {
        self.threads.iter().flat_map(|(thread, log)| {
            log.entries.iter().zip(1_u64..).filter_map(move |(entry, seq)| {
                let entry = entry.as_ref()?;
                Some((thread, seq, entry.nonce?, entry.hash))
            })
        })
    }
}

impl ThreadLog {
    fn learn(&mut self, line: u64, seq: u64, no: u64, entry: Entry, profiles: &[Uuid], report: &mut Report) {
        let head = self.entries.len() as u64;
        if seq <= head {
            report.found(Anomaly::StaleReadBack, line, &format!("the log gives {seq} after {head}"));
            return;
        }
        if seq > head + 1 {
            report.found(Anomaly::Skip, line, &format!("the log goes from {head} to {seq}"));
            self.entries.resize(usize::try_from(seq - 1).unwrap_or(usize::MAX), None);
        } else if entry.is_message() && no > 0 && no != self.last_no + 1 {
            report.found(Anomaly::Skip, line, &format!("message numbers go from {} to {no}", self.last_no));
        }
        if entry.is_message() {
            self.last_no = no;
        }
        if let Some(nonce) = entry.nonce
            && let Some(first) = self.by_nonce.insert(nonce, seq)
        {
            report.found(Anomaly::Duplicate, line, &format!("nonce {nonce} at {first} and at {seq}"));
        }
        match entry.kind.as_str() {
            "member.joined" => self.joined(seq, profiles),
            "member.left" => self.left(seq, profiles),
            _ => {}
        }
        self.entries.push(Some(entry));
    }

    fn joined(&mut self, seq: u64, profiles: &[Uuid]) {
        let mut seen = HashSet::new();
        for profile in profiles.iter().filter(|profile| seen.insert(**profile)) {
            let stays = self.stays.entry(*profile).or_default();
            if stays.last().is_none_or(|stay| stay.leave.is_some()) {
                stays.push(Stay { join: seq, leave: None });
            }
        }
    }

    fn left(&mut self, seq: u64, profiles: &[Uuid]) {
        for profile in profiles {
            if let Some(stay) = self.stays.get_mut(profile).and_then(|stays| stays.last_mut()) {
                stay.leave.get_or_insert(seq);
            }
        }
    }
}
