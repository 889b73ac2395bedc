//! A private Postgres from the installed binaries: real, durable (`fsync` on), and killable.
//! `initdb` runs once per machine into a template folder that each instance copies.
//!
//! As root it runs under the user `postgres`, because the server refuses root. SIGKILL keeps the page cache of the
//! operating system, so a kill here tests crash recovery, not a loss of power.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};

use super::process::{LOOK_AGAIN, Process, Stdout, guarded, run};
use super::{Folder, RigError, free_port};

/// A start, crash recovery and the end of orphaned backends included.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// A start that fails at once (lock file, shared memory of the last one) is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The superuser of the private cluster, and the owner of its databases.
pub const OWNER: &str = "haus_owner";
/// The login the application uses; `haus migrate` makes it.
const APPLICATION: &str = "haus_app:haus-rig";
/// Small, and without checkpoints of its own in the time of a test: their writes would hold up commits on a slow disk.
const SETTINGS: [&str; 5] = [
    "unix_socket_directories=",
    "max_connections=1000",
    "shared_buffers=64MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
];
/// The user Postgres runs as when the rig is root.
const UNPRIVILEGED: &str = "postgres";

/// A private cluster.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    bin: PathBuf,
    port: u16,
    log: PathBuf,
    folder: Folder,
}

impl Postgres {
    /// Starts a new, empty cluster; its log goes to `logs`.
    ///
    /// # Errors
    /// [`RigError`] when the binaries are missing or it does not come up.
    pub fn start(logs: &Path) -> Result<Self, RigError> {
        Self::start_in(Folder::new("postgres")?, logs)
    }

