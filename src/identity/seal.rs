//! Personal data at rest: sealed with an AEAD (AES-256-GCM-SIV, RFC 8452, which forgives a repeated nonce) whose
//! associated data names table, column and row, so that a ciphertext moved elsewhere does not open. Look-up by equality
//! goes through a blind index. Which columns are sealed is decided by the tables' owners, not here.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use uuid::Uuid;

use super::error::IdentityError;
use super::keys::{ID_BYTES, Keys, random_bytes};
use crate::text;

/// First byte of every sealed value: the format.
const VERSION: u8 = 2;
/// The format before root keys could be changed: without the key's id.
const WITHOUT_ID: u8 = 1;

/// Seals and opens column values, and makes blind indexes.
pub struct Sealer {
    /// The present one seals and indexes; values and indexes of the others are read and found.
    keys: Vec<Key>,
}

/// What comes of one root key.
struct Key {
    id: [u8; ID_BYTES],
    sealing: LessSafeKey,
    blind_index: hmac::Key,
}

impl Sealer {
    pub fn new(keys: &Keys) -> Result<Self, IdentityError> {
        let key = |one: &Keys| {
            let unbound =
                UnboundKey::new(&AES_256_GCM_SIV, &one.sealing).map_err(|_| IdentityError::Crypto("sealing key"))?;
            let blind_index = hmac::Key::new(hmac::HMAC_SHA256, &one.blind_index);
            Ok(Key { id: one.id, sealing: LessSafeKey::new(unbound), blind_index })
        };
        Ok(Self { keys: keys.ring().map(key).collect::<Result<_, IdentityError>>()? })
    }

    fn present(&self) -> Result<&Key, IdentityError> {
        self.keys.first().ok_or(IdentityError::Crypto("no sealing key"))
    }

    /// What every value sealed with the present key begins with.
    pub fn present_start(&self) -> Vec<u8> {
        self.keys.first().map(|key| [&[VERSION], key.id.as_slice()].concat()).unwrap_or_default()
    }

    /// `version | key id | nonce | ciphertext | tag` of `plain`, bound to its place.
    pub fn seal(&self, table: &str, column: &str, row: Uuid, plain: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let nonce = random_bytes::<NONCE_LEN>()?;
        let mut body = plain.to_vec();
        let key = self.present()?;
        key.sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(table, column, row)),
                &mut body,
            )
            .map_err(|_| IdentityError::Crypto("seal"))?;
        let mut out = Vec::with_capacity(1 + ID_BYTES + NONCE_LEN + body.len());
        out.push(VERSION);
        out.extend_from_slice(&key.id);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// The plain bytes. Fails when the value was changed, moved from another place or sealed with a key not known here.
    pub fn open(&self, table: &str, column: &str, row: Uuid, sealed: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let unopened = IdentityError::Crypto("sealed value does not open");
        match sealed {
            [VERSION, rest @ ..] => {
                let (id, rest) = rest.split_at_checked(ID_BYTES).ok_or(IdentityError::Crypto("sealed length"))?;
                let key = self
                    .keys
                    .iter()
                    .find(|key| key.id == id)
                    .ok_or(IdentityError::Crypto("sealed with another key"))?;
                open_with(key, &place(table, column, row), rest).ok_or(unopened)
            }
            [WITHOUT_ID, rest @ ..] => {
                let place = place(table, column, row);
                self.keys.iter().find_map(|key| open_with(key, &place, rest)).ok_or(unopened)
            }
            _ => Err(IdentityError::Crypto("sealed version")),
        }
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

    /// [`Sealer::email_index`] under every key, the present one first: what an address may be stored under.
    pub fn email_indexes(&self, email: &str) -> Vec<Vec<u8>> {
        self.indexes(text::email_key(email).as_bytes())
    }

    /// The same of [`Sealer::origin_index`].
    pub fn origin_indexes(&self, user: Uuid, network: &str) -> Vec<Vec<u8>> {
        self.indexes(format!("origin|{user}|{network}").as_bytes())
    }

    fn indexes(&self, value: &[u8]) -> Vec<Vec<u8>> {
        self.keys.iter().map(|key| hmac::sign(&key.blind_index, value).as_ref().to_vec()).collect()
    }

    fn index(&self, value: &[u8]) -> [u8; 32] {
        let mut out = [0_u8; 32];
        if let Some(key) = self.keys.first() {
            out.copy_from_slice(hmac::sign(&key.blind_index, value).as_ref());
        }
        out
    }
}

fn open_with(key: &Key, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let plain_bytes = key.sealing.open_in_place(nonce, Aad::from(place), &mut body).ok()?.len();
    body.truncate(plain_bytes);
    Some(body)
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
    fn while_a_root_key_is_changed_both_open_and_the_present_one_seals() {
        let keys = |present: u8, also: &[[u8; 32]]| {
            let keys = Keys::derive(&[present; 32]).and_then(|keys| keys.with_also(also));
            keys.and_then(|keys| Sealer::new(&keys)).unwrap_or_else(|e| panic!("{e}"))
        };
        let (old, both, new) = (keys(1, &[]), keys(2, &[[1; 32], [2; 32]]), keys(2, &[]));
        let row = Uuid::now_v7();
        let before = old.seal("users", "email", row, b"a@b.example").unwrap_or_else(|e| panic!("{e}"));
        let after = both.seal("users", "email", row, b"a@b.example").unwrap_or_else(|e| panic!("{e}"));
        assert!(before.starts_with(&old.present_start()) && after.starts_with(&new.present_start()));
        for (sealer, opens_before, opens_after) in [(&old, true, false), (&both, true, true), (&new, false, true)] {
            assert_eq!(sealer.open("users", "email", row, &before).is_ok(), opens_before);
            assert_eq!(sealer.open("users", "email", row, &after).is_ok(), opens_after);
        }
        // Values sealed before keys had ids.
        let older = [&[1], &before[5..]].concat();
        assert!(both.open("users", "email", row, &older).is_ok() && new.open("users", "email", row, &older).is_err());
        let found = both.email_indexes("a@b.example");
        assert_eq!(found, [new.email_index("a@b.example"), old.email_index("a@b.example")]);
    }

    #[test]
    fn blind_index_ignores_case_and_margins_only() {
        let sealer = sealer(1);
        assert_eq!(sealer.email_index(" Ana@Example.org "), sealer.email_index("ana@example.org"));
        assert_ne!(sealer.email_index("ana@example.org"), sealer.email_index("bea@example.org"));
    }
}
