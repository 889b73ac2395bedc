//! The one list of routes, the router and the OpenAPI document made from it.

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::AppState;
use super::{
    auth_routes, common_problems, documents, member_routes, message_routes, middleware, page, profile_routes,
    search_routes, session_routes, settings_routes, system_settings_routes, thread_routes, well_known,
};
use crate::text;

/// Frame of the document; paths and schemas come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "haus", description = "Real-time messaging and notification hub: REST side"),
    security(("bearer" = [])),
    modifiers(&Common)
)]
struct Document;

/// What is no route's own: how to sign in, and the schemas of texts.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        for (name, schema) in text::schema::named() {
            components.schemas.insert(name.to_owned(), schema.into());
        }
    }
}

/// Every route of the product.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(auth_routes::register))
        .routes(routes!(auth_routes::login))
        .routes(routes!(auth_routes::refresh))
        .routes(routes!(auth_routes::logout))
        .routes(routes!(session_routes::list))
        .routes(routes!(session_routes::end))
        .routes(routes!(session_routes::ticket))
        .routes(routes!(profile_routes::me, profile_routes::change_me))
        .routes(routes!(profile_routes::one))
        .routes(routes!(search_routes::profiles))
        .routes(routes!(system_settings_routes::list))
        .routes(routes!(settings_routes::read, settings_routes::change))
        .routes(routes!(thread_routes::list, thread_routes::create))
        .routes(routes!(thread_routes::one, thread_routes::change))
        .routes(routes!(member_routes::add))
        .routes(routes!(member_routes::change, member_routes::remove))
        .routes(routes!(message_routes::page, message_routes::send))
        .routes(routes!(message_routes::updates))
        .routes(routes!(message_routes::read))
        .routes(routes!(well_known::jwks))
}

/// The document alone (`haus openapi`).
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().split_for_parts().1;
    common_problems::add(&mut document);
    document
}

/// The router with everything around it, and the document it serves at `/openapi.json`.
pub fn api_router(state: AppState) -> (Router, utoipa::openapi::OpenApi) {
    let (config, origins) = (state.config.clone(), state.origins.clone());
    let (router, document) = bare_router(state);
    (middleware::wrap(router, &config, origins), document)
}

/// The same with nothing around it, for more routes to be added.
pub(super) fn bare_router(state: AppState) -> (Router, utoipa::openapi::OpenApi) {
    let (router, mut document) = routes().split_for_parts();
    common_problems::add(&mut document);
    let router = router
        .merge(page::page_router())
        .route("/openapi.json", get(|headers: HeaderMap| std::future::ready(documents::openapi(&headers))))
        .route("/asyncapi.json", get(|headers: HeaderMap| std::future::ready(documents::asyncapi(&headers))))
        .fallback(well_known::not_found)
        .method_not_allowed_fallback(well_known::method_not_allowed)
        .with_state(state);
    (router, document)
}
