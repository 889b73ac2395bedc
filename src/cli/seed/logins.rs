//! Who can log in after a seed, and with which password. The private database's passwords are random and kept in
//! `<data>/logins.txt`; a real database gets none unless the operator gives one.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;

use haus::store::{private_file, random_hex};

use super::super::error::CliError;

/// The people of the community that can log in on the private database, by e-mail address.
const LOGINS: [&str; 3] = ["admin@hausofbasquiat.com", "celestine@haus.example", "kiki@haus.example"];

/// Passwords by e-mail address.
pub type Passwords = HashMap<String, String>;

/// The operator's password for the three, or none for anybody.
pub fn given(password: Option<&str>) -> Passwords {
    password.into_iter().flat_map(|given| LOGINS.map(|email| (email.to_owned(), given.to_owned()))).collect()
}

/// The passwords in `path`; made and written first where there is none, so that a crash before the end of the seed
/// cannot leave accounts whose password nobody knows.
pub fn kept_or_made(path: &Path, password: Option<&str>) -> Result<Passwords, CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    match fs::read_to_string(path) {
        Ok(text) => return Ok(parse(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut made = given(password);
    for email in LOGINS {
        if !made.contains_key(email) {
            made.insert(email.to_owned(), random_hex::<8>().map_err(failed)?);
        }
    }
    let line = |email: &str| format!("{email} {}\n", made.get(email).map_or("", String::as_str));
    private_file::replace(path, &LOGINS.map(line).concat()).map_err(failed)?;
    Ok(made)
}

fn parse(text: &str) -> Passwords {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(email, password)| (email.into(), password.into()))
        .collect()
}

/// For people: who can log in. The passwords themselves are shown once, when they are made, and to a terminal alone: what
/// goes into a file or a journal is kept and read by others.
pub fn described(path: &Path, made: Option<&Passwords>) -> String {
    describe(path, made.filter(|_| std::io::stderr().is_terminal()))
}

fn describe(path: &Path, shown: Option<&Passwords>) -> String {
    match shown {
        Some(passwords) => {
            let line = |email: &str| format!("    {email:<28} {}", passwords.get(email).map_or("", String::as_str));
            format!("  Log in as (kept in {}):\n{}", path.display(), LOGINS.map(line).join("\n"))
        }
        None if path.exists() => format!("  Logins are in {}", path.display()),
        None => format!("  {} is gone; the accounts keep their passwords", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::{LOGINS, describe, given, kept_or_made};

    #[test]
    fn passwords_are_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("haus-logins-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).expect("folder");
        let path = folder.join("logins.txt");
        let first = kept_or_made(&path, None).expect("made");
        assert_eq!(first.len(), LOGINS.len());
        assert_eq!(kept_or_made(&path, Some("other")).expect("kept"), first);
        assert_eq!(std::fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
        let secret = first.values().next().expect("one");
        assert!(describe(&path, Some(&first)).contains(secret));
        assert!(!describe(&path, None).contains(secret) && describe(&path, None).contains("logins.txt"));
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(given(None).is_empty());
    }
}
