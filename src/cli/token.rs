//! `haus token`: a session and an access token for an existing person, for scripts and load tests.

use clap::Args;
use haus::identity::{Identity, IdentitySettings, Keys, PasswordCost};
use sqlx::PgPool;
use uuid::Uuid;

use super::database::Database;
use super::error::CliError;
use super::{Settings, print_line, secret};

#[derive(Args)]
pub struct TokenArgs {
    /// Id of the profile
    #[arg(long, value_name = "ID", conflicts_with = "email", required_unless_present = "email")]
    profile: Option<Uuid>,
    /// E-mail address of the account
    #[arg(long, value_name = "E")]
    email: Option<String>,
    /// How long the token lives: a number and s, m, h or d
    #[arg(long, default_value = "24h", value_parser = parse_ttl)]
    ttl: u64,
}

pub async fn run(mut settings: Settings, args: TokenArgs) -> Result<(), CliError> {
    let database = Database::existing(&settings).await?;
    let made = match secret::load(&mut settings.config) {
        Ok(keys) => issue(&database, keys, &args).await,
        Err(error) => Err(error),
    };
    database.close().await;
    print_line(&made?)
}

async fn issue(database: &Database, keys: Keys, args: &TokenArgs) -> Result<String, CliError> {
    let (pool, keys) = database.bound(keys).await?;
    let identity = identity(pool, &keys, args.ttl)?;
    let profile_id = match (&args.profile, &args.email) {
        (Some(id), _) => *id,
        (None, Some(email)) => identity
            .profile_by_email(email)
            .await?
            .ok_or_else(|| CliError::failed(format!("--email: nobody has the address {email}")))?,
        (None, None) => return Err(CliError::setting("--profile or --email is needed")),
    };
    let session_id = identity.create_session(profile_id, "cli").await?;
    Ok(identity.issue_access(profile_id, session_id, args.ttl)?)
}

/// Identity as commands use it: no logins, so password settings do not matter.
pub fn identity(pool: PgPool, keys: &Keys, access_ttl_ms: u64) -> Result<Identity, CliError> {
    let settings = IdentitySettings {
        access_ttl_ms,
        auto_activate: false,
        // The decoy alone is hashed with it.
        password_cost: PasswordCost { memory_kib: 8, passes: 1 },
        password_cores: 1,
    };
    Ok(Identity::new(pool, keys, settings)?)
}

/// Milliseconds of `90s`, `10m`, `24h`, `7d`; at most 366 days.
fn parse_ttl(text: &str) -> Result<u64, String> {
    let wrong = || "a number and s, m, h or d, such as 24h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds * 1_000) {
        Some(ttl_ms) if (1_000..=366 * 86_400_000).contains(&ttl_ms) => Ok(ttl_ms),
        _ => Err("between 1s and 366d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_ttl;

    #[test]
    fn lives_are_read_with_their_unit() {
        assert_eq!(parse_ttl("24h"), Ok(86_400_000));
        assert_eq!(parse_ttl("90s"), Ok(90_000));
        for wrong in ["", "h", "24", "1w", "-1h", "0s", "367d", "1é", "99999999999999999999h"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }
}
