//! HTTP: the list of routes, extractors, problems, middleware. Use cases live in the contexts below; nothing here
//! decides who may what or writes SQL, but for the store of idempotency keys.

pub mod address;
pub mod asyncapi;
pub mod auth_routes;
pub mod changes;
mod common_problems;
mod documents;
pub mod extract;
pub mod idempotency;
mod log_answer;
pub mod member_routes;
pub mod message_routes;
pub mod middleware;
pub mod ops;
pub mod origins;
pub mod page;
mod parameters;
pub mod problem;
pub mod profile_routes;
mod progress;
pub mod rate_limit;
mod refusal;
pub mod router;
mod rules;
pub mod search_routes;
pub mod server;
pub mod session_routes;
pub mod settings_routes;
pub mod site;
pub mod socket;
pub mod state;
pub mod stored;
pub mod system_settings_routes;
pub mod thread_routes;
pub mod validate;
pub mod well_known;

pub use extract::{Actor, JsonBody, PathOf, QueryOf};
pub use problem::Problem;
pub use router::{api_router, openapi};
pub use state::{AppState, Ports};
