use super::Settings;
use super::error::CliError;
use clap::Args;
#[derive(Args)]
pub struct SeedArgs {}
pub async fn run(_: Settings, _: SeedArgs) -> Result<(), CliError> {
    Err(CliError::failed("x"))
}
