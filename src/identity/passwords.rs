//! Password hashing: argon2id with the OWASP parameters, on blocking threads, at most one per core at a time and a
//! bounded number waiting. Rules about what a password may be live with the request's validation.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use super::error::IdentityError;

/// Hashes that may wait for a core; above it the answer is `unavailable`.
const QUEUE_MAX: usize = 64;
/// What a refused caller is told to wait, milliseconds.
const BUSY_RETRY_MS: u32 = 1_000;

/// Work factor of argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    pub memory_kib: u32,
    pub passes: u32,
}

impl PasswordCost {
    /// m = 19 MiB, t = 2, p = 1 (OWASP Password Storage Cheat Sheet; ASVS 5.0, appendix C).
    pub const OWASP: Self = Self { memory_kib: 19 * 1024, passes: 2 };
}

/// The hasher with its queue.
pub struct Passwords {
    argon2: Argon2<'static>,
    cost: PasswordCost,
    cores: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// Verified against when the account is unknown or has no password, so that time tells nothing.
    decoy: String,
}

/// What a check of a password said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right,
    /// Right, but the stored hash is of another cost than today's: hash again.
    RightButStale,
}

impl Passwords {
    /// `cores` hashes run at a time. Makes one hash, the decoy.
    pub fn new(cost: PasswordCost, cores: usize) -> Result<Self, IdentityError> {
        let params =
            Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|_| IdentityError::Crypto("password cost"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash_now(&argon2, "a password that nobody has")?;
        let cores = cores.max(1);
        Ok(Self {
            argon2,
            cost,
            cores: Arc::new(Semaphore::new(cores)),
            places: Arc::new(Semaphore::new(cores + QUEUE_MAX)),
            decoy,
        })
    }

    /// The PHC string of `password` with a fresh salt.
    pub async fn hash(&self, password: String) -> Result<String, IdentityError> {
        let argon2 = self.argon2.clone();
        self.on_a_core(move || hash_now(&argon2, &password)).await?
    }

    /// Checks `password` against `stored`. The work is the same when `stored` is `None`.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<Verdict, IdentityError> {
        let argon2 = self.argon2.clone();
        let (known, hash) = match stored {
            Some(hash) => (true, hash),
            None => (false, self.decoy.clone()),
        };
        let cost = self.cost;
        self.on_a_core(move || {
            let parsed = PasswordHash::new(&hash).map_err(|_| IdentityError::Crypto("stored password hash"))?;
            let right = argon2.verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(match (right && known, is_stale(&parsed, cost)) {
                (false, _) => Verdict::Wrong,
                (true, false) => Verdict::Right,
                (true, true) => Verdict::RightButStale,
            })
        })
        .await?
    }

    async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IdentityError> {
        let busy = IdentityError::Busy { retry_after_ms: BUSY_RETRY_MS };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Err(busy) };
        let core = Arc::clone(&self.cores).acquire_owned().await.map_err(|_| IdentityError::Task)?;
        // The permits move into the thread: a caller that goes away does not free the core it still uses.
        tokio::task::spawn_blocking(move || {
            let out = work();
            drop((core, place));
            out
        })
        .await
        .map_err(|_| IdentityError::Task)
    }
}

fn hash_now(argon2: &Argon2<'_>, password: &str) -> Result<String, IdentityError> {
    argon2
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| IdentityError::Crypto("password hash"))
}

fn is_stale(stored: &PasswordHash, cost: PasswordCost) -> bool {
    Params::try_from(stored).map_or(true, |params| params.m_cost() != cost.memory_kib || params.t_cost() != cost.passes)
}

#[cfg(test)]
mod tests {
    use super::{PasswordCost, Passwords, Verdict};

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1 };

    #[tokio::test]
    async fn right_wrong_unknown_and_stale() {
        let passwords = Passwords::new(CHEAP, 1).unwrap_or_else(|e| panic!("{e}"));
        let hash = passwords.hash("a long secret".into()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        let verify = |password: &str, stored: Option<&str>| passwords.verify(password.into(), stored.map(Into::into));
        assert_eq!(verify("a long secret", Some(&hash)).await.ok(), Some(Verdict::Right));
        assert_eq!(verify("another", Some(&hash)).await.ok(), Some(Verdict::Wrong));
        assert_eq!(verify("a password that nobody has", None).await.ok(), Some(Verdict::Wrong));
        let dearer = Passwords::new(PasswordCost { passes: 2, ..CHEAP }, 1).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(dearer.verify("a long secret".into(), Some(hash)).await.ok(), Some(Verdict::RightButStale));
    }
}
