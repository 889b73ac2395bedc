//! `haus seed`: the small community of `seeds/`, or many people with tokens for load tests. Both are deterministic and
//! may be repeated; both write messages through the doors of the engine, so that seq, no and log agree.

mod community;
mod crowd;
mod logins;
mod progress;

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use clap::Args;
use haus::identity::Keys;
use uuid::Uuid;

use super::database::Database;
use super::error::CliError;
use super::{Settings, secret, stderr};

/// Time inside the ids of seeded things: 2025-01-01, milliseconds since 1970.
const BEGINNING_MS: u64 = 1_735_689_600_000;

#[derive(Args)]
pub struct SeedArgs {
    /// So many people for a load test, in place of the community
    #[arg(long, value_name = "N", requires = "out", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    people: Option<u32>,
    /// So many GROUP threads among them
    #[arg(long, value_name = "R", requires = "people", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    threads: u32,
    /// Members of each thread, dealt round
    #[arg(long, value_name = "K", requires = "people", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    members: u32,
    /// File for one JSON line a person: profileId, token (24 h), threads
    #[arg(long, value_name = "FILE", requires = "people")]
    out: Option<PathBuf>,
}

pub async fn run(mut settings: Settings, args: SeedArgs) -> Result<(), CliError> {
    if args.people.is_some_and(|people| args.members > people) && args.threads > 0 {
        return Err(CliError::setting("--members: more than --people"));
    }
    let keys = secret::load(&mut settings.config)?;
    let database = Database::open(&settings).await?;
    let done = work(&settings, &database, keys, &args).await;
    database.close().await;
    done
}

async fn work(settings: &Settings, database: &Database, keys: Keys, args: &SeedArgs) -> Result<(), CliError> {
    let keys = &database.bound(keys).await?.1;
    if let (Some(people), Some(out)) = (args.people, &args.out) {
        let size = crowd::Size { people, threads: args.threads, members: args.members };
        return crowd::seed(database, keys, size, out).await;
    }
    let told = if database.is_private {
        first_start(settings, database, keys).await?
    } else {
        community::seed(database, keys, &logins::given(settings.config.seed_password.as_deref())).await?;
        match settings.config.seed_password {
            Some(_) => "The seeded people log in with HAUS_SEED_PASSWORD.".to_owned(),
            None => "Nobody was given a password: set HAUS_SEED_PASSWORD before the first seed for that.".to_owned(),
        }
    };
    stderr::say(told);
    Ok(())
}

/// Fills the private database unless it is filled, and says who can log in.
pub async fn first_start(settings: &Settings, database: &Database, keys: &Keys) -> Result<String, CliError> {
    let path = settings.config.data_dir.join("logins.txt");
    if community::is_seeded(database).await? {
        return Ok(logins::described(&path, None));
    }
    let chosen = logins::kept_or_made(&path, settings.config.seed_password.as_deref())?;
    community::seed(database, keys, &chosen).await?;
    Ok(logins::described(&path, Some(&chosen)))
}

/// An id that is the same at every seed: a UUIDv7 of [`BEGINNING_MS`] and the digest of what it stands for.
fn fixed_id(what: &str) -> Uuid {
    let digest = digest(&SHA256, what.as_bytes());
    let mut random = [0_u8; 10];
    random.copy_from_slice(&digest.as_ref()[..10]);
    uuid::Builder::from_unix_timestamp_millis(BEGINNING_MS, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::fixed_id;

    #[test]
    fn seeded_ids_are_stable_and_of_version_7() {
        assert_eq!(fixed_id("person|admin"), fixed_id("person|admin"));
        assert_ne!(fixed_id("person|admin"), fixed_id("person|venus"));
        assert_eq!(fixed_id("x").get_version_num(), 7);
    }
}