    /// The same with its data in `folder`.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_in(folder: Folder, logs: &Path) -> Result<Self, RigError> {
        let bin = binaries()?;
        let template = template(&bin)?;
        let copy = Command::new("cp").arg("-a").arg(&template).arg(folder.path().join("data")).output();
        let copied = copy.map_err(RigError::io("copy the template"))?;
        if !copied.status.success() {
            let detail = String::from_utf8_lossy(&copied.stderr).into_owned();
            return Err(RigError::Failed { what: "copy of the template".to_owned(), detail });
        }
        let log = logs.join("postgres.log");
        let mut postgres = Self { process: None, bin, port: free_port()?, log, folder };
        postgres.resume()?;
        Ok(postgres)
    }

    /// Starts it again after [`Postgres::kill`] or [`Postgres::crash`], on the same port.
    ///
    /// # Errors
    /// [`RigError::NotReady`] when it does not come up in 30 s.
    pub fn resume(&mut self) -> Result<(), RigError> {
        let start = Instant::now();
        loop {
            let mut process = self.spawn()?;
            while process.has_ended().is_none() && start.elapsed() < START_DEADLINE {
                if self.is_ready() {
                    self.process = Some(process);
                    return Ok(());
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            if start.elapsed() >= START_DEADLINE {
                return Err(process.not_ready());
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }

    /// Ends the postmaster by SIGKILL. Backends notice within moments; a start before that is retried.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// An immediate shutdown: every backend ends at once, recovery follows at the next start.
    pub fn crash(&mut self) {
        // A stopped one could not end, and its backends would stay for ever.
        self.thaw();
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::QUIT);
            process.wait(STOP_DEADLINE);
        }
    }

    /// Stops the postmaster and every backend: connections stay open and nothing answers, as on a hung machine.
    pub fn freeze(&mut self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on after [`Postgres::freeze`].
    pub fn thaw(&mut self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            // The postmaster first, so that it starts no backend meanwhile.
            process.signal(signal);
            process.signal_children(signal);
        }
    }

    /// On loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a database, a copy of `template` when one is named.
    ///
    /// # Errors
    /// [`RigError::Failed`] with what psql said.
    pub fn create_database(&self, name: &str, template: Option<&str>) -> Result<(), RigError> {
        let source = template.unwrap_or("template0");
        let statement = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{source}\"");
        self.query("postgres", &statement).map(|_| ())
    }

    /// Runs one statement as the owner and returns its rows, unaligned, a row a line.
    ///
    /// # Errors
    /// [`RigError::Failed`] with what psql said.
    pub fn query(&self, database: &str, statement: &str) -> Result<String, RigError> {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]).arg(self.owner_url(database));
        run("psql", &mut command)
    }

    /// Dumps a database and restores it into a new one of another cluster, as an operator would.
    ///
    /// # Errors
    /// [`RigError::Failed`] with what the programs said.
    pub fn dump_into(&self, database: &str, other: &Self) -> Result<(), RigError> {
        other.create_database(database, None)?;
        let file = self.log.with_extension("dump");
        let mut dump = Command::new(self.bin.join("pg_dump"));
        run("pg_dump", dump.arg("-f").arg(&file).arg(self.owner_url(database)))?;
        let mut restore = Command::new(self.bin.join("psql"));
        restore.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).arg(other.owner_url(database));
        run("psql", &mut restore).map(drop)
    }

    /// A base backup of it, as a standby is made from; its folder.
    ///
    /// # Errors
    /// [`RigError::Failed`] with what the program said.
    pub fn copy(&self) -> Result<Folder, RigError> {
        let folder = Folder::in_memory("standby")?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).map_err(RigError::io("make the standby's folder"))?;
        let like = self.folder.path().join("data");
        run("chown", Command::new("chown").arg("--reference").arg(&like).arg(&data))?;
        run("chmod", Command::new("chmod").arg("700").arg(&data))?;
        let mut backup = unprivileged(&self.bin.join("pg_basebackup"));
        backup.arg("-D").arg(&data).args(["-c", "fast", "-X", "stream", "--no-sync"]);
        run("pg_basebackup", backup.args(["-h", "127.0.0.1", "-U", OWNER, "-p", &self.port.to_string()]))?;
        Ok(folder)
    }

    /// After [`Postgres::crash`]: what was copied before takes its address, and is promoted so often, each time as a standby
    /// of what it was. All but the last life are over when this returns.
    ///
    /// # Errors
    /// As [`Postgres::resume`], and [`RigError::Failed`] with what the programs said.
    pub fn become_promoted(&mut self, standby: Folder, times: usize) -> Result<(), RigError> {
        self.folder = standby;
        for turn in 0..times {
            if turn > 0 {
                self.crash();
            }
            let signal = self.folder.path().join("data/standby.signal");
            std::fs::write(&signal, "").map_err(RigError::io("make a standby"))?;
            let parent = self.folder.path().join("data");
            run("chown", Command::new("chown").arg("--reference").arg(&parent).arg(&signal))?;
            self.resume()?;
            self.query("postgres", "SELECT pg_promote()")?;
        }
        Ok(())
    }

    /// The database as its owner, for `haus migrate`.
    pub fn owner_url(&self, database: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The database as the application role.
    pub fn application_url(&self, database: &str) -> String {
        format!("postgres://{APPLICATION}@127.0.0.1:{}/{database}", self.port)
    }

    fn spawn(&self) -> Result<Process, RigError> {
        let mut command = unprivileged(&self.bin.join("postgres"));
        command.arg("-D").arg(self.folder.path().join("data"));
        command.args(["-p", &self.port.to_string(), "-h", "127.0.0.1"]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        Process::spawn("postgres", command, &self.log, Stdout::Log)
    }

    fn is_ready(&self) -> bool {
        let mut command = Command::new(self.bin.join("pg_isready"));
        command.args(["-q", "-t", "1", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once but in order, so that no backend outlives its folder.
        self.crash();
    }
}

fn binaries() -> Result<PathBuf, RigError> {
    let root = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(root).map_err(RigError::io("find Postgres (Debian package postgresql)"))?;
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|version| root.join(version.to_string()).join("bin/postgres").exists())
        .max();
    let missing =
        || RigError::Failed { what: "find Postgres".to_owned(), detail: format!("none in {}", root.display()) };
    newest.map(|version| root.join(version.to_string()).join("bin")).ok_or_else(missing)
}

/// The folder every instance is copied from; made by whoever needs it first.
fn template(bin: &Path) -> Result<PathBuf, RigError> {
    let version = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("any").to_owned();
    let user = geteuid().as_raw();
    let ready = std::env::temp_dir().join(format!("haus-rig-template-{version}-{user}")).join("data");
    if ready.join("PG_VERSION").exists() {
        return Ok(ready);
    }
    let folder = Folder::new("initdb")?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data).map_err(RigError::io("make the template"))?;
    if user == 0 {
        run("chown", Command::new("chown").arg(UNPRIVILEGED).arg(&data))?;
    }
    let mut initdb = unprivileged(&bin.join("initdb"));
    initdb.arg("-D").arg(&data);
    initdb.args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
    run("initdb", &mut initdb)?;
    let parent = ready.parent().unwrap_or(&ready);
    std::fs::create_dir_all(parent).map_err(RigError::io("make the template's folder"))?;
    match std::fs::rename(&data, &ready) {
        Ok(()) => Ok(ready),
        // Somebody else was first: theirs is as good.
        Err(_) if ready.join("PG_VERSION").exists() => Ok(ready),
        Err(error) => Err(RigError::io("keep the template")(error)),
    }
}

/// `program`, as the unprivileged user when the rig is root.
pub fn unprivileged(program: &Path) -> Command {
    let drop_root = ["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"];
    let options: &[&str] = if geteuid().is_root() { &drop_root } else { &[] };
    let mut command = guarded(program, "QUIT", options);
    command.current_dir("/");
    command
}

#[cfg(test)]
mod tests {
    use super::super::Folder;
    use super::Postgres;

    #[test]
    fn committed_rows_survive_a_kill_and_a_crash() {
        let logs = Folder::new("test-logs").unwrap();
        let mut postgres = Postgres::start(logs.path()).unwrap();
        postgres.create_database("first", None).unwrap();
        postgres.query("first", "CREATE TABLE kept (n int)").unwrap();
        postgres.query("first", "INSERT INTO kept VALUES (1)").unwrap();
        postgres.kill();
        assert!(postgres.query("first", "SELECT 1").is_err(), "a killed one answers nothing");
        postgres.resume().unwrap();
        postgres.query("first", "INSERT INTO kept VALUES (2)").unwrap();
        postgres.crash();
        postgres.resume().unwrap();
        assert_eq!(postgres.query("first", "SELECT sum(n) FROM kept").unwrap().trim(), "3");
        // A frozen one ends with all its processes, which would hold the shared memory that the next needs.
        postgres.freeze();
        postgres.crash();
        postgres.resume().unwrap();
        postgres.create_database("second", Some("first")).unwrap();
        assert_eq!(postgres.query("second", "SELECT count(*) FROM kept").unwrap().trim(), "2");
        assert_eq!(postgres.query("second", "SHOW fsync").unwrap().trim(), "on");
    }
}
