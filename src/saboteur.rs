//! Planted bugs, for proving that the chaos checker sees what it should. Compiled away without the feature `saboteur`:
//! [`plants`] is a constant `false` then, and the branches it guards are no part of the program. With the feature,
//! `HAUS_SABOTEUR=<name>` switches one of them on. Bugs of the database's own function are planted by `haus-chaos`.

/// A bug that can be planted in the server. The name of each in `HAUS_SABOTEUR` stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// `publish-before-commit`: sockets get updates before the transaction that holds them is committed.
    PublishBeforeCommit,
    /// `ack-before-commit`: a send is answered before its commit.
    AckBeforeCommit,
    /// `cursor-ge`: a resume reads from the client's position on, not from after it.
    CursorGe,
    /// `ignore-disconnect`: a lost courier connection starts no poll.
    IgnoreDisconnect,
    /// `drop-full-queue`: what does not fit into an outbox is dropped, and nobody is told.
    DropFullQueue,
    /// `no-recheck-on-resume`: a resume replays whatever thread the client names, and does not stop at the end of a stay.
    NoRecheckOnResume,
    /// `kick-not-applied`: `member.left` does not end the delivery to the one who left.
    KickNotApplied,
    /// `resume-truncated`: a resume brings the first [`TRUNCATED_UPDATES`] of a stream and claims to be complete.
    ResumeTruncated,
    /// `stale-history`: pages of history lack what is younger than [`STALE_MS`].
    StaleHistory,
}

/// How late the commit is where a bug runs ahead of it, milliseconds.
pub const LATE_COMMIT_MS: u64 = 10;
/// What `resume-truncated` replays of one stream.
pub const TRUNCATED_UPDATES: usize = 50;
/// How old the copy is that `stale-history` reads, milliseconds.
pub const STALE_MS: i64 = 1000;

/// Whether `bug` is planted in this process.
#[cfg(not(any(feature = "saboteur", test)))]
pub const fn plants(_bug: Bug) -> bool {
    false
}

/// Whether `bug` is planted in this thread.
#[cfg(all(test, not(feature = "saboteur")))]
pub fn plants(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants `bug` in this thread until what is returned goes.
#[cfg(test)]
pub fn plant(bug: Bug) -> impl Drop {
    struct Planted;
    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(bug));
    Planted
}

/// Whether `bug` is planted in this process: `HAUS_SABOTEUR` names it.
#[cfg(feature = "saboteur")]
pub fn plants(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let named = || std::env::var("HAUS_SABOTEUR").ok().and_then(|name| Bug::of_name(&name));
    *PLANTED.get_or_init(named) == Some(bug)
}

#[cfg(feature = "saboteur")]
impl Bug {
    fn of_name(name: &str) -> Option<Self> {
        let bug = match name {
            "publish-before-commit" => Self::PublishBeforeCommit,
            "ack-before-commit" => Self::AckBeforeCommit,
            "cursor-ge" => Self::CursorGe,
            "ignore-disconnect" => Self::IgnoreDisconnect,
            "drop-full-queue" => Self::DropFullQueue,
            "no-recheck-on-resume" => Self::NoRecheckOnResume,
            "kick-not-applied" => Self::KickNotApplied,
            "resume-truncated" => Self::ResumeTruncated,
            "stale-history" => Self::StaleHistory,
            _ => return None,
        };
        Some(bug)
    }
}
