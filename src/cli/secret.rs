//! The root key of the deployment: given by `HAUS_SECRET_KEY`, else made once in the data folder.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use haus::config::Config;
use haus::identity::Keys;
use haus::identity::keys::{new_root_key, of_settings};
use haus::store::private_file;

use super::error::CliError;

/// Fills `config.secret_key` in, so that every layer sees the same, and derives the keys. For a database of the
/// operator's the key must be given: one made here would be another on every node, and lost with this folder.
pub fn load(config: &mut Config) -> Result<Keys, CliError> {
    let text = match (config.secret_key.clone(), &config.database_url) {
        (Some(text), _) => text,
        (None, Some(_)) => {
            return Err(CliError::setting(
                "HAUS_SECRET_KEY: needed where DATABASE_URL is set, the same on all nodes (openssl rand -base64 32)",
            ));
        }
        (None, None) => kept(&config.data_dir)?,
    };
    let keys = of_settings(&text, &config.secret_keys_also).map_err(CliError::setting)?;
    config.secret_key = Some(text.trim().to_owned());
    Ok(keys)
}

/// The key in `<data>/secret.key`, made at the first use.
fn kept(data_dir: &Path) -> Result<String, CliError> {
    let path = data_dir.join("secret.key");
    let failed = |error: std::io::Error| CliError::setting(private_file::data_folder(&path, &error));
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    DirBuilder::new().recursive(true).mode(0o711).create(data_dir).map_err(failed)?;
    let made = new_root_key()?;
    match private_file::create(&path, &format!("{made}\n")) {
        Ok(()) => Ok(made),
        // Another process was first: its key is the key.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::read_to_string(&path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}
