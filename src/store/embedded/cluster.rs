//! What lies on disk of a private Postgres: binaries, the user it runs as, folders, `initdb`, and what an earlier run
//! left behind. Nothing here runs the server; that is `embedded`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::process::{Group, signal};
use super::{EmbeddedError, private_file};

/// Where Debian keeps the server binaries of each version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// Users Postgres may run as when `haus` is root, the first that exists.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];
/// Longest path of a unix socket (`sun_path` less its ending), bytes.
const SOCKET_PATH_BYTES: usize = 107;
/// What Postgres calls its socket in the socket folder; the longest name there is the lock beside it.
const SOCKET_LOCK_NAME: &str = ".s.PGSQL.5432.lock";
/// A server left by a killed `haus` is given so long to stop in order, and again so long at once.
const ORPHAN_STOP: Duration = Duration::from_secs(10);

/// The user and group a child runs as; `None` when it runs as `haus` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunAs(pub Option<(u32, u32)>);

impl RunAs {
    /// The owner of a cluster that exists, else the first unprivileged user of this machine.
    fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        if let Ok(found) = fs::metadata(cluster)
            && found.uid() != 0
        {
            return Ok(Self(Some((found.uid(), found.gid()))));
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        UNPRIVILEGED_USERS
            .iter()
            .find_map(|user| passwd_entry(&passwd, user))
            .map(|ids| Self(Some(ids)))
            .ok_or(EmbeddedError::NoUser)
    }

    /// A command that runs as this user, in a folder it can read, and in a process group of its own: Ctrl-C in a
    /// terminal reaches `haus`, which stops the server after it has drained.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").process_group(0).env_remove("PGDATA").env("LC_ALL", "C.UTF-8");
        if let Self(Some((uid, gid))) = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn own(self, path: &Path) -> Result<(), EmbeddedError> {
        match self.0 {
            // Not through a link: the folder belongs to the server's user, who could put one there.
            Some((uid, gid)) => lchown(path, Some(uid), Some(gid)).map_err(EmbeddedError::io(path)),
            None => Ok(()),
        }
    }
}

/// Uid and gid of a line of `/etc/passwd`; root never counts.
fn passwd_entry(passwd: &str, user: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_user = fields.next() == Some(user);
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (is_user && uid != 0).then_some((uid, gid))
    })
}

/// The folders and binaries of one private Postgres.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub bin: PathBuf,
    pub run_as: RunAs,
    /// `<data>/postgres`: owned by the user the server runs as.
    pub home: PathBuf,
    pub data: PathBuf,
    pub sockets: PathBuf,
    pub log: PathBuf,
}

impl Cluster {
    /// Finds binaries and user, and makes the folders; the cluster itself may not exist yet.
    pub fn prepare(data_dir: &Path, bin: Option<&Path>) -> Result<Self, EmbeddedError> {
        let bin = find_binaries(bin)?;
        let home = data_dir.join("postgres");
        let data = home.join("cluster");
        let run_as = RunAs::choose(&data)?;
        check_reach(data_dir, run_as)?;
        private_folder(&home, run_as)?;
        let sockets = socket_folder(&home);
        private_folder(&sockets, run_as)?;
        let log = data_dir.join("postgres.log");
        Ok(Self { bin, run_as, home, data, sockets, log })
    }

    /// Makes the cluster where there is none. Atomic: it is built beside its place and renamed, so that a crash in the
    /// middle leaves nothing that looks whole.
    pub async fn init(&self, superuser: &str, password: &str) -> Result<(), EmbeddedError> {
        if self.data.join("PG_VERSION").exists() {
            return Ok(());
        }
        let (fresh, password_file) = (self.home.join("cluster.new"), self.home.join("initdb.password"));
        remove_folder(&fresh)?;
        private_file::replace(&password_file, password).map_err(EmbeddedError::io(&password_file))?;
        self.run_as.own(&password_file)?;
        let mut last = self.initdb(&fresh, &password_file, superuser, "C.UTF-8").await;
        if last.is_err() {
            remove_folder(&fresh)?;
            last = self.initdb(&fresh, &password_file, superuser, "C").await;
        }
        fs::remove_file(&password_file).map_err(EmbeddedError::io(&password_file))?;
        last?;
        fs::rename(&fresh, &self.data).map_err(EmbeddedError::io(&self.data))
    }

