//! The roles a database needs before its first migration: the group of applications, the owner of the engine's doors,
//! and the login of the node.

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Row};

use super::{MigrateError, execute_quoted};
use crate::store::deadlines;

/// Group that may use the schema; owns nothing.
const GROUP: &str = "haus_app";
/// Owner of the functions that serve many people at once.
const ENGINE: &str = "haus_engine";

/// The login a node uses, as its `DATABASE_URL` names it.
#[derive(Clone)]
pub struct Login {
    pub name: String,
    pub password: Option<String>,
}

impl Login {
    /// Reads name and password out of a `DATABASE_URL`.
    ///
    /// # Errors
    /// [`MigrateError::Login`] when it is not a Postgres URL or names a role that must not log in.
    pub fn from_url(url: &str) -> Result<Self, MigrateError> {
        let options: PgConnectOptions =
            url.parse().map_err(|error| MigrateError::Login(format!("DATABASE_URL: {error}")))?;
        let name = options.get_username().to_owned();
        if name == ENGINE {
            return Err(MigrateError::Login(format!("DATABASE_URL: {ENGINE} owns functions and must not log in")));
        }
        Ok(Self { name, password: password_of(url) })
    }
}

/// The password in a URL, percent-decoded.
fn password_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    let mut bytes = Vec::with_capacity(password.len());
    let mut rest = password.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                after
            }
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}

/// Makes what is missing and grants what is needed. Safe to repeat; passwords of existing logins are left alone.
pub(super) async fn ensure(owner: &mut PgConnection, login: Option<&Login>) -> Result<(), MigrateError> {
    groups(owner).await.map_err(MigrateError::Prepare)?;
    if let Some(login) = login {
        ensure_login(owner, login).await?;
    }
    Ok(())
}

async fn groups(owner: &mut PgConnection) -> Result<(), sqlx::Error> {
    if !exists(owner, GROUP).await? {
        create(owner, "CREATE ROLE haus_app NOLOGIN").await?;
    }
    if !exists(owner, ENGINE).await?
        && let Err(error) = create(owner, "CREATE ROLE haus_engine NOLOGIN BYPASSRLS").await
    {
        tracing::warn!(%error, "the owner may not grant BYPASSRLS: haus_engine is made without it; \
            as a superuser run ALTER ROLE haus_engine BYPASSRLS before row-level security is switched on");
        create(owner, "CREATE ROLE haus_engine NOLOGIN").await?;
    }
    // An owner that is no superuser must be in the group to hand functions over to it.
    let must_join: bool = sqlx::query_scalar("SELECT NOT pg_has_role(current_user, 'haus_engine', 'MEMBER')")
        .fetch_one(&mut *owner)
        .await?;
    if must_join {
        sqlx::raw_sql("GRANT haus_engine TO CURRENT_USER").execute(&mut *owner).await?;
    }
    let connect: String =
        sqlx::query_scalar("SELECT format('GRANT CONNECT ON DATABASE %I TO haus_app', current_database())")
            .fetch_one(&mut *owner)
            .await?;
    execute_quoted(owner, connect).await?;
    sqlx::raw_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO haus_app, haus_engine")
        .execute(owner)
        .await
        .map(drop)
}

/// Roles belong to the whole cluster: another database's migration may have made this one a moment ago.
async fn create(owner: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    match sqlx::raw_sql(statement).execute(owner).await {
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42710" | "23505")) => Ok(()),
        other => other.map(drop),
    }
}

async fn exists(owner: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").bind(name).fetch_one(owner).await
}

async fn ensure_login(owner: &mut PgConnection, login: &Login) -> Result<(), MigrateError> {
    let row = sqlx::query(
        "SELECT current_user = $1,
                (SELECT rolcanlogin FROM pg_roles WHERE rolname = $1),
                format('CREATE ROLE %I LOGIN PASSWORD %L', $1, $2),
                format('ALTER ROLE %I LOGIN PASSWORD %L', $1, $2),
                format('GRANT haus_app TO %I', $1)",
    )
    .bind(&login.name)
    .bind(&login.password)
    .fetch_one(&mut *owner)
    .await
    .map_err(MigrateError::Prepare)?;
    let text = |index: usize| row.try_get::<String, _>(index).map_err(MigrateError::Prepare);
    if row.try_get::<bool, _>(0).map_err(MigrateError::Prepare)? {
        return Err(MigrateError::Login(format!(
            "DATABASE_URL: {} is the owner; a node must log in as a role that owns nothing",
            login.name
        )));
    }
    let can_login: Option<bool> = row.try_get(1).map_err(MigrateError::Prepare)?;
    let statement = match can_login {
        None => Some(text(2)?),
        Some(false) if login.name == GROUP => Some(text(3)?),
        Some(_) => None,
    };
    if let Some(statement) = statement {
        match execute_quoted(owner, statement).await {
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42710" | "23505")) => {}
            other => other.map_err(MigrateError::Prepare)?,
        }
    }
    if let Some(error) = deadlines::set_for(owner, &login.name).await.map_err(MigrateError::Prepare)? {
        tracing::warn!(%error, login = login.name, "the owner may not set the login's deadlines: each connection sets them \
            for itself, which does not hold through a pooler; as a superuser run haus migrate, or ALTER ROLE … SET");
    }
    if login.name == GROUP {
        return Ok(());
    }
    execute_quoted(owner, text(4)?).await.map_err(MigrateError::Prepare)
}

#[cfg(test)]
mod tests {
    use super::{Login, password_of};

    #[test]
    fn passwords_are_read_out_of_urls() {
        assert_eq!(password_of("postgres://a:p%40ss%2F@h:1/d?x=y").as_deref(), Some("p@ss/"));
        assert_eq!(password_of("postgres://a@h/d"), None);
        assert_eq!(password_of("postgres://h/d?x=a:b@c"), None);
    }

    #[test]
    fn the_engine_never_logs_in() {
        assert!(Login::from_url("postgres://haus_engine:x@h/d").is_err());
        assert!(Login::from_url("not a url").is_err());
        assert_eq!(Login::from_url("postgres://node:x@h/d").map(|login| login.name).ok().as_deref(), Some("node"));
    }
}
