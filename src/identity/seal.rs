//! Personal data at rest: sealed with an AEAD (AES-256-GCM-SIV, RFC 8452, which forgives a repeated nonce) whose
//! associated data names table, column and row, so that a ciphertext moved elsewhere does not open. Look-up by equality
//! goes through a blind index. Which columns are sealed is decided by the tables' owners, not here.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use uuid::Uuid;

use super::error::IdentityError;
use super::keys::{Keys, random_bytes};
use crate::text;

/// First byte of every sealed value: the format, and with it the key version.
const VERSION: u8 = 1;

/// Seals and opens column values, and makes blind indexes.
pub struct Sealer {
    key: LessSafeKey,
    blind_index: hmac::Key,
}

impl Sealer {
    pub fn new(keys: &Keys) -> Result<Self, IdentityError> {
        let unbound =
            UnboundKey::new(&AES_256_GCM_SIV, &keys.sealing).map_err(|_| IdentityError::Crypto("sealing key"))?;
        Ok(Self { key: LessSafeKey::new(unbound), blind_index: hmac::Key::new(hmac::HMAC_SHA256, &keys.blind_index) })
    }

    /// `version | nonce | ciphertext | tag` of `plain`, bound to its place.
    pub fn seal(&self, table: &str, column: &str, row: Uuid, plain: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let nonce = random_bytes::<NONCE_LEN>()?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(table, column, row)),
                &mut body,
            )
            .map_err(|_| IdentityError::Crypto("seal"))?;
        let mut out = Vec::with_capacity(1 + NONCE_LEN + body.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// The plain bytes. Fails when the value was changed, moved from another place or sealed with another key.
    pub fn open(&self, table: &str, column: &str, row: Uuid, sealed: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let [VERSION, rest @ ..] = sealed else { return Err(IdentityError::Crypto("sealed version")) };
        let Some((nonce, body)) = rest.split_at_checked(NONCE_LEN) else {
            return Err(IdentityError::Crypto("sealed length"));
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| IdentityError::Crypto("nonce"))?;
        let mut body = body.to_vec();
        let plain_bytes = self
            .key
            .open_in_place(nonce, Aad::from(place(table, column, row)), &mut body)
            .map_err(|_| IdentityError::Crypto("sealed value does not open"))?
            .len();
        body.truncate(plain_bytes);
        Ok(body)
    }

    /// [`Sealer::open`] for text.
    pub fn open_text(&self, table: &str, column: &str, row: Uuid, sealed: &[u8]) -> Result<String, IdentityError> {
        String::from_utf8(self.open(table, column, row, sealed)?).map_err(|_| IdentityError::Crypto("sealed text"))
    }

    /// HMAC-SHA-256 of an address in the form in which equal ones are compared: nothing to read from it.
    pub fn email_index(&self, email: &str) -> [u8; 32] {
        self.index(text::email_key(email).as_bytes())
    }

    /// The same of the network a person came from, bound to the account: equal for one account alone.
    pub fn origin_index(&self, user: Uuid, network: &str) -> [u8; 32] {
        self.index(format!("origin|{user}|{network}").as_bytes())
    }

    fn index(&self, value: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.blind_index, value);
        let mut out = [0_u8; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }
}

fn place(table: &str, column: &str, row: Uuid) -> Vec<u8> {
    format!("{table}|{column}|{row}").into_bytes()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Keys, Sealer};

    fn sealer(root: u8) -> Sealer {
        Keys::derive(&[root; 32]).and_then(|keys| Sealer::new(&keys)).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn opens_only_in_its_place_and_unchanged() {
        let (sealer, row) = (sealer(1), Uuid::now_v7());
        let sealed = sealer.seal("users", "email", row, b"a@b.example").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(sealer.open_text("users", "email", row, &sealed).ok().as_deref(), Some("a@b.example"));
        assert!(sealer.open("users", "email", Uuid::now_v7(), &sealed).is_err());
        assert!(sealer.open("users", "phone", row, &sealed).is_err());
        assert!(self::sealer(2).open("users", "email", row, &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open("users", "email", row, &changed).is_err(), "byte {at}");
            assert!(sealer.open("users", "email", row, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn blind_index_ignores_case_and_margins_only() {
        let sealer = sealer(1);
        assert_eq!(sealer.email_index(" Ana@Example.org "), sealer.email_index("ana@example.org"));
        assert_ne!(sealer.email_index("ana@example.org"), sealer.email_index("bea@example.org"));
    }
}
