//! Access tokens: JWT (RFC 9068 profile: `typ` `at+jwt`) signed with Ed25519, checked against an allow-list of one
//! algorithm, type, issuer, audience and key id (RFC 8725). No I/O. Whether the session still lives is not asked here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::IdentityError;
use super::keys::Keys;

/// `typ` of an access token.
pub const TOKEN_TYPE: &str = "at+jwt";
/// `iss` and `aud`: tokens are made and read by the same deployment.
pub const ISSUER: &str = "haus";
pub const AUDIENCE: &str = "haus";
/// Longer tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 2048;
/// Verified tokens remembered in each of the two generations of the cache.
const CACHE_GENERATION_MAX: usize = 32_768;

/// What a valid access token, or a redeemed ticket, stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub profile_id: Uuid,
    pub session_id: Uuid,
    /// Milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// The claims of an access token.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// Profile id.
    pub sub: Uuid,
    /// Session id.
    pub sid: Uuid,
    /// Seconds since 1970.
    pub iat: i64,
    pub exp: i64,
}

/// Signs and verifies access tokens, and remembers what it verified.
pub struct Tokens {
    signing: EncodingKey,
    /// The present key first, then those accepted beside it.
    known: Vec<PublicKey>,
    validation: Validation,
    verified: Mutex<Generations>,
}

/// A key that tokens may be signed with.
struct PublicKey {
    id: String,
    bytes: Vec<u8>,
    verifying: DecodingKey,
}

impl PublicKey {
    fn of(pair: &Ed25519KeyPair) -> Self {
        let bytes = pair.public_key().as_ref().to_vec();
        let id = hex::encode(&digest::digest(&digest::SHA256, &bytes).as_ref()[..8]);
        Self { id, verifying: DecodingKey::from_ed_der(&bytes), bytes }
    }
}

/// A cache bounded by two generations: the young one, when full, becomes the old one and the old one is dropped. A
/// reconnect storm verifies each signature once, at a memory cost of at most 2 × [`CACHE_GENERATION_MAX`] entries.
#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Access>,
    old: HashMap<[u8; 32], Access>,
}

impl Tokens {
    pub fn new(keys: &Keys) -> Result<Self, IdentityError> {
        let pair = |one: &Keys| {
            let pair = Ed25519KeyPair::from_seed_unchecked(&one.signing_seed);
            pair.map_err(|_| IdentityError::Crypto("signing key"))
        };
        let pkcs8 = pair(keys)?.to_pkcs8().map_err(|_| IdentityError::Crypto("signing key"))?;
        let known = keys.ring().map(|one| Ok(PublicKey::of(&pair(one)?)));
        let known = known.collect::<Result<Vec<_>, IdentityError>>()?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 0;
        Ok(Self { signing: EncodingKey::from_ed_der(pkcs8.as_ref()), known, validation, verified: Mutex::default() })
    }

    /// A token for `session_id` that lives `ttl_ms` from `now_ms` (both milliseconds), rounded up to a whole second.
    pub fn issue(&self, profile_id: Uuid, session_id: Uuid, now_ms: i64, ttl_ms: u64) -> Result<String, IdentityError> {
        let ttl_ms = i64::try_from(ttl_ms).unwrap_or(i64::MAX / 4);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: profile_id,
            sid: session_id,
            iat: now_ms.div_euclid(1000),
            exp: now_ms.saturating_add(ttl_ms).saturating_add(999).div_euclid(1000),
        };
        encode(&self.header(), &claims, &self.signing).map_err(|_| IdentityError::Crypto("token signing"))
    }

    /// The header that new tokens of this deployment carry.
    pub fn header(&self) -> Header {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = self.known.first().map(|key| key.id.clone());
        header
    }

    /// What `token` stands for at `now_ms`, or why it is refused.
    pub fn verify(&self, token: &str, now_ms: i64) -> Result<Access, IdentityError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(IdentityError::Unauthenticated("the access token is not valid"));
        }
        let mut key = [0_u8; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        if let Some(access) = self.remembered(&key) {
            return alive(access, now_ms);
        }
        let access = self.verify_signature(token)?;
        self.remember(key, access);
        alive(access, now_ms)
    }

    /// The public keys as a JWK set (RFC 7517, RFC 8037).
    pub fn jwks(&self) -> serde_json::Value {
        let jwk = |key: &PublicKey| {
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "kid": key.id, "x": URL_SAFE_NO_PAD.encode(&key.bytes)})
        };
        serde_json::json!({"keys": self.known.iter().map(jwk).collect::<Vec<_>>()})
    }

    fn verify_signature(&self, token: &str) -> Result<Access, IdentityError> {
        let refused = |_| IdentityError::Unauthenticated("the access token is not valid");
        let header = decode_header(token).map_err(refused)?;
        let key = self.known.iter().find(|key| header.kid.as_deref() == Some(key.id.as_str()));
        let key = key.filter(|_| header.alg == Algorithm::EdDSA && header.typ.as_deref() == Some(TOKEN_TYPE));
        let key = key.ok_or(IdentityError::Unauthenticated("the access token is not valid"))?;
        let claims = decode::<Claims>(token, &key.verifying, &self.validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => expired(),
                _ => IdentityError::Unauthenticated("the access token is not valid"),
            })?
            .claims;
        Ok(Access { profile_id: claims.sub, session_id: claims.sid, expires_at_ms: claims.exp.saturating_mul(1000) })
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Access> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.young.get(key).or_else(|| verified.old.get(key)).copied()
    }

    fn remember(&self, key: [u8; 32], access: Access) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.young.len() >= CACHE_GENERATION_MAX {
            verified.old = std::mem::take(&mut verified.young);
        }
        verified.young.insert(key, access);
    }
}

fn expired() -> IdentityError {
    IdentityError::Unauthenticated("the access token has expired")
}

fn alive(access: Access, now_ms: i64) -> Result<Access, IdentityError> {
    if access.expires_at_ms <= now_ms { Err(expired()) } else { Ok(access) }
}
