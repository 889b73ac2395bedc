//! Everything a node serves, put together: the API, sockets, operators' paths and the page.

use axum::routing::get;
use axum::{Extension, Router};

use super::ops::{self, Vitals};
use super::router::api_router;
use super::socket::{self, Sockets};
use super::state::AppState;

/// The routes of the main address.
pub fn site(state: AppState, sockets: Sockets, vitals: Vitals) -> Router {
    let upgrade =
        Router::new().route("/v1/ws", get(socket::upgrade)).layer(Extension(sockets)).with_state(state.clone());
    let (api, _) = api_router(state);
    api.merge(upgrade).merge(probes(vitals).route("/metrics", get(ops::metrics)))
}

/// The routes of the operators' address.
pub fn operators(vitals: Vitals) -> Router {
    probes(vitals).route("/metrics", get(ops::operator_metrics))
}

fn probes(vitals: Vitals) -> Router {
    Router::new().route("/healthz", get(ops::healthz)).route("/readyz", get(ops::readyz)).layer(Extension(vitals))
}
