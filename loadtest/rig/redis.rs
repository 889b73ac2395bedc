//! A private Redis without persistence: a courier that may die, hang and come back empty.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{LOOK_AGAIN, Process, Stdout, guarded};
use super::{RigError, free_port};

const START_DEADLINE: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_millis(200);

/// A private server.
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    port: u16,
    log: PathBuf,
}

impl Redis {
    /// Starts one; its log goes to `logs`.
    ///
    /// # Errors
    /// [`RigError`] when `redis-server` is missing or does not come up.
    pub fn start(logs: &Path) -> Result<Self, RigError> {
        let mut redis = Self { process: None, port: free_port()?, log: logs.join("redis.log") };
        redis.resume()?;
        Ok(redis)
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Errors
    /// [`RigError::NotReady`] after 10 s.
    pub fn resume(&mut self) -> Result<(), RigError> {
        let start = Instant::now();
        loop {
            let mut command = guarded(Path::new("redis-server"), "KILL", &[]);
            command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.current_dir(std::env::temp_dir());
            let mut process = Process::spawn("redis-server", command, &self.log, Stdout::Log)?;
            while process.has_ended().is_none() && start.elapsed() < START_DEADLINE {
                if self.answers() {
                    self.process = Some(process);
                    return Ok(());
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            if start.elapsed() >= START_DEADLINE {
                return Err(process.not_ready());
            }
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it: connections stay open and answer nothing (a silent black hole).
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Redis::freeze`].
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    fn answers(&self) -> bool {
        let ping = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(PING_TIMEOUT))?;
            stream.write_all(b"PING\r\n")?;
            let mut reply = [0; 5];
            stream.read_exact(&mut reply)?;
            Ok(&reply == b"+PONG")
        };
        ping().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Folder;
    use super::Redis;

    #[test]
    fn dies_hangs_and_comes_back_on_its_port() {
        let logs = Folder::new("test-logs").unwrap();
        let mut redis = Redis::start(logs.path()).unwrap();
        let url = redis.url();
        redis.freeze();
        assert!(!redis.answers(), "a frozen one answers nothing");
        redis.thaw();
        assert!(redis.answers());
        redis.kill();
        assert!(!redis.answers());
        redis.resume().unwrap();
        assert!(redis.answers());
        assert_eq!(redis.url(), url);
    }
}
