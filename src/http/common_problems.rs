//! Problems that any route of a kind may answer, and the headers of answers, added to the document in one place: what a
//! route's own annotation says of a status stays. Every problem's media type is `application/problem+json` (RFC 9457), and
//! each status tells the codes that it may come with.

use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr};

use crate::protocol::ErrorCode::{
    self, Blocked, Conflict, Forbidden, Internal, Invalid, NonceConflict, NotFound, RateLimited, ReadOnly, SlowMode,
    ThreadArchived, TooLarge, Unauthenticated, Unavailable,
};

const PROBLEM: &str = "application/problem+json";

/// Which routes a status belongs to, besides those whose annotation has it.
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

/// A status, where it belongs, the codes it comes with everywhere, and what it means.
const COMMON: &[(&str, Kind, &[ErrorCode], &str)] = &[
    ("400", Kind::Every, &[Invalid], "The path, the query, a header or the body cannot be read"),
    ("401", Kind::Authenticated, &[Unauthenticated], "No or no valid access token"),
    ("403", Kind::Authenticated, &[Forbidden], "By status, role or standing"),
    ("404", Kind::OfOne, &[NotFound], "There is none, or not for this reader"),
    ("408", Kind::Every, &[Unavailable], "It took too long"),
    ("409", Kind::Once, &[Conflict], "Another state than expected, or a key used with another body"),
    ("413", Kind::Every, &[TooLarge], "The body, a text or a number of members is too large"),
    ("414", Kind::Every, &[TooLarge], "The address of the request is too long"),
    ("415", Kind::Writing, &[Invalid], "The body comes with a Content-Encoding"),
    ("422", Kind::Writing, &[Invalid], "`errors` names each field"),
    ("429", Kind::Every, &[RateLimited], "Too many"),
    ("431", Kind::Every, &[TooLarge], "The header of the request is too large"),
    ("500", Kind::Every, &[Internal], "A defect"),
    ("503", Kind::Every, &[Unavailable], "No room, or no answer in time; what was sent may have happened"),
];

/// Codes that one operation has besides.
const FURTHER: &[(&str, &str, &[ErrorCode])] = &[
    ("createThread", "403", &[Blocked]),
    ("createThread", "409", &[NonceConflict]),
    ("addMembers", "403", &[Blocked]),
    ("addMembers", "409", &[NonceConflict, ThreadArchived]),
    ("sendMessage", "403", &[ReadOnly]),
    ("sendMessage", "409", &[NonceConflict, ThreadArchived]),
    ("sendMessage", "429", &[SlowMode]),
];

/// Adds what is missing: statuses with their codes, media types, headers.
pub fn add(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.head];
        operations.into_iter().flatten().for_each(complete);
    }
}

fn complete(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    for (status, kind, codes, about) in COMMON {
        let own = match operation.responses.responses.get(*status) {
            Some(RefOr::T(response)) => Some(response.description.clone()),
            _ => None,
        };
        if own.is_none() && !belongs(operation, *kind) {
            continue;
        }
        let further = FURTHER.iter().filter(|(of, at, _)| *of == id && at == status).flat_map(|(.., codes)| *codes);
        let codes: Vec<&str> = codes.iter().chain(further).map(|code| code.as_str()).collect();
        let about = own.filter(|own| !own.is_empty()).unwrap_or_else(|| (*about).to_owned());
        operation.responses.responses.insert((*status).to_owned(), RefOr::T(problem(&about, &codes)));
    }
    let once = belongs(operation, Kind::Once) || id == "sendMessage";
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            if response.description.is_empty() {
                response.description = if status == "201" { "Made" } else { "Done" }.to_owned();
            }
            headers(status, response, once);
        }
    }
}

fn problem(about: &str, codes: &[&str]) -> Response {
    let schema = ObjectBuilder::new()
        .extensions(Some(Extensions::from_iter([("allOf", json!([{"$ref": "#/components/schemas/ProblemBody"}]))])))
        .property("code", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes.iter().copied())))
        .build();
    let names: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(format!("{about} ({})", names.join(", "))).content(PROBLEM, content).build()
}

fn headers(status: &str, response: &mut Response, once: bool) {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let mut add = |name: &str, is_always: bool, schema: ObjectBuilder, about: &str| {
        let always = is_always.then(|| Extensions::from_iter([("required", true)]));
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(about)).extensions(always);
        response.headers.insert(name.to_owned(), header.build().into());
    };
    add("X-Request-Id", true, text(), "Names this request in problems and logs");
    match status {
        "401" => add("WWW-Authenticate", true, text().enum_values(Some(["Bearer"])), "How to sign in"),
        "429" | "503" => {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
            add("Retry-After", true, seconds, "Seconds to wait");
        }
        "200" | "201" if once => {
            let yes = text().enum_values(Some(["true"]));
            add("Idempotency-Replayed", false, yes, "Stands where the first answer is given again");
        }
        _ => {}
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
