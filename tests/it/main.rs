//! Integration tests: the true application against a real, private Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod deploy;
mod idempotency;
mod identity;
mod identity_faults;
mod identity_tokens;
mod log;
mod members;
mod messages;
mod page;
mod people;
mod ports;
mod store;
mod support;
mod threads;
