//! The keys of the deployment, all derived from one 32-byte root key (`HAUS_SECRET_KEY`) with HKDF-SHA-256 (RFC 5869).
//! During a rotation there are two root keys: one that signs and seals, others that are still, or already, accepted.
//! One label per purpose, so that no key serves two. What is done with them lives in `tokens`, `seal` and `sessions`.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::error::IdentityError;

/// Bytes of the root key and of every key derived from it.
pub const KEY_BYTES: usize = 32;
/// Bytes of the id of a root key.
pub const ID_BYTES: usize = 4;

const SALT: &[u8] = b"haus/keys/v1";

/// The derived keys. Not `Debug`: they must not reach a log.
#[derive(Clone)]
pub struct Keys {
    /// Names the root key, without giving anything of it away.
    pub id: [u8; ID_BYTES],
    /// What a database keeps to know the root key again.
    pub check: [u8; KEY_BYTES],
    /// Seed of the Ed25519 key that signs access tokens.
    pub signing_seed: [u8; KEY_BYTES],
    /// AEAD key of personal data.
    pub sealing: [u8; KEY_BYTES],
    /// HMAC key of blind indexes.
    pub blind_index: [u8; KEY_BYTES],
    /// HMAC key of `body_mac` in the log: what a repeated nonce is compared with.
    pub message_mac: [u8; KEY_BYTES],
    /// HMAC key that derives the successor of a refresh token.
    pub refresh: [u8; KEY_BYTES],
    /// HMAC key of what nodes tell each other.
    pub courier: [u8; KEY_BYTES],
    /// Those of the root keys accepted beside this one.
    pub also: Vec<Keys>,
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl Keys {
    /// Derives every key from `root`.
    pub fn derive(root: &[u8; KEY_BYTES]) -> Result<Self, IdentityError> {
        let prk = Salt::new(HKDF_SHA256, SALT).extract(root);
        let key = |label: &[u8]| -> Result<[u8; KEY_BYTES], IdentityError> {
            let mut out = [0_u8; KEY_BYTES];
            prk.expand(&[label], Length)
                .and_then(|okm| okm.fill(&mut out))
                .map_err(|_| IdentityError::Crypto("key derivation"))?;
            Ok(out)
        };
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&key(b"key id")?[..ID_BYTES]);
        Ok(Self {
            id,
            check: key(b"check value")?,
            signing_seed: key(b"access token signing")?,
            sealing: key(b"personal data sealing")?,
            blind_index: key(b"blind index")?,
            message_mac: key(b"message body mac")?,
            refresh: key(b"refresh token chain")?,
            courier: key(b"courier envelopes")?,
            also: Vec::new(),
        })
    }

    /// These keys, and those of `roots` accepted beside them; a root key named twice counts once.
    pub fn with_also(mut self, roots: &[[u8; KEY_BYTES]]) -> Result<Self, IdentityError> {
        for root in roots {
            let other = Self::derive(root)?;
            if self.ring().all(|known| known.check != other.check) {
                self.also.push(other);
            }
        }
        Ok(self)
    }

    /// All that are accepted, the present ones first.
    pub fn ring(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.also)
    }
}

/// Reads a root key as `HAUS_SECRET_KEY` holds it: 32 bytes in base64, either alphabet. `None` when it is not that.
pub fn parse_root_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let text = text.trim();
    let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('='))).ok()?;
    bytes.try_into().ok()
}

/// The keys of `HAUS_SECRET_KEY` and `HAUS_SECRET_KEYS_ALSO`.
///
/// # Errors
/// A text that names the setting.
pub fn of_settings(secret_key: &str, also: &[String]) -> Result<Keys, String> {
    let root = |name: &str, text: &str| {
        parse_root_key(text).ok_or_else(|| format!("{name}: 32 bytes in base64 are needed (openssl rand -base64 32)"))
    };
    let present = root("HAUS_SECRET_KEY", secret_key)?;
    let others: Vec<_> = also.iter().map(|text| root("HAUS_SECRET_KEYS_ALSO", text)).collect::<Result<_, String>>()?;
    Keys::derive(&present).and_then(|keys| keys.with_also(&others)).map_err(|error| error.to_string())
}

/// A fresh root key in the form [`parse_root_key`] reads.
pub fn new_root_key() -> Result<String, IdentityError> {
    Ok(STANDARD.encode(random_bytes::<KEY_BYTES>()?))
}

/// `N` bytes of the system's cryptographic randomness.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut out = [0_u8; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_| IdentityError::Crypto("randomness"))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{Keys, new_root_key, parse_root_key};

    #[test]
    fn keys_differ_by_purpose_and_root() {
        let a = Keys::derive(&[1; 32]).unwrap_or_else(|e| panic!("{e}"));
        let b = Keys::derive(&[2; 32]).unwrap_or_else(|e| panic!("{e}"));
        let all = [
            a.signing_seed,
            a.sealing,
            a.blind_index,
            a.message_mac,
            a.refresh,
            a.courier,
            a.check,
            b.signing_seed,
            b.sealing,
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|other| other != one), "key {i} repeats");
        }
    }

    #[test]
    fn root_key_text_is_checked() {
        let text = new_root_key().unwrap_or_else(|e| panic!("{e}"));
        assert!(parse_root_key(&text).is_some());
        assert!(parse_root_key(&text.replace('+', "-").replace('/', "_")).is_some());
        assert!(parse_root_key("c2hvcnQ=").is_none());
        assert!(parse_root_key("not base64 !").is_none());
    }
}
