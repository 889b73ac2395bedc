//! The rig: private Postgres, Redis, `haus` nodes and a fault proxy for fault tests, included by `#[path]` in the chaos
//! driver and the integration tests. It starts, breaks and ends processes; it judges nothing and knows no protocol
//! beyond the ready line of `haus serve`.
//!
//! Every process is a direct child, is waited for, and ends with its owner, also on panic. Start and stop block
//! (up to the deadlines named here): inside an async runtime call them where blocking is allowed.

pub mod node;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod rng;

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

/// Why the rig could not do what it was asked.
#[derive(Debug, Error)]
pub enum RigError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// A process was not ready in time; `detail` ends its log.
    #[error("{what} was not ready in time: {detail}")]
    NotReady { what: String, detail: String },
    /// A command ended with a failure.
    #[error("{what} failed: {detail}")]
    Failed { what: String, detail: String },
}

impl RigError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Linux keeps files here in memory.
const SHARED_MEMORY: &str = "/dev/shm";
/// Free bytes from which [`Folder::in_memory`] uses it: twice what the integration tests leave in theirs.
const MEMORY_BYTES: u64 = 6 << 30;

/// A folder under the system's temporary folder that goes with its owner.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a new, empty, traversable folder.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn new(name: &str) -> Result<Self, RigError> {
        Self::under(&std::env::temp_dir(), name)
    }

    /// The same in memory where there is room, else as [`Folder::new`]: a slow disk cannot hold up what is kept there.
    /// A killed process loses no more than on a disk, whose cache outlives it too.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn in_memory(name: &str) -> Result<Self, RigError> {
        let shared = Path::new(SHARED_MEMORY);
        let free = rustix::fs::statvfs(shared).map_or(0, |state| state.f_bavail.saturating_mul(state.f_frsize));
        if free < MEMORY_BYTES { Self::new(name) } else { Self::under(shared, name) }
    }

    fn under(parent: &Path, name: &str) -> Result<Self, RigError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let unique = format!("haus-rig-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(unique);
        std::fs::create_dir_all(&path).map_err(RigError::io(format!("make {}", path.display())))?;
        // The unprivileged user behind Postgres has to pass through.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, open).map_err(RigError::io(format!("open {}", path.display())))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover in the temporary folder is all that can go wrong.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// Removes folders whose process was killed before it could.
fn sweep() {
    let parents = [std::env::temp_dir(), PathBuf::from(SHARED_MEMORY)];
    for entry in parents.iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix("haus-rig-")?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            // Whoever sweeps at the same moment does the same.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// A loopback port that was free a moment ago. Another process may take it: starts are retried by their callers.
///
/// # Errors
/// [`RigError::Io`].
pub fn free_port() -> Result<u16, RigError> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    probe.map(|address| address.port()).map_err(RigError::io("find a free port"))
}
