//! Parameters of queries: their rules, and how the document tells them.

use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

use super::problem::Problem;

/// Rows of a page where the query does not say.
const LIMIT: i64 = 50;

/// A `limit` of the query in 1…`most`; 50 when absent.
///
/// # Errors
/// 400 outside of it.
pub fn limit_of(limit: Option<i64>, most: i64) -> Result<i64, Problem> {
    match limit.unwrap_or(LIMIT) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Problem::malformed(format!("limit must be 1…{most}"))),
    }
}

/// [`limit_of`] in the document.
pub fn limit(most: i64) -> Parameter {
    optional("limit", "Rows of a page", number(1, most).default(Some(LIMIT.into())).build())
}

/// A whole number.
pub fn number(minimum: i64, maximum: i64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(minimum))
        .maximum(Some(maximum))
}

/// A parameter that may be absent.
pub fn optional(name: &str, about: &str, schema: Object) -> Parameter {
    parameter(name, about, schema).build()
}

/// A parameter that must be there.
pub fn required(name: &str, about: &str, schema: Object) -> Parameter {
    parameter(name, about, schema).required(Required::True).build()
}

fn parameter(name: &str, about: &str, schema: Object) -> ParameterBuilder {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
    parameter.description(Some(about)).schema(Some(schema))
}
