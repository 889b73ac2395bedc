//! `/v1/auth`: register, login, refresh, logout.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::openapi::schema::Object;

use super::extract::{Actor, ClientOf, JsonBody};
use super::problem::{Problem, ProblemBody};
use super::rate_limit::Limit;
use super::state::AppState;
use super::validate::Checks;
use crate::config::Registration as RegistrationMode;
use crate::identity::accounts::{Registration, SignedIn};
use crate::identity::sessions::Client;
use crate::identity::{Action, IdentityError};
use crate::protocol::ErrorCode;
use crate::telemetry::metrics;
use crate::text::{self, EMAIL_BYTES_MAX, password::CHARS_MAX as PASSWORD_CHARS_MAX, schema};

/// Characters of a display name.
pub const DISPLAY_NAME_CHARS_MAX: usize = 80;

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterBody {
    #[schema(schema_with = schema::email)]
    email: String,
    #[schema(schema_with = schema::password)]
    password: String,
    #[schema(schema_with = display_name)]
    display_name: String,
}

/// The schema of a display name.
pub fn display_name() -> Object {
    schema::name(DISPLAY_NAME_CHARS_MAX)
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginBody {
    #[schema(max_length = 254)]
    email: String,
    #[schema(max_length = 256)]
    password: String,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshBody {
    refresh_token: String,
}

/// Register
#[utoipa::path(post, operation_id = "register", path = "/v1/auth/register", tag = "auth", request_body = RegisterBody, security(()),
    responses((status = 201, body = SignedIn), (status = 403, body = ProblemBody, description = "registration is closed"),
        (status = 409, body = ProblemBody, description = "e-mail taken"),
        (status = 422, body = ProblemBody), (status = 429, body = ProblemBody)))]
pub async fn register(
    State(state): State<AppState>,
    ClientOf(client): ClientOf,
    JsonBody { value: body, .. }: JsonBody<RegisterBody>,
) -> Result<(StatusCode, Json<SignedIn>), Problem> {
    if state.config.registration == RegistrationMode::Closed {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            "registration is closed: accounts are made by those who run this site",
        ));
    }
    let mut checks = Checks::default();
    let email = checks.email("email", &body.email);
    let password = checks.password("password", &body.password, &body.email, &body.display_name);
    let display_name = checks.name("displayName", &body.display_name, DISPLAY_NAME_CHARS_MAX);
    checks.finish()?;
    let network = client.network.clone();
    let work = async {
        take(&state, Limit::RegisterAddress, &client)?;
        let registration = Registration { email, password, display_name };
        Ok(state.identity.register(registration, client).await?)
    };
    told("register", network.as_deref(), work.await).map(|signed_in| (StatusCode::CREATED, Json(signed_in)))
}

/// Log in with a password
#[utoipa::path(post, operation_id = "logIn", path = "/v1/auth/login", tag = "auth", request_body = LoginBody, security(()),
    responses((status = 200, body = SignedIn), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody, description = "banned"), (status = 429, body = ProblemBody)))]
pub async fn login(
    State(state): State<AppState>,
    ClientOf(client): ClientOf,
    JsonBody { value: body, .. }: JsonBody<LoginBody>,
) -> Result<Json<SignedIn>, Problem> {
    let network = client.network.clone();
    told("login", network.as_deref(), log_in(&state, client, body).await).map(Json)
}

async fn log_in(state: &AppState, client: Client, body: LoginBody) -> Result<SignedIn, Problem> {
    take(state, Limit::LoginAddress, &client)?;
    let account = text::email_key(&body.email);
    if account.len() > EMAIL_BYTES_MAX || body.password.chars().count() > PASSWORD_CHARS_MAX {
        return Err(IdentityError::BadCredentials.into());
    }
    let charged = charge_guess(state, &account, &client).await?;
    let result = state.identity.login(&account, body.password, client).await;
    if !matches!(result, Err(IdentityError::BadCredentials)) {
        charged.into_iter().for_each(|(limit, key)| state.rate_limits.give_back(limit, key));
    }
    Ok(result?)
}

