//! Everything a node serves, put together: the API, sockets, operators' paths and the page.

use axum::routing::get;
use axum::{Extension, Router};

use super::ops::{self, Vitals};
use super::router::bare_router;
use super::socket::{self, Sockets};
use super::state::AppState;
use super::{middleware, well_known};

/// The routes of the main address.
pub fn site(state: AppState, sockets: Sockets, vitals: Vitals) -> Router {
    let upgrade =
        Router::new().route("/v1/ws", get(socket::upgrade)).layer(Extension(sockets)).with_state(state.clone());
    let (config, origins) = (state.config.clone(), state.origins.clone());
    let probes =
        probes().route("/metrics", get(ops::metrics)).route("/readyz", get(ops::readyz)).layer(Extension(vitals));
    let router = bare_router(state).0.merge(upgrade).merge(probes);
    middleware::wrap(router.method_not_allowed_fallback(well_known::method_not_allowed), &config, origins)
}

/// The routes of the operators' address.
pub fn operators(state: &AppState, vitals: Vitals) -> Router {
    let probes = probes().route("/metrics", get(ops::operator_metrics)).route("/readyz", get(ops::operator_readyz));
    let router = probes
        .layer(Extension(vitals))
        .fallback(well_known::not_found)
        .method_not_allowed_fallback(well_known::method_not_allowed);
    middleware::wrap(router, &state.config, state.origins.clone())
}

fn probes() -> Router {
    Router::new().route("/healthz", get(ops::healthz))
}
