//! Nodes tell each other through Redis how much they let each profile send. A background task does it; no request waits
//! for it, and without Redis the local buckets stand alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy, TlsConnector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use uuid::Uuid;

use super::{RATE_WINDOW_MS, RateLimiter};
use crate::deployment::Deployment;

/// Between exchanges.
pub(super) const EXCHANGE: Duration = Duration::from_millis(500);
/// Profiles in one call of the script; more make more calls.
const PROFILES_A_CALL: usize = 256;
/// Answer to one call.
const RESPONSE: Duration = Duration::from_millis(100);
/// Connecting.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// The breaker: nothing is asked for so long after a failure.
pub(super) const OPEN: Duration = Duration::from_secs(2);
/// Calls that may wait in the client; it is one at a time.
const WAITING_CALLS: usize = 4;

/// Takes from one bucket a key and says what is left, by the clock of Redis. A debt is at most one bucket.
/// `ARGV`: size of a bucket, milliseconds in which it fills, then what to take from each.
const SCRIPT: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local full, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = {}
for i, key in ipairs(KEYS) do
  local held = redis.call('HMGET', key, 'tokens', 'at')
  local tokens = full
  if held[1] and held[2] then
    tokens = math.min(full, tonumber(held[1]) + math.max(0, now - tonumber(held[2])) * full / window)
  end
  tokens = math.max(-full, tokens - tonumber(ARGV[i + 2]))
  redis.call('HSET', key, 'tokens', string.format('%.3f', tokens), 'at', string.format('%d', now))
  redis.call('PEXPIRE', key, 2 * window)
  left[i] = math.floor(tokens)
end
return left";

impl RateLimiter {
    /// Shares what passes with the other nodes of the deployment, on the current runtime, until the limiter is dropped.
    /// `ca`: see [`client`].
    ///
    /// # Errors
    /// When `url` is no Redis URL.
    pub fn share(
        self: &Arc<Self>,
        url: &str,
        ca: Option<&[u8]>,
        deployment: Arc<Deployment>,
    ) -> Result<(), fred::error::Error> {
        if self.on {
            tokio::spawn(exchange(Arc::downgrade(self), client(url, ca)?, deployment));
        }
        Ok(())
    }
}

/// A client for `url` whose calls end soon; `rediss://` is spoken over TLS, with the roots of the machine or, where given,
/// with those in `ca` (PEM) alone.
///
/// # Errors
/// When `url` is no Redis URL, or `ca` holds no certificate.
pub fn client(url: &str, ca: Option<&[u8]>) -> Result<Client, fred::error::Error> {
    let mut config = Config::from_url(url)?;
    if let (Some(tls), Some(ca)) = (&mut config.tls, ca) {
        tls.connector = TlsConnector::from(trusting(ca)?);
    }
    // A Redis that is away at the start is tried again like one that went away later.
    config.fail_fast = false;
    Builder::from_config(config)
        .with_performance_config(|performance| performance.default_command_timeout = RESPONSE)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT;
            connection.internal_command_timeout = CONNECT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = WAITING_CALLS;
            connection.unresponsive.max_timeout = Some(CONNECT);
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 100, 1000, 2))
        .build()
}

fn trusting(ca: &[u8]) -> Result<ClientConfig, fred::error::Error> {
    let wrong = |error: &dyn std::fmt::Display| fred::error::Error::new(ErrorKind::Tls, error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

async fn exchange(limiter: Weak<RateLimiter>, client: Client, deployment: Arc<Deployment>) {
    let connection = client.connect();
    let mut pause = EXCHANGE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(limiter) = limiter.upgrade() else { break };
        pause = EXCHANGE;
        let untold = limiter.take_untold();
        let prefix = deployment.prefix();
        let mut calls = untold.chunks(PROFILES_A_CALL);
        while let Some(call) = calls.next() {
            if let Err(error) = tell(&limiter, &client, &prefix, call).await {
                tracing::debug!(error, "rates are counted by this node alone");
                limiter.put_back(call);
                calls.by_ref().for_each(|call| limiter.put_back(call));
                pause = OPEN;
            }
        }
    }
    let _ = timeout(RESPONSE, client.quit()).await;
    connection.abort();
}

async fn tell(limiter: &RateLimiter, client: &Client, prefix: &str, taken: &[(Uuid, u32)]) -> Result<(), String> {
    let keys: Vec<String> = taken.iter().map(|(profile_id, _)| format!("{prefix}rate:{profile_id}")).collect();
    let mut arguments = vec![limiter.size, RATE_WINDOW_MS as i64];
    arguments.extend(taken.iter().map(|(_, n)| i64::from(*n)));
    let left: Vec<i64> = match timeout(2 * RESPONSE, client.eval(SCRIPT, keys, arguments)).await {
        Ok(Ok(left)) => left,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("no answer".to_owned()),
    };
    let now_ms = limiter.now_ms();
    taken.iter().zip(left).for_each(|((profile_id, _), left)| limiter.cap(*profile_id, left, now_ms));
    Ok(())
}