/// Charges a guess to the account from this network, and softer to the account from everywhere, before the work, so that
/// guesses in parallel count too; the caller gives it back unless the password was wrong. Guesses from elsewhere never
/// keep out a network that the account was logged in from before.
async fn charge_guess(state: &AppState, account: &str, client: &Client) -> Result<Vec<(Limit, String)>, Problem> {
    let network = client.network.as_deref().unwrap_or_default();
    let near = (Limit::LoginAccountFrom, format!("{network}|{account}"));
    state.rate_limits.take(near.0, near.1.clone(), Instant::now())?;
    match state.rate_limits.take(Limit::LoginAccount, account.to_owned(), Instant::now()) {
        Ok(()) => Ok(vec![near, (Limit::LoginAccount, account.to_owned())]),
        Err(_) if state.identity.knows_origin(account, client).await? => Ok(vec![near]),
        Err(refusal) => {
            state.rate_limits.give_back(near.0, near.1);
            Err(refusal.into())
        }
    }
}

/// Exchange a refresh token
///
/// Rotates: the token given is spent, the answer holds the next one. Using a spent token again ends the session, except
/// that for 10 min, while the next one is unused, the same answer is given again to a client that never received it.
#[utoipa::path(post, operation_id = "refresh", path = "/v1/auth/refresh", tag = "auth", request_body = RefreshBody, security(()),
    responses((status = 200, body = SignedIn), (status = 401, body = ProblemBody), (status = 429, body = ProblemBody)))]
pub async fn refresh(
    State(state): State<AppState>,
    ClientOf(client): ClientOf,
    JsonBody { value: body, .. }: JsonBody<RefreshBody>,
) -> Result<Json<SignedIn>, Problem> {
    let network = client.network.clone();
    let work = async {
        take(&state, Limit::RefreshAddress, &client)?;
        Ok(state.identity.refresh(&body.refresh_token, client).await?)
    };
    told("refresh", network.as_deref(), work.await).map(Json)
}

/// End this session: its tokens and sockets
#[utoipa::path(post, operation_id = "logOut", path = "/v1/auth/logout", tag = "auth",
    responses((status = 204), (status = 401, body = ProblemBody)))]
pub async fn logout(State(state): State<AppState>, actor: Actor) -> Result<StatusCode, Problem> {
    actor.may(Action::ManageOwnSessions)?;
    let (profile_id, session_id) = (actor.profile_id(), actor.access.session_id);
    state.identity.end_session(profile_id, session_id).await?;
    metrics().sign_ins.with_label_values(&["logout", "ok"]).inc();
    tracing::info!(%profile_id, %session_id, "logged out");
    Ok(StatusCode::NO_CONTENT)
}

/// Logs and counts how a registration, log-in or refresh ended. Neither the address nor the name of a person: profile and
/// session when it succeeded, the network it came from when not.
fn told(door: &'static str, network: Option<&str>, result: Result<SignedIn, Problem>) -> Result<SignedIn, Problem> {
    let outcome = result.as_ref().map_or_else(|problem| problem.code().as_str(), |_| "ok");
    metrics().sign_ins.with_label_values(&[door, outcome]).inc();
    match &result {
        Ok(signed_in) if door == "refresh" => {
            tracing::debug!(door, session_id = %signed_in.session_id, "signed in");
        }
        Ok(signed_in) => {
            tracing::info!(door, profile_id = %signed_in.profile.id, session_id = %signed_in.session_id, "signed in");
        }
        Err(_) => tracing::info!(door, outcome, network = network.unwrap_or("unknown"), "refused"),
    }
    result
}

/// Takes a token of a limit by address; requests without a known peer share one bucket.
fn take(state: &AppState, limit: Limit, client: &Client) -> Result<(), Problem> {
    let key = client.network.clone().unwrap_or_default();
    Ok(state.rate_limits.take(limit, key, Instant::now())?)
}
