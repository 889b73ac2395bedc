//! The embedded default: a private Postgres, spawned as a direct child from the installed binaries, reached over a unix
//! socket alone, with `fsync` on. Restarted when it dies, stopped in order with `haus`. Its files are in `cluster`;
//! schema and roles are the work of `migrate`.

mod cluster;
mod process;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use cluster::Cluster;
use process::{Running, leave, stop};

use super::private_file::{self, data_folder};
use super::random_hex;

/// Superuser of the private cluster and owner of the schema.
const OWNER: &str = "haus_owner";
/// Login of the application; `migrate` makes it.
const APPLICATION: &str = "haus_node";
const DATABASE: &str = "haus";
/// From spawn to the first answered statement, crash recovery included.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Pauses between restarts of a server that died: doubled from the first to the last.
const RESTART_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Settings for a small machine. Durability is not negotiable and so is spelled out.
const SETTINGS: [(&str, &str); 13] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "2GB"),
    ("max_connections", "60"),
    ("jit", "off"),
    ("log_checkpoints", "off"),
    ("log_min_messages", "warning"),
    ("log_line_prefix", "%m [%p] "),
];

/// Why the private Postgres is not there. [`EmbeddedError::is_setting`] tells wrong settings from failures.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL server found: install it (Debian: apt install postgresql), or set HAUS_PG_BIN, or DATABASE_URL"
    )]
    NoBinaries,
    #[error("HAUS_PG_BIN: {0} holds no postgres and initdb")]
    BadBinaries(PathBuf),
    #[error(
        "PostgreSQL does not run as root and this machine has neither a user `postgres` nor `nobody`: set DATABASE_URL"
    )]
    NoUser,
    #[error(
        "HAUS_DATA_DIR: PostgreSQL runs as the unprivileged user {uid}, which cannot enter {folder}: \
         set HAUS_DATA_DIR to a folder everybody may pass through, such as /var/lib/haus, or allow it: chmod o+x {folder}"
    )]
    OutOfReach { folder: PathBuf, uid: u32 },
    #[error("HAUS_DATA_DIR: {folder} belongs to user {owner}, not to the one PostgreSQL would run as")]
    NotOurs { folder: PathBuf, owner: u32 },
    #[error("HAUS_DATA_DIR: {0} is in use by another haus")]
    InUse(PathBuf),
    #[error("{}", data_folder(path, cause))]
    Io { path: PathBuf, cause: std::io::Error },
    #[error("initdb failed: {0}")]
    Init(String),
    #[error("the private PostgreSQL did not come up: {reason}; see {log}")]
    NotReady { reason: String, log: PathBuf },
}

impl EmbeddedError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { path, cause }
    }

    /// Whether a setting of the operator is at fault (exit 2) rather than a failure (exit 1).
    pub fn is_setting(&self) -> bool {
        match self {
            Self::Io { cause, .. } => matches!(
                cause.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::AlreadyExists
                    | ErrorKind::NotFound
            ),
            Self::Init(_) | Self::NotReady { .. } => false,
            _ => true,
        }
    }
}

/// The two doors of a private Postgres.
#[derive(Clone)]
pub struct Urls {
    /// As the application role, which owns nothing.
    pub application: String,
    /// As the owner, for migrations alone.
    pub owner: String,
}

/// What a start may be given beyond the defaults.
#[derive(Debug, Clone, Default)]
pub struct EmbeddedOptions {
    /// Folder of `postgres` and `initdb`; searched for when absent.
    pub bin: Option<PathBuf>,
    /// Settings after the defaults, so that they win.
    pub settings: Vec<(String, String)>,
}

enum Order {
    Stop(oneshot::Sender<()>),
    Kill,
}

/// A running private Postgres. Stop it with [`EmbeddedPostgres::stop`]; a drop asks it to stop and waits a second at most.
pub struct EmbeddedPostgres {
    urls: Urls,
    orders: mpsc::Sender<Order>,
    pid: watch::Receiver<Option<u32>>,
    _lock: File,
}

