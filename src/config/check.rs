//! What a setting may hold beyond its type. Texts here name the variable and never repeat a secret.

use std::io::ErrorKind;
use std::net::SocketAddr;

use axum::http::Uri;
use redis::IntoConnectionInfo;
use sqlx::postgres::PgConnectOptions;

use super::Config;

/// Characters of a node's name.
const NODE_CHARS_MAX: usize = 64;

impl Config {
    /// The first wrong setting, named.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn check(&self) -> Result<(), String> {
        let databases = [
            ("DATABASE_URL", &self.database_url),
            ("DATABASE_OWNER_URL", &self.database_owner_url),
            ("DATABASE_REPLICA_URL", &self.database_replica_url),
        ];
        for (name, url) in databases {
            url.as_deref().map_or(Ok(()), |url| database_url(url).map_err(|why| format!("{name}: {why}")))?;
        }
        if let Some(url) = &self.redis_url {
            redis_url(url).map_err(|why| format!("REDIS_URL: {why}"))?;
        }
        self.redis_ca()?;
        if let Some(node) = &self.node {
            node_name(node).map_err(|why| format!("HAUS_NODE: {why}"))?;
        }
        if let Some(url) = &self.public_url {
            site(url)
                .ok_or_else(|| format!("HAUS_PUBLIC_URL: {url:?} is no address, such as https://chat.example.org"))?;
        }
        for origin in self.origins.iter().map(|origin| origin.trim()).filter(|origin| *origin != "*") {
            let path = site(origin)
                .ok_or_else(|| format!("HAUS_ORIGINS: {origin:?} is no origin, such as https://chat.example.org"))?;
            if !matches!(path.as_str(), "" | "/") {
                return Err(format!("HAUS_ORIGINS: {origin:?} has a path; an origin is scheme, host and port"));
            }
        }
        Ok(())
    }
}

/// An address to listen on.
///
/// # Errors
/// A text with examples.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an IP address and a port are needed, such as 127.0.0.1:8080 (this machine alone), 0.0.0.0:8080 or [::]:8080 (from \
         everywhere)"
            .to_owned()
    })
}

/// Why a node cannot listen on the address of this setting, and what to do.
pub fn cannot_listen(setting: &str, address: SocketAddr, error: &std::io::Error) -> String {
    let next = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(8080));
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "{setting}: {address} is in use by another program (`haus doctor` tells whether it is a node): end that one, or \
             choose another port, such as {setting}={next}"
        ),
        ErrorKind::PermissionDenied => format!(
            "{setting}: {address}: this user may not listen on ports below 1024: choose one above, such as {setting}={}",
            SocketAddr::new(address.ip(), 8080)
        ),
        ErrorKind::AddrNotAvailable => format!(
            "{setting}: {address} is no address of this machine: choose one that is, such as {setting}=127.0.0.1:{port} or \
             {setting}=0.0.0.0:{port}",
            port = address.port()
        ),
        _ => format!("{setting}: {address}: {error}"),
    }
}

fn database_url(url: &str) -> Result<(), String> {
    let known = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    if !known || url.parse::<PgConnectOptions>().is_err() {
        return Err("is no address of a database, such as postgres://user:password@host/name".to_owned());
    }
    let root =
        url.split_once('?').and_then(|(_, query)| query.split('&').find_map(|it| it.strip_prefix("sslrootcert=")));
    match root.filter(|path| !path.contains('%')) {
        Some(path) => std::fs::read(path).map(drop).map_err(|error| format!("sslrootcert: {path}: {error}")),
        None => Ok(()),
    }
}

fn redis_url(url: &str) -> Result<(), String> {
    let known = ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
    match known && url.into_connection_info().is_ok() {
        true => Ok(()),
        false => Err("is no address of a Redis, such as redis://user:password@host:6379 or rediss://host".to_owned()),
    }
}

fn node_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=NODE_CHARS_MAX).contains(&name.len()) && name.chars().all(fits) {
        true => Ok(()),
        false => Err(format!("{name:?} is no name: 1 to {NODE_CHARS_MAX} letters, digits, '-', '_' and '.'")),
    }
}

/// The path of an `http` or `https` address with a host; `None` when it is not that.
fn site(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let has_port = authority.as_str().len() > authority.host().len();
    let port_fits = !has_port || authority.port_u16().is_some_and(|port| port > 0);
    let plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && !authority.host().is_empty()
        && !authority.as_str().contains('@')
        && port_fits
        && !text.contains(['?', '#'])
        && authority.host().chars().all(|c| c.is_ascii_alphanumeric() || "-.[]:_".contains(c));
    plain.then(|| uri.path().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{database_url, node_name, redis_url, site};

    #[test]
    fn nonsense_is_refused_and_what_works_passes() {
        for good in
            ["https://chat.example.org", "http://localhost:8080", "http://[::1]:8080/", "https://a.example/chat"]
        {
            assert!(site(good).is_some(), "{good}");
        }
        for bad in [
            "",
            " ",
            "banana",
            "chat.example.org",
            "localhost:8080",
            "//host",
            "https://",
            "https:///x",
            "ftp://host",
            "https://user@host",
            "https://host:99999",
            "https://host:",
            "https://ho st",
            "https://host?x",
            "https://h#x",
            "https://a,b",
            "https://*.example.org",
        ] {
            assert!(site(bad).is_none(), "{bad}");
        }
        for good in ["postgres://u:p@h/d", "postgresql:///d?host=%2Frun", "postgres://h/d?sslmode=verify-full"] {
            assert!(database_url(good).is_ok(), "{good}");
        }
        for bad in ["", "banana", "http://h/d", "postgres:/", "h/d", "postgres://h/d?sslrootcert=/nowhere.pem"] {
            assert!(database_url(bad).is_err(), "{bad}");
        }
        assert!(database_url("mysql://u:secret@h/d").is_err_and(|text| !text.contains("secret")));
        for good in ["redis://h", "rediss://user:p%40ss@h:6380/0", "redis://:p@127.0.0.1:1"] {
            assert!(redis_url(good).is_ok(), "{good}");
        }
        for bad in ["", "banana", "redis://", "http://h", "unix:///x", "redis://h:99999", "redis-cluster://h"] {
            assert!(redis_url(bad).is_err(), "{bad}");
        }
        assert!(node_name("node-1.a_b").is_ok());
        for bad in ["", " ", "a b", "ü", "a\n", &"x".repeat(65)] {
            assert!(node_name(bad).is_err(), "{bad:?}");
        }
    }
}
