//! Problems that any route of a kind may answer, added to the document in one place: what a route's own annotation says
//! of a status stays. Every problem's media type is `application/problem+json` (RFC 9457).

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::{OpenApi, Ref, RefOr};

const PROBLEM: &str = "application/problem+json";

/// Which routes a status belongs to.
#[derive(Clone, Copy)]
enum Kind {
    Every,
    Authenticated,
    /// With a body.
    Writing,
    /// With an id in the path.
    OfOne,
    /// With `Idempotency-Key`.
    Once,
}

const COMMON: &[(&str, Kind, &str)] = &[
    ("400", Kind::Every, "`invalid`: the path, the query, a header or the body cannot be read"),
    ("401", Kind::Authenticated, "`unauthenticated`"),
    ("403", Kind::Authenticated, "`forbidden`: by status, role or standing"),
    ("404", Kind::OfOne, "`not_found`: there is none, or not for this reader"),
    ("408", Kind::Every, "`unavailable`: it took too long"),
    ("409", Kind::Once, "`conflict`, or `nonce_conflict`: the key was used with another body"),
    ("413", Kind::Writing, "`too_large`"),
    ("415", Kind::Writing, "`invalid`: the body comes with a Content-Encoding"),
    ("422", Kind::Writing, "`invalid`: `errors` names each field"),
    ("429", Kind::Every, "`rate_limited`, with Retry-After"),
    ("500", Kind::Every, "`internal`"),
    ("503", Kind::Every, "`unavailable`, with Retry-After"),
];

/// Adds what is missing and names the media type.
pub fn add(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.head];
        operations.into_iter().flatten().for_each(complete);
    }
}

fn complete(operation: &mut Operation) {
    for (status, kind, about) in COMMON {
        if belongs(operation, *kind) && !operation.responses.responses.contains_key(*status) {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
            let response = ResponseBuilder::new().description(*about).content(PROBLEM, content).build();
            operation.responses.responses.insert((*status).to_owned(), RefOr::T(response));
        }
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.as_str() >= "400"
            && let Some(content) = response.content.shift_remove("application/json")
        {
            response.content.insert(PROBLEM.to_owned(), content);
        }
    }
}

fn belongs(operation: &Operation, kind: Kind) -> bool {
    let parameters = || {
        operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        })
    };
    match kind {
        Kind::Every => true,
        // A route of its own security has none: the whole document's is the bearer token.
        Kind::Authenticated => operation.security.is_none(),
        Kind::Writing => operation.request_body.is_some(),
        Kind::OfOne => parameters().any(|parameter| parameter.parameter_in == ParameterIn::Path),
        Kind::Once => parameters().any(|parameter| parameter.name == "Idempotency-Key"),
    }
}