    async fn initdb(&self, fresh: &Path, password_file: &Path, user: &str, locale: &str) -> Result<(), EmbeddedError> {
        let program = self.bin.join("initdb");
        let mut command = self.run_as.command(&program);
        command.arg("-D").arg(fresh).arg("--pwfile").arg(password_file);
        command.args(["-U", user, "--encoding=UTF8", &format!("--locale={locale}")]);
        command.args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]);
        let failed = || EmbeddedError::io(&program);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed())?;
        // A start that is given up takes it along; what it had built is thrown away by the next.
        let group = Group::of(&child);
        let output = child.wait_with_output().await.map_err(failed())?;
        group.has_ended();
        if output.status.success() {
            return Ok(());
        }
        Err(EmbeddedError::Init(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Ends what a killed `haus` left running on this cluster. The caller holds the lock of the data folder, so nobody
    /// else's server can be meant. A stale `postmaster.pid` is Postgres' own affair, but for a process id that now
    /// belongs to something else.
    pub async fn end_orphans(&self) -> Result<(), EmbeddedError> {
        let lock_file = self.data.join("postmaster.pid");
        let postmaster = fs::read_to_string(&lock_file).ok().and_then(|text| text.lines().next()?.trim().parse().ok());
        let orphans = || processes_in(&self.data);
        if let Some(pid) = postmaster.filter(|pid| !orphans().contains(pid)) {
            if Path::new("/proc").join(pid.to_string()).exists() {
                fs::remove_file(&lock_file).map_err(EmbeddedError::io(&lock_file))?;
            }
        } else if let Some(pid) = postmaster {
            tracing::info!(pid, "a Postgres left by an earlier run is being stopped");
            signal(pid, Signal::INT);
        }
        for last_resort in [Signal::QUIT, Signal::KILL] {
            let deadline = Instant::now() + ORPHAN_STOP;
            while !orphans().is_empty() {
                if Instant::now() >= deadline {
                    orphans().into_iter().for_each(|pid| signal(pid, last_resort));
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// Living processes whose working folder is `data`: the postmaster and each of its backends.
fn processes_in(data: &Path) -> Vec<i32> {
    let Ok(real) = fs::canonicalize(data) else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == real))
        .collect()
}

fn find_binaries(given: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    let whole = |bin: &Path| bin.join("postgres").exists() && bin.join("initdb").exists();
    if let Some(bin) = given {
        return if whole(bin) { Ok(bin.to_owned()) } else { Err(EmbeddedError::BadBinaries(bin.to_owned())) };
    }
    let versions = fs::read_dir(DEBIAN_ROOT).into_iter().flatten();
    let mut numbers: Vec<u32> = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let debian = numbers.iter().map(|version| Path::new(DEBIAN_ROOT).join(version.to_string()).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.chain(std::env::split_paths(&path)).find(|bin| whole(bin)).ok_or(EmbeddedError::NoBinaries)
}

/// The first parent of `data_dir` that the server's user may not enter is an error that says what to do.
fn check_reach(data_dir: &Path, run_as: RunAs) -> Result<(), EmbeddedError> {
    let RunAs(Some((uid, gid))) = run_as else { return Ok(()) };
    for parent in data_dir.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let found = fs::metadata(parent).map_err(EmbeddedError::io(parent))?;
        let bit = match (found.uid() == uid, found.gid() == gid) {
            (true, _) => 0o100,
            (_, true) => 0o010,
            _ => 0o001,
        };
        if found.mode() & bit == 0 {
            return Err(EmbeddedError::OutOfReach { folder: parent.to_owned(), uid });
        }
    }
    Ok(())
}

/// The socket folder inside `home`, or a short one where the path would not fit a socket address.
fn socket_folder(home: &Path) -> PathBuf {
    let inside = home.join("run");
    if inside.join(SOCKET_LOCK_NAME).as_os_str().len() <= SOCKET_PATH_BYTES {
        return inside;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, home.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("haus-{}", hex::encode(&digest.as_ref()[..8])))
}

/// Makes a folder of mode 700 for the server's user. One that exists must be theirs: in a shared folder such as `/tmp`
/// anybody could have put it there.
fn private_folder(path: &Path, run_as: RunAs) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => run_as.own(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(EmbeddedError::io(path))?;
            let uid = run_as.0.map_or(geteuid().as_raw(), |(uid, _)| uid);
            if !found.is_dir() || (found.uid() != uid && found.uid() != geteuid().as_raw()) {
                return Err(EmbeddedError::NotOurs { folder: path.to_owned(), owner: found.uid() });
            }
            let folder = File::open(path).and_then(|folder| folder.set_permissions(Permissions::from_mode(0o700)));
            folder.map_err(EmbeddedError::io(path))?;
            run_as.own(path)
        }
        Err(error) => Err(EmbeddedError::io(path)(error)),
    }
}

fn remove_folder(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(EmbeddedError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{passwd_entry, socket_folder};

    #[test]
    fn users_are_found_and_root_is_not_one() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\nbad:x\nalias:x:0:7::/:/x\n";
        assert_eq!(passwd_entry(passwd, "nobody"), Some((65534, 65534)));
        assert_eq!(passwd_entry(passwd, "root"), None);
        assert_eq!(passwd_entry(passwd, "alias"), None);
        assert_eq!(passwd_entry(passwd, "bad"), None);
    }

    #[test]
    fn long_paths_get_a_short_socket_folder() {
        assert_eq!(socket_folder(Path::new("/srv/haus/postgres")), Path::new("/srv/haus/postgres/run"));
        let long = format!("/srv/{}/postgres", "x".repeat(90));
        let short = socket_folder(Path::new(&long));
        assert!(short.join(super::SOCKET_LOCK_NAME).as_os_str().len() <= super::SOCKET_PATH_BYTES, "{short:?}");
        assert_ne!(short, socket_folder(Path::new(&format!("{long}y"))));
    }
}