impl EmbeddedPostgres {
    /// Starts the private Postgres of `data_dir`, makes it first where there is none, and waits until it answers.
    ///
    /// # Errors
    /// [`EmbeddedError::InUse`] when another process runs it; else what is missing or failed.
    pub async fn start(data_dir: &Path, options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        // Others may pass through: the server's user has a folder of its own inside. The files with secrets are 600.
        DirBuilder::new().recursive(true).mode(0o711).create(data_dir).map_err(EmbeddedError::io(data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(EmbeddedError::io(data_dir))?;
        let lock = lock(&data_dir)?;
        let cluster = Cluster::prepare(&data_dir, options.bin.as_deref())?;
        let passwords = Passwords::load(&data_dir)?;
        let urls = passwords.urls(&cluster.sockets);
        cluster.init(OWNER, &passwords.owner).await?;
        cluster.end_orphans().await?;
        rotate(&cluster.log);
        let mut server = Server { cluster, settings: options.settings, owner_url: urls.owner.clone() };
        let child = server.start().await?;
        create_database(&urls.owner).await.map_err(|error| server.not_ready(error.to_string()))?;
        let (tell_pid, pid) = watch::channel(child.id());
        let (orders, inbox) = mpsc::channel(4);
        tokio::spawn(async move { server.supervise(child, inbox, tell_pid).await });
        Ok(Self { urls, orders, pid, _lock: lock })
    }

    /// Whether a private Postgres was ever made in `data_dir`.
    ///
    /// # Errors
    /// Where that cannot be seen: the folder is somebody else's.
    pub fn exists(data_dir: &Path) -> Result<bool, EmbeddedError> {
        let cluster = data_dir.join("postgres/cluster");
        match fs::metadata(&cluster) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(EmbeddedError::io(&cluster)(error)),
        }
    }

    /// The doors of a private Postgres that another process runs; `None` when none does.
    pub fn attach(data_dir: &Path, options: &EmbeddedOptions) -> Result<Option<Urls>, EmbeddedError> {
        let Ok(data_dir) = fs::canonicalize(data_dir) else { return Ok(None) };
        match lock(&data_dir) {
            Err(EmbeddedError::InUse(_)) => {
                let cluster = Cluster::prepare(&data_dir, options.bin.as_deref())?;
                Ok(Some(Passwords::load(&data_dir)?.urls(&cluster.sockets)))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(None),
        }
    }

    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// Process id of the server; `None` while it is being restarted.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Kills the server with SIGKILL; it is restarted as after any death. For fault tests.
    pub async fn kill(&self) {
        let _ = self.orders.send(Order::Kill).await;
    }

    /// Stops the server: in order within 10 s, then at once.
    pub async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // Nobody is to start it again.
            self.orders = mpsc::channel(1).0;
            leave(pid);
        }
    }
}

/// The server's process and what it takes to start it again.
struct Server {
    cluster: Cluster,
    settings: Vec<(String, String)>,
    owner_url: String,
}

