//! Private services of a test: Postgres clusters and Redis servers that can be killed, stopped and started again. They
//! die with the thread that started them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARIES: &str = "/usr/lib/postgresql/15/bin";
/// Roles as `haus migrate` makes them, and the login of the application.
const ROLES: &str = "CREATE ROLE haus_app NOLOGIN; CREATE ROLE haus_engine NOLOGIN BYPASSRLS; CREATE ROLE haus_test LOGIN IN ROLE haus_app";

/// A free port; whoever is first takes it.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends a signal by its name (`STOP`, `CONT`) to a child of this process.
fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
}

/// A Postgres cluster with its own folder.
pub struct Postgres {
    folder: PathBuf,
    pub port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// A new cluster with the roles of the product, answering.
    pub fn start(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
        }
        let mut postgres = Self { folder, port: free_port(), child: None };
        let made = postgres
            .binary("initdb")
            .args(["-A", "trust", "-U", "owner", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(postgres.folder.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.resume();
        postgres.psql(ROLES);
        postgres
    }

    /// Starts the stopped server on its old data and port.
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let child = self
            .binary("postgres")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"])
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", &format!("unix_socket_directories={}", self.folder.display())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !Command::new(PathBuf::from(BINARIES).join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status()
            .unwrap()
            .success()
        {
            assert!(Instant::now() < deadline, "Postgres does not answer; see {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server at once (immediate shutdown: as after a crash) and waits for its end.
    pub fn crash(&mut self) {
        let mut child = self.child.take().expect("running");
        signal(&child, "QUIT");
        child.wait().unwrap();
    }

    /// Runs SQL as the owner, outside a transaction.
    pub fn psql(&self, sql: &str) {
        let done = Command::new(PathBuf::from(BINARIES).join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "owner", "-d", "postgres", "-qc", sql])
            .status();
        assert!(done.unwrap().success(), "{sql}");
    }

    /// Waits for the end of the server, which is when its parent ends it.
    pub fn wait(mut self) {
        self.child.take().expect("running").wait().unwrap();
    }

    fn binary(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg(PathBuf::from(BINARIES).join(name)).current_dir(&self.folder);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.crash();
        }
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n")
}

/// A Redis server without persistence.
pub struct Redis {
    pub port: u16,
    child: Option<Child>,
}

impl Redis {
    pub fn start() -> Self {
        let mut redis = Self { port: free_port(), child: None };
        redis.resume();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the killed server on its old port.
    pub fn resume(&mut self) {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &self.port.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "Redis does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Leaves the connections open and answers nothing.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("running"), "STOP");
    }

    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("running"), "CONT");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
