//! One child process: its log file, signals by its id, its end. Nothing here knows what it runs.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::RigError;

/// How often a waiting loop looks again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a log that an error quotes.
const LOG_TAIL_BYTES: usize = 2000;

/// A running or ended child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with stderr (and stdout, unless it is to be read) appended to `log`.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn spawn(name: &str, mut command: Command, log: &Path, stdout: Stdout) -> Result<Self, RigError> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.map_err(RigError::io(format!("open {}", log.display())))?;
        let copy = file.try_clone().map_err(RigError::io("copy a descriptor"))?;
        let out = match stdout {
            Stdout::Read => Stdio::piped(),
            Stdout::Log => Stdio::from(copy),
        };
        command.stdin(Stdio::null()).stdout(out).stderr(Stdio::from(file));
        let child = spawn_from_lasting_thread(command).map_err(RigError::io(format!("start {name}")))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Takes standard output, once, when it was asked for.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Sends a signal. A process that already ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.has_ended().is_none()
            && let Ok(id) = i32::try_from(self.child.id())
            && let Some(pid) = Pid::from_raw(id)
        {
            // The only failure left is that it ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends a signal to its children, as the kernel lists them.
    pub fn signal_children(&self, signal: Signal) {
        let list = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(list).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            // One that has ended meanwhile needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it by SIGKILL and waits, so that its id and locks are free.
    pub fn kill(&mut self) {
        // Both fail only for a process that is already gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits until it ended by itself; SIGKILL after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < deadline {
            if let Some(status) = self.has_ended() {
                return Some(status);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.kill();
        None
    }

    /// The exit status, when it ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Says that it was not ready, with the end of its log.
    pub fn not_ready(&self) -> RigError {
        RigError::NotReady { what: self.name.clone(), detail: log_tail(&self.log) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `program`, so that it gets `signal` when this process dies without a chance to clean up, and as another user when
/// `setpriv` options say so. `setpriv` execs, so the child's id is the program's.
pub fn guarded(program: &Path, signal: &str, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).args(options).arg("--").arg(program);
    command
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The parent-death signal follows the thread that started the child, so one thread that lives as long as the process
/// starts them all.
fn spawn_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // An asker that went away takes its child along: dropping the answer does not end it, so end it here.
                if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    let gone = || std::io::Error::other("the spawning thread is gone");
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Where standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    /// To [`Process::stdout`].
    Read,
    /// To the log.
    Log,
}

/// Runs `command` to its end and returns what it wrote to stdout.
///
/// # Errors
/// [`RigError::Io`], or [`RigError::Failed`] with the end of its stderr.
pub fn run(name: &str, command: &mut Command) -> Result<String, RigError> {
    let output = command.stdin(Stdio::null()).output().map_err(RigError::io(format!("start {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let detail = format!("{}: {}", output.status, tail(&String::from_utf8_lossy(&output.stderr)));
    Err(RigError::Failed { what: name.to_owned(), detail })
}

fn log_tail(log: &Path) -> String {
    tail(&std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

fn tail(text: &str) -> String {
    let mut start = text.len().saturating_sub(LOG_TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].trim().to_owned()
}
