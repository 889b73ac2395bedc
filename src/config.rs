//! Settings: one struct for environment and flags. `haus --help` lists every one; a wrong one names itself (exit 2).

mod check;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use check::cannot_listen;
use clap::{Args, ValueEnum};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Whether rates and the caps per address and profile apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// Where this runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Environment {
    Development,
    Production,
}

/// Whether people make accounts by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    Open,
    Closed,
}

/// Every setting of the product. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Postgres as the application role (owns nothing). Absent: a private Postgres in the data folder
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,
    /// Postgres as the owner; used by `haus migrate` alone
    #[arg(long, env = "DATABASE_OWNER_URL", hide_env_values = true, global = true)]
    pub database_owner_url: Option<String>,
    /// Read replica for analytics and heavy reads
    #[arg(long, env = "DATABASE_REPLICA_URL", hide_env_values = true, global = true)]
    pub database_replica_url: Option<String>,
    /// Redis. Absent: in-process courier, one node only
    #[arg(long, env = "REDIS_URL", hide_env_values = true, global = true)]
    pub redis_url: Option<String>,
    /// Certificates (PEM) that a rediss:// server is trusted by; the machine's when absent
    #[arg(long, env = "HAUS_REDIS_CA", global = true)]
    pub redis_ca: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "HAUS_LISTEN", default_value = "127.0.0.1:8080", value_parser = check::socket_address, global = true)]
    pub listen: SocketAddr,
    /// A second address for /metrics, /healthz and /readyz
    #[arg(long, env = "HAUS_OPS_LISTEN", value_parser = check::socket_address, global = true)]
    pub ops_listen: Option<SocketAddr>,
    /// Name of this node; random when absent
    #[arg(long, env = "HAUS_NODE", global = true)]
    pub node: Option<String>,
    /// Folder of the private Postgres, keys, mail and media
    #[arg(long, env = "HAUS_DATA_DIR", default_value = "./data", global = true)]
    pub data_dir: PathBuf,
    /// development or production
    #[arg(long, env = "HAUS_ENV", value_enum, default_value = "development", global = true)]
    pub environment: Environment,
    /// How people reach this site, for links
    #[arg(long, env = "HAUS_PUBLIC_URL", global = true)]
    pub public_url: Option<String>,
    /// Allowed browser origins, comma separated; the own address is always allowed
    #[arg(long, env = "HAUS_ORIGINS", value_delimiter = ',', global = true)]
    pub origins: Vec<String>,
    /// Networks (CIDR) whose X-Forwarded-For is believed, comma separated
    #[arg(long, env = "HAUS_TRUSTED_PROXIES", value_delimiter = ',', global = true)]
    pub trusted_proxies: Vec<String>,
    /// Root key: 32 bytes in base64, the same on all nodes. Absent: made in the data folder
    #[arg(long, env = "HAUS_SECRET_KEY", hide_env_values = true, global = true)]
    pub secret_key: Option<String>,
    /// Root keys that are accepted beside it, comma separated: the last one after a change, the next one before it
    #[arg(long, env = "HAUS_SECRET_KEYS_ALSO", hide_env_values = true, value_delimiter = ',', global = true)]
    pub secret_keys_also: Vec<String>,
    /// off lifts rates and caps per address and profile, for load tests
    #[arg(long, env = "HAUS_LIMITS", value_enum, default_value = "on", global = true)]
    pub limits: Switch,
    /// Sends a profile may make in 10 seconds
    #[arg(long, env = "HAUS_SENDS_PER_10S", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000), global = true)]
    pub sends_per_10s: u32,
    /// Sockets a profile may hold; the oldest is closed above it
    #[arg(long, env = "HAUS_SESSIONS_PER_PROFILE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000), global = true)]
    pub sessions_per_profile: u32,
    /// Sockets one address may hold
    #[arg(long, env = "HAUS_SOCKETS_PER_ADDRESS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), global = true)]
    pub sockets_per_address: u32,
    /// Threads a profile may be in; nobody adds it to more, and it opens no more
    #[arg(long, env = "HAUS_THREADS_PER_PROFILE", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000), global = true)]
    pub threads_per_profile: u32,
    /// Largest frame a client may send, bytes
    #[arg(long, env = "HAUS_FRAME_BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1024..=1_048_576), global = true)]
    pub frame_bytes: u32,
    /// Heartbeat interval, milliseconds
    #[arg(long, env = "HAUS_HEARTBEAT_MS", default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(50..=600_000), global = true)]
    pub heartbeat_ms: u64,
    /// Time a socket has to authenticate, milliseconds
    #[arg(long, env = "HAUS_AUTH_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(50..=60_000), global = true)]
    pub auth_timeout_ms: u64,
    /// Life of an access token, milliseconds
    #[arg(long, env = "HAUS_ACCESS_TTL_MS", default_value_t = 600_000, value_parser = clap::value_parser!(u64).range(1_000..=86_400_000), global = true)]
    pub access_ttl_ms: u64,
    /// A socket that takes nothing for so long is closed, milliseconds
    #[arg(long, env = "HAUS_SLOW_CLOSE_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=600_000), global = true)]
    pub slow_close_ms: u64,
    /// Time a drain takes, milliseconds
    #[arg(long, env = "HAUS_DRAIN_MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(0..=600_000), global = true)]
    pub drain_ms: u64,
    /// Worker loops for sockets; half of the cores when absent
    #[arg(long, env = "HAUS_WORKERS", value_parser = parse_workers, global = true)]
    pub workers: Option<usize>,
    /// open: anybody registers; closed: accounts are made by those who run this
    #[arg(long, env = "HAUS_REGISTRATION", value_enum, default_value = "open", global = true)]
    pub registration: Registration,
    /// New accounts are ACTIVE members at once
    #[arg(long, env = "HAUS_AUTO_ACTIVATE", default_value_t = false, action = clap::ArgAction::Set, global = true)]
    pub auto_activate: bool,
    /// Password of the seeded accounts on a database that is not the private one
    #[arg(long, env = "HAUS_SEED_PASSWORD", hide_env_values = true, global = true)]
    pub seed_password: Option<String>,
    /// Log filter, such as info or haus=debug
    #[arg(long, env = "HAUS_LOG", default_value = "info", global = true)]
    pub log: String,
}

impl Config {
    /// Whether rates and caps apply.
    pub fn limits_on(&self) -> bool {
        self.limits == Switch::On
    }

    /// What `HAUS_REDIS_CA` holds.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn redis_ca(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(path) = &self.redis_ca else { return Ok(None) };
        match std::fs::read(path) {
            Ok(pem) if holds_certificates(&pem) => Ok(Some(pem)),
            Ok(_) => Err(format!("HAUS_REDIS_CA: {} holds no certificate (PEM)", path.display())),
            Err(error) => Err(format!("HAUS_REDIS_CA: {}: {error}", path.display())),
        }
    }

    /// Threads a profile may be in, as the database takes it.
    pub fn most_threads(&self) -> i32 {
        let most = if self.limits_on() { self.threads_per_profile } else { u32::MAX };
        i32::try_from(most).unwrap_or(i32::MAX)
    }
}

/// Whether a PEM file holds at least one certificate, and nothing that cannot be read.
fn holds_certificates(pem: &[u8]) -> bool {
    let mut found = CertificateDer::pem_slice_iter(pem).peekable();
    found.peek().is_some() && found.all(|certificate| certificate.is_ok())
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(fits @ 1..=64) => Ok(fits),
        _ => Err("a number from 1 to 64".to_owned()),
    }
}