impl Server {
    /// Spawns the server and waits until it answers. A start that fails at once is tried again: the last one's
    /// backends may not have noticed its death yet.
    async fn start(&mut self) -> Result<Running, EmbeddedError> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let mut child = Running::new(self.spawn()?);
            let ended = loop {
                if let Ok(Some(status)) = child.try_wait() {
                    break status;
                }
                if answers(&self.owner_url).await {
                    return Ok(child);
                }
                if Instant::now() >= deadline {
                    stop(&mut child).await;
                    return Err(self.not_ready("no answer in 60 s".to_owned()));
                }
                sleep(Duration::from_millis(20)).await;
            };
            if Instant::now() + Duration::from_secs(50) >= deadline {
                return Err(self.not_ready(format!("it ended with {ended}")));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    fn spawn(&self) -> Result<Child, EmbeddedError> {
        let cluster = &self.cluster;
        let log = private_file::append(&cluster.log).map_err(EmbeddedError::io(&cluster.log))?;
        let program = cluster.bin.join("postgres");
        let mut command = cluster.run_as.command(&program);
        command.arg("-D").arg(&cluster.data);
        command.arg("-c").arg(format!("unix_socket_directories={}", cluster.sockets.display()));
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in SETTINGS.into_iter().chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(EmbeddedError::io(&program))
    }

    async fn supervise(
        mut self,
        mut child: Running,
        mut inbox: mpsc::Receiver<Order>,
        tell_pid: watch::Sender<Option<u32>>,
    ) {
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Kill) => {
                        let _ = child.start_kill();
                    }
                    Some(Order::Stop(done)) => {
                        tell_pid.send_replace(None);
                        stop(&mut child).await;
                        let _ = done.send(());
                        return;
                    }
                    // Dropped: it was signalled there.
                    None => return,
                },
                ended = child.wait() => {
                    tell_pid.send_replace(None);
                    tracing::error!(?ended, log = %self.cluster.log.display(), "the private Postgres died; it is being restarted");
                    let mut pause = RESTART_PAUSES.0;
                    child = loop {
                        if inbox.is_closed() {
                            return;
                        }
                        match self.start().await {
                            Ok(child) => break child,
                            Err(error) => tracing::error!(%error, "the private Postgres is down"),
                        }
                        sleep(pause).await;
                        pause = (pause * 2).min(RESTART_PAUSES.1);
                    };
                    tell_pid.send_replace(child.id());
                    tracing::info!(pid = child.id(), "the private Postgres is back");
                }
            }
        }
    }

    fn not_ready(&self, reason: String) -> EmbeddedError {
        EmbeddedError::NotReady { reason, log: self.cluster.log.clone() }
    }
}

struct Passwords {
    owner: String,
    application: String,
}

impl Passwords {
    fn load(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let one = |name: &str| {
            let path = data_dir.join(name);
            match fs::read_to_string(&path) {
                Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
                Ok(_) => Err(EmbeddedError::io(&path)(std::io::Error::other("is empty"))),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let made = random_hex::<24>().map_err(EmbeddedError::io(&path))?;
                    private_file::replace(&path, &made).map_err(EmbeddedError::io(&path))?;
                    Ok(made)
                }
                Err(error) => Err(EmbeddedError::io(&path)(error)),
            }
        };
        Ok(Self { owner: one("postgres-owner.password")?, application: one("postgres-app.password")? })
    }

    fn urls(&self, sockets: &Path) -> Urls {
        let host = sockets.to_string_lossy().bytes().fold(String::new(), |mut out, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
            out
        });
        let url = |user: &str, password: &str| format!("postgres://{user}:{password}@localhost/{DATABASE}?host={host}");
        Urls { application: url(APPLICATION, &self.application), owner: url(OWNER, &self.owner) }
    }
}

/// One process a data folder; the lock ends with the process, however it dies.
fn lock(data_dir: &Path) -> Result<File, EmbeddedError> {
    let path = data_dir.join("haus.lock");
    let file = private_file::append(&path).map_err(EmbeddedError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(cause)) => Err(EmbeddedError::io(&path)(cause)),
    }
}

/// Keeps one earlier log, so that the log of a run is bounded by what that run writes.
fn rotate(log: &Path) {
    let last = log.with_extension("log.1");
    // One of an earlier release could be read by everybody.
    if fs::rename(log, &last).is_ok() && fs::symlink_metadata(&last).is_ok_and(|found| found.is_file()) {
        let _ = fs::set_permissions(&last, fs::Permissions::from_mode(0o600));
    }
}

/// The same cluster's maintenance database.
fn maintenance_options(owner_url: &str) -> Result<sqlx::postgres::PgConnectOptions, sqlx::Error> {
    Ok(owner_url.parse::<sqlx::postgres::PgConnectOptions>()?.database("postgres").disable_statement_logging())
}

async fn connect(owner_url: &str) -> Result<PgConnection, sqlx::Error> {
    maintenance_options(owner_url)?.connect().await
}

async fn answers(owner_url: &str) -> bool {
    let Ok(Ok(connection)) = timeout(Duration::from_secs(2), connect(owner_url)).await else { return false };
    let _ = connection.close().await;
    true
}

async fn create_database(owner_url: &str) -> Result<(), sqlx::Error> {
    let mut connection = connect(owner_url).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        sqlx::raw_sql("CREATE DATABASE haus").execute(&mut connection).await?;
    }
    connection.close().await
}
