//! Writes the history: one line a record, in the order in which the driver learned of things.
//! The lock makes that order one; a record is encoded before it is taken.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use crate::checker::record::Record;
use crate::rig::RigError;

const BUFFER_BYTES: usize = 1 << 20;

/// The open history file, shared by every task of one history.
#[derive(Debug)]
pub struct Recorder {
    out: Mutex<BufWriter<File>>,
    start: Instant,
    failed: AtomicBool,
    pages: AtomicU64,
}

impl Recorder {
    /// Begins a history in `path`.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn create(path: &Path) -> Result<Self, RigError> {
        let file = File::create(path).map_err(RigError::io(format!("make {}", path.display())))?;
        Ok(Self {
            out: Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, file)),
            start: Instant::now(),
            failed: AtomicBool::new(false),
            pages: AtomicU64::new(0),
        })
    }

    /// Microseconds since the history began.
    pub fn t_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Appends one record. A failure is kept and told by [`Recorder::finish`].
    pub fn write(&self, record: &Record) {
        let Ok(mut line) = serde_json::to_vec(record) else {
            self.failed.store(true, Ordering::Relaxed);
            return;
        };
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.write_all(&line).is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// A number that pairs a `read` with its `page`.
    pub fn next_read(&self) -> u64 {
        self.pages.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// [`RigError::Failed`] when any line could not be written: the history is then worth nothing.
    pub fn finish(&self) -> Result<(), RigError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.flush().is_err() || self.failed.load(Ordering::Relaxed) {
            return Err(RigError::Failed { what: "history".to_owned(), detail: "a line was not written".to_owned() });
        }
        Ok(())
    }
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits, over the sender's id and the content: enough to tell two bodies apart,
/// not a defence against a forger.
pub fn body_hash(sender: &Uuid, content: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = sender.as_bytes().iter().chain(content.as_bytes());
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}
