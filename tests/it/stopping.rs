//! SIGTERM and SIGINT end a program whatever it waits for: a node with 0, every other command with the signal's code.

use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::keys::FIRST;
use crate::rig::Folder;
use crate::rig::process::{Process, Stdout};
use crate::support::Database;

/// Two seconds are promised; what does not listen waits for 30 and more.
const DEADLINE: Duration = Duration::from_secs(12);

struct Waiting {
    folder: Folder,
    settings: Vec<(&'static str, String)>,
}

impl Waiting {
    fn new(settings: &[(&'static str, String)]) -> Self {
        Self { folder: Folder::new("stopping").unwrap(), settings: settings.to_vec() }
    }

    fn on(database_url: &str, owner_url: &str) -> Self {
        let secret = ("HAUS_SECRET_KEY", FIRST.to_owned());
        Self::new(&[
            ("DATABASE_URL", database_url.to_owned()),
            ("DATABASE_OWNER_URL", owner_url.to_owned()),
            secret,
            ("HAUS_LOG", "warn".to_owned()),
        ])
    }

    fn start(&self, arguments: &[&str]) -> Process {
        Process::spawn("haus", self.command(arguments), &self.folder.path().join("log"), Stdout::Log).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haus"));
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HAUS_DATA_DIR", self.data()).env("HAUS_LISTEN", "127.0.0.1:0");
        command.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        command
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The exit code of a program that got `signal` after `wait_ms`.
    fn ended(&self, arguments: &[&str], wait_ms: u64, signal: Signal) -> Option<i32> {
        let mut process = self.start(arguments);
        std::thread::sleep(Duration::from_millis(wait_ms));
        assert!(process.has_ended().is_none(), "{arguments:?} did not wait: {}", self.log());
        process.signal(signal);
        let status = process.wait(DEADLINE);
        let status = status.unwrap_or_else(|| panic!("{arguments:?} went on after {signal:?}: {}", self.log()));
        assert_eq!(status.signal(), None, "{arguments:?} did not hear {signal:?}");
        status.code()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

const COMMANDS: [&[&str]; 6] = [
    &["migrate"],
    &["migrate", "--status"],
    &["doctor"],
    &["token", "--email", "a@b.co"],
    &["keys", "status"],
    &["seed"],
];

#[test]
fn a_database_that_cannot_be_reached_or_is_silent_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        let url = format!("postgres://a@{address}/x");
        let waiting = Waiting::on(&url, &url);
        assert_eq!(waiting.ended(&["serve"], 700, Signal::TERM), Some(0));
        assert_eq!(waiting.ended(&["serve"], 700, Signal::INT), Some(0));
        for (arguments, (signal, code)) in
            COMMANDS.into_iter().zip([(Signal::INT, 130), (Signal::TERM, 143)].into_iter().cycle())
        {
            assert_eq!(waiting.ended(arguments, 400, signal), Some(code), "{arguments:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_another_is_ended() {
    let database = Database::new().await;
    let mut other = database.owner.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(0x6861_7573_i64).execute(&mut *other).await.unwrap();
    let url = |user: &str| format!("postgres://{user}@127.0.0.1:{}/{}", database.port, database.name);
    let waiting = Waiting::on(&url("haus_test"), &url("haus_owner"));
    let code = tokio::task::spawn_blocking(move || waiting.ended(&["migrate"], 1_500, Signal::INT));
    assert_eq!(code.await.unwrap(), Some(130));
    // Also inside a statement: the server gives it up when its client has gone, and the lock with it.
    sqlx::raw_sql("SELECT pg_advisory_unlock_all(); BEGIN; LOCK TABLE schema_migrations")
        .execute(&mut *other)
        .await
        .unwrap();
    let waiting = Waiting::on(&url("haus_test"), &url("haus_owner"));
    let code = tokio::task::spawn_blocking(move || waiting.ended(&["migrate"], 1_500, Signal::TERM));
    assert_eq!(code.await.unwrap(), Some(143));
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut held = 1;
    for _ in 0..100 {
        held = sqlx::query_scalar::<_, i64>(left).fetch_one(&mut *other).await.unwrap();
        if held == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(held, 0, "the ended migration still keeps others out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_silent_holds_nobody_up() {
    let database = Database::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://haus_test@127.0.0.1:{}/{}", database.port, database.name);
    let mut waiting = Waiting::on(&url, &url);
    waiting.settings.push(("REDIS_URL", format!("redis://{}", silent.local_addr().unwrap())));
    let ended = tokio::task::spawn_blocking(move || {
        // Before it is ready, and after.
        [50, 250, 4_000].map(|wait_ms| waiting.ended(&["serve"], wait_ms, Signal::TERM))
    });
    assert_eq!(ended.await.unwrap(), [Some(0); 3]);
    drop(silent);
}

/// Whether a process goes on working in this folder or below: a server may need a while for its last checkpoint.
fn works_in(folder: &Path) -> bool {
    let start = std::time::Instant::now();
    while works_in_now(folder) {
        if start.elapsed() > DEADLINE {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn works_in_now(folder: &Path) -> bool {
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .into_iter()
        .any(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
}

#[test]
fn a_private_postgres_that_is_being_started_is_stopped_too() {
    let waiting = Waiting::new(&[]);
    for wait_ms in [150, 500, 900, 1_300, 1_800, 2_400] {
        assert_eq!(waiting.ended(&["serve"], wait_ms, Signal::TERM), Some(0), "after {wait_ms} ms");
        assert!(!works_in(&waiting.data()), "a server was left running after {wait_ms} ms");
    }
    // A command beside no node starts it as well.
    let mut token = waiting.start(&["token", "--email", "nobody@haus.example"]);
    std::thread::sleep(Duration::from_millis(300));
    token.signal(Signal::INT);
    assert!(token.wait(DEADLINE).is_some(), "{}", waiting.log());
    assert!(!works_in(&waiting.data()));
    // What was given up in the middle is no obstacle.
    let mut node = waiting.start(&["serve"]);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !waiting.log().contains("\"ready\":true") {
        assert!(node.has_ended().is_none() && std::time::Instant::now() < deadline, "{}", waiting.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    node.signal(Signal::INT);
    assert_eq!(node.wait(DEADLINE).and_then(|status| status.code()), Some(0), "{}", waiting.log());
}

/// A process with its stderr on a pipe, and the end that is read.
fn piped(waiting: &Waiting, arguments: &[&str], stdout: Stdout) -> (Process, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    (Process::spawn("haus", waiting.command(arguments), Path::new(&path), stdout).unwrap(), reader)
}

/// The address in the ready line.
fn address(node: &mut Process) -> String {
    let mut line = String::new();
    BufReader::new(node.stdout().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}"));
    ready["listen"].as_str().unwrap().to_owned()
}

fn is_ready(address: &str) -> bool {
    let mut answer = String::new();
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    socket.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn serves_and_drains(waiting: &Waiting, node: &mut Process, address: &str) {
    for _ in 0..10 {
        assert!(is_ready(address));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(node.has_ended(), None);
    node.signal(Signal::TERM);
    let status = node.wait(DEADLINE).expect("it drains");
    assert_eq!((status.signal(), status.code()), (None, Some(0)));
    assert!(!works_in(&waiting.data()), "its Postgres was left running");
}

#[test]
fn a_node_whose_log_nobody_takes_serves_and_drains() {
    let waiting = Waiting::new(&[("HAUS_LOG", "trace".to_owned())]);
    let mut node = Process::spawn("haus", waiting.command(&["serve"]), Path::new("/dev/full"), Stdout::Read).unwrap();
    let at = address(&mut node);
    serves_and_drains(&waiting, &mut node, &at);
    // `haus serve 2>&1 | tee log`, and then Ctrl-C: the reader ends first.
    let (mut node, reader) = piped(&waiting, &["serve"], Stdout::Read);
    let at = address(&mut node);
    drop(reader);
    serves_and_drains(&waiting, &mut node, &at);
}

#[test]
fn a_command_whose_words_nobody_takes_ends_as_always() {
    let waiting = Waiting::new(&[]);
    let (mut migrate, reader) = piped(&waiting, &["migrate"], Stdout::Read);
    drop(reader);
    let mut said = String::new();
    migrate.stdout().unwrap().read_to_string(&mut said).unwrap();
    let status = migrate.wait(DEADLINE).expect("it ends");
    assert_eq!((status.signal(), status.code()), (None, Some(0)), "{said}");
    assert!(!works_in(&waiting.data()), "its Postgres was left running");
    // `2>&1 | head`: what was asked for could not be said, which is a failure and no crash.
    let (mut status_only, reader) = piped(&waiting, &["migrate", "--status"], Stdout::Log);
    drop(reader);
    let status = status_only.wait(DEADLINE).expect("it ends");
    assert_eq!((status.signal(), status.code()), (None, Some(1)));
    assert!(!works_in(&waiting.data()), "its Postgres was left running");
    // A wrong setting is named to nobody, with its code.
    let (mut refused, reader) = piped(&waiting, &["serve", "--heartbeat-ms", "banana"], Stdout::Log);
    drop(reader);
    assert_eq!(refused.wait(DEADLINE).and_then(|status| status.code()), Some(2));
}
