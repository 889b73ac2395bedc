//! Postgres as a place: the embedded default, migrations, pools, safety checks, the epoch. No statement of a use case
//! lives here; those are with the use cases.

pub mod admission;
pub mod deadlines;
pub mod embedded;
pub mod epoch;
pub mod error;
pub mod migrate;
pub mod pooler;
pub mod pools;
pub mod private_file;
pub mod restored;
pub mod safety;

pub use error::{DbError, is_unavailable, with_deadline};

/// `N` random bytes as hexadecimal text.
pub fn random_hex<const N: usize>() -> Result<String, std::io::Error> {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| std::io::Error::other("no randomness"))?;
    Ok(hex::encode(bytes))
}
