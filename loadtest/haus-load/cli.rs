//! The command line of `haus-load`.

use crate::drive::Dialing;
use crate::error::LoadError;
use crate::floor_server::Mode;
use crate::outgoing::Until;
use crate::procfs::Watched;
use crate::schedule::Pace;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Load generator of `haus`: one thread, one epoll loop, up to 19,500 sockets. Exit code 1 when any position came not at all, twice or
/// out of order, a reply or a delivery is missing, or a socket was lost.
#[derive(Debug, Parser)]
#[command(name = "haus-load", version)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One thread with many members: the largest of the tokens file
    Fanout(Paced),
    /// Many threads of few members; messages to all of them in turn
    Rooms(Paced),
    /// Durable sends over many threads: replies per second
    Sends(Paced),
    /// Durable sends into one thread
    Hot(Paced),
    /// Authenticated sockets that do nothing: memory of each
    Idle(Common),
    /// Connect + auth until the reply: sockets ready per second
    Connect(Common),
    /// All sockets are cut (or their node is killed) and resume, messages having been sent meanwhile
    Resume(Resume),
    /// Read marks and the coalesced receipts they cause
    Receipts(Common),
    /// Normal readers beside some that stop reading for the whole time and catch up afterwards
    Slow(Slow),
    /// A floor alone, without any server
    Floor(Floor),
    /// Prints the table of budgets from labelled reports (`{"row":…,"report":…}` a line); exit code 1 when one is missed
    Table {
        /// File of reports; - is standard input
        file: PathBuf,
    },
    /// The process behind a floor; started by the program itself
    #[command(hide = true)]
    FloorServer {
        /// How it writes
        #[arg(long, value_enum)]
        mode: Mode,
    },
}

/// What every scenario takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Address of a node (http://host:port); several: sockets are dealt round
    #[arg(long, num_args = 1.., default_value = "http://127.0.0.1:8080")]
    pub url: Vec<String>,
    /// People, as `haus seed --out` writes them; dealt round when there are more sockets
    #[arg(long)]
    pub tokens: Option<PathBuf>,
    /// Sockets
    #[arg(long, default_value_t = 1000)]
    pub sockets: usize,
    /// Open loop: messages (connect: sockets) a second
    #[arg(long)]
    pub rate: Option<f64>,
    /// Closed loop: messages in flight; with --rate, the most an open loop may have in flight
    #[arg(long)]
    pub in_flight: Option<u64>,
    /// How long, seconds
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Handshakes at once while connecting
    #[arg(long, default_value_t = 256)]
    pub connecting: usize,
    /// Processes whose CPU and memory are reported; one named `postgres` includes its children
    #[arg(long, num_args = 1.., value_name = "NAME=PID")]
    pub pid: Vec<Watched>,
    /// JSON lines instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Scenarios that send by a timetable.
#[derive(Debug, Clone, Args)]
pub struct Paced {
    /// Common arguments
    #[command(flatten)]
    pub common: Common,
    /// Sockets (rooms, sends: socket and thread pairs) that send; default: all
    #[arg(long)]
    pub senders: Option<usize>,
    /// When a message is no longer in flight; default: delivered for fanout and rooms, acked for sends and hot
    #[arg(long, value_enum)]
    pub until: Option<Until>,
    /// Seconds of warm-up
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Run both floors (rooms: one-write; sends: with --floor-db) before and after, and print the ratio
    #[arg(long)]
    pub floor: bool,
    /// Payload bytes of a floor's frame; default: as long as the server's own
    #[arg(long)]
    pub floor_frame_bytes: Option<usize>,
    /// Seconds of each floor
    #[arg(long, default_value_t = 2.0)]
    pub floor_seconds: f64,
    /// sends, hot: drive the same database call back to back with full batches, at this database; no server is needed
    #[arg(long, value_name = "DATABASE_URL")]
    pub floor_db: Option<String>,
}

/// `resume`.
#[derive(Debug, Clone, Args)]
pub struct Resume {
    /// Common arguments
    #[command(flatten)]
    pub common: Common,
    /// Messages sent while the sockets are away
    #[arg(long, default_value_t = 1000)]
    pub away_sends: u64,
    /// Kill this process (the node of the first url) instead of closing the sockets
    #[arg(long)]
    pub kill_pid: Option<u32>,
}

/// `slow`.
#[derive(Debug, Clone, Args)]
pub struct Slow {
    /// Common arguments
    #[command(flatten)]
    pub common: Common,
    /// Sockets that stop reading
    #[arg(long, default_value_t = 50)]
    pub stalled: usize,
}

/// `floor`.
#[derive(Debug, Clone, Args)]
pub struct Floor {
    /// Receiving sockets
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
    /// Rooms they are dealt over
    #[arg(long, default_value_t = 1)]
    pub rooms: u32,
    /// Closed loop: messages in flight
    #[arg(long)]
    pub in_flight: Option<u64>,
    /// Open loop: messages a second
    #[arg(long)]
    pub rate: Option<f64>,
    /// How it writes
    #[arg(long, value_enum, default_value = "coalesced")]
    pub mode: Mode,
    /// How long, seconds
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Payload bytes of a frame
    #[arg(long, default_value_t = 560)]
    pub frame_bytes: usize,
    /// JSON lines instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// How sockets are opened when connecting is not what is measured.
    pub fn dialing(&self) -> Dialing {
        Dialing { at_once: self.connecting.max(1), per_second: None }
    }
}

/// Open loop for a rate, closed loop for a number in flight, `usual` in flight for neither.
pub fn pace(rate: Option<f64>, in_flight: Option<u64>, usual: u64) -> Result<Pace, LoadError> {
    match (rate, in_flight) {
        (Some(rate), _) if !(rate > 0.0 && rate.is_finite()) => {
            Err(LoadError::Usage("--rate must be above 0".to_owned()))
        }
        (_, Some(0)) => Err(LoadError::Usage("--in-flight must be above 0".to_owned())),
        (Some(per_second), most) => Ok(Pace::Open { per_second, most: most.unwrap_or(u64::MAX) }),
        (None, most) => Ok(Pace::Closed { in_flight: most.unwrap_or(usual) }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, Pace, pace};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent_and_takes_what_the_protocol_page_promises() {
        Cli::command().debug_assert();
        let line = "haus-load fanout --url http://a:1 http://b:2 --tokens f --sockets 9 --rate 5 --seconds 3 --in-flight 4 \
                    --pid haus=1 redis=2 --json";
        assert!(Cli::try_parse_from(line.split_whitespace()).is_ok());
        assert!(Cli::try_parse_from(["haus-load", "fanout", "--pid", "1"]).is_err());
    }

    #[test]
    fn rate_and_in_flight_choose_the_loop() {
        assert_eq!(pace(None, None, 32).ok(), Some(Pace::Closed { in_flight: 32 }));
        assert_eq!(pace(Some(9.0), Some(3), 32).ok(), Some(Pace::Open { per_second: 9.0, most: 3 }));
        assert!(pace(Some(0.0), None, 1).is_err());
        assert!(pace(None, Some(0), 1).is_err());
    }
}
