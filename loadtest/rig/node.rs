//! `haus` processes: nodes that serve, and the commands that prepare a database for them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;

use super::RigError;
use super::process::{Process, Stdout, guarded, run};

/// A start, migrations checked and couriers connected.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// 32 bytes in base64, the same on all nodes of the rig; guards nothing.
const SECRET_KEY: &str = "cmlnLWtleS1ndWFyZHMtbm90aGluZy1hdC1hbGwtISE=";

/// What all nodes of one cluster share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `haus` program.
    pub program: PathBuf,
    /// The database as the application role.
    pub database_url: String,
    /// The database as its owner, for commands other than `serve`.
    pub owner_url: String,
    /// Absent: the in-process courier, one node only.
    pub redis_url: Option<String>,
    /// Where logs and the nodes' data folders go.
    pub logs: PathBuf,
    /// Further settings, by name.
    pub extra: Vec<(String, String)>,
}

impl Settings {
    /// The program to test: `HAUS_BIN`, else `haus` beside the running program (or one folder up, as for tests).
    pub fn find_program() -> PathBuf {
        if let Some(path) = std::env::var_os("HAUS_BIN") {
            return PathBuf::from(path);
        }
        let here = std::env::current_exe().unwrap_or_default();
        let folders = here.ancestors().skip(1).take(2).map(|folder| folder.join("haus"));
        folders.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("haus"))
    }

    /// Runs one command of `haus` (`migrate`, `seed …`) to its end and returns its stdout.
    ///
    /// # Errors
    /// [`RigError::Failed`] with the end of its stderr.
    pub fn run(&self, arguments: &[&str]) -> Result<String, RigError> {
        let mut command = self.command("command");
        command.env("DATABASE_OWNER_URL", &self.owner_url).args(arguments);
        run(&format!("haus {}", arguments.join(" ")), &mut command)
    }

    fn command(&self, node: &str) -> Command {
        let mut command = guarded(&self.program, "KILL", &[]);
        for (name, _) in std::env::vars_os() {
            let inherited = name.to_str().is_some_and(|name| name.starts_with("HAUS_"));
            if inherited {
                command.env_remove(name);
            }
        }
        command.env_remove("DATABASE_OWNER_URL").env_remove("DATABASE_REPLICA_URL").env_remove("REDIS_URL");
        command.env("DATABASE_URL", &self.database_url);
        command.env("HAUS_SECRET_KEY", SECRET_KEY).env("HAUS_NODE", node);
        command.env("HAUS_DATA_DIR", self.logs.join(format!("data-{node}")));
        if let Some(url) = &self.redis_url {
            command.env("REDIS_URL", url);
        }
        command.envs(self.extra.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// One serving node.
#[derive(Debug)]
pub struct Node {
    name: String,
    settings: Settings,
    process: Option<Process>,
    address: SocketAddr,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
    listen: SocketAddr,
}

impl Node {
    /// Starts `haus serve` on a free port and waits for its ready line.
    ///
    /// # Errors
    /// [`RigError::NotReady`] with the end of its log.
    pub fn start(settings: &Settings, name: &str) -> Result<Self, RigError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut node = Self { name: name.to_owned(), settings: settings.clone(), process: None, address };
        node.resume()?;
        Ok(node)
    }

    /// Starts it again after [`Node::kill`] or [`Node::stop`], on the port it had.
    ///
    /// # Errors
    /// [`RigError::NotReady`] with the end of its log.
    pub fn resume(&mut self) -> Result<(), RigError> {
        let log = self.settings.logs.join(format!("{}.log", self.name));
        let mut command = self.settings.command(&self.name);
        command.env("HAUS_LISTEN", self.address.to_string()).arg("serve");
        let mut process = Process::spawn(&self.name, command, &log, Stdout::Read)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let stdout = process.stdout();
        // Reads to the end, so that the node never blocks on its own output; ends with the node.
        std::thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok);
            for line in lines {
                if let Some(ready) = serde_json::from_str::<Ready>(&line).ok().filter(|ready| ready.ready) {
                    // Only the first ready line is awaited.
                    let _ = sender.try_send(ready.listen);
                }
            }
        });
        match receiver.recv_timeout(READY_DEADLINE) {
            Ok(address) => {
                self.address = address;
                self.process = Some(process);
                Ok(())
            }
            Err(_) => Err(process.not_ready()),
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM: it drains. Returns its exit status, or `None` when it had to be killed after `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        process.signal(Signal::TERM);
        process.wait(deadline)
    }

    /// SIGSTOP: sockets stay open, nothing is answered.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT after [`Node::freeze`].
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Whether it runs (a frozen one does).
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.has_ended().is_none())
    }

    /// Its name, as in `HAUS_NODE`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens; the same after every restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }
}
