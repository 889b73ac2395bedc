//! What every handler may use. Built once by the composition root; cloning is cheap.

use std::sync::Arc;

use sqlx::PgPool;

use super::address::TrustedProxies;
use super::origins::Origins;
use super::rate_limit::RateLimits;
use crate::config::Config;
use crate::identity::Identity;
use crate::limits::WorkRates;
use crate::messaging::send::SendChecker;
use crate::messaging::{Publisher, Sender};

/// What routes of threads need of the node they run on.
#[derive(Clone)]
pub struct Ports {
    pub sender: Arc<dyn Sender>,
    pub checker: Arc<SendChecker>,
    pub publisher: Arc<dyn Publisher>,
    /// The present epoch of the log.
    pub epoch: Arc<dyn Fn() -> String + Send + Sync>,
    /// Rates by person and address, the same for commands of sockets.
    pub work: Arc<WorkRates>,
}

/// The shared state of all routes.
#[derive(Clone)]
pub struct AppState {
    pub identity: Arc<Identity>,
    pub config: Arc<Config>,
    /// The primary.
    pub pool: PgPool,
    pub rate_limits: Arc<RateLimits>,
    pub trusted_proxies: Arc<TrustedProxies>,
    pub origins: Arc<Origins>,
    pub ports: Ports,
    pub work: Arc<WorkRates>,
}

impl AppState {
    /// State with empty rate limits.
    ///
    /// # Errors
    /// The first entry of `HAUS_TRUSTED_PROXIES`, `HAUS_PUBLIC_URL` or `HAUS_ORIGINS` that is none, named.
    pub fn new(identity: Arc<Identity>, config: Arc<Config>, pool: PgPool, ports: Ports) -> Result<Self, String> {
        let trusted_proxies = Arc::new(TrustedProxies::parse(&config.trusted_proxies)?);
        let origins = Arc::new(Origins::parse(config.public_url.as_deref(), &config.origins)?);
        let rate_limits = Arc::new(RateLimits::new(config.limits_on()));
        let work = ports.work.clone();
        Ok(Self { work, identity, config, pool, rate_limits, trusted_proxies, origins, ports })
    }
}
