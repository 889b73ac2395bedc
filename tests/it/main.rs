//! Integration tests: the true application against a real, private Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod append;
mod cluster;
mod counts;
mod courier;
mod deploy;
mod failover;
mod faults;
mod ghosts;
mod idempotency;
mod identity;
mod identity_faults;
mod identity_tokens;
mod input;
mod keys;
mod limits;
mod log;
mod members;
mod memory;
mod messages;
mod page;
mod people;
mod pooler;
mod ports;
mod protocol_doc;
mod raw;
mod repair;
mod restored;
mod rfc6455;
#[allow(dead_code)]
#[path = "../../loadtest/rig/mod.rs"]
mod rig;
mod routes;
mod search;
mod sends;
mod services;
mod socket;
mod sockets;
mod store;
mod streams;
mod strict;
mod support;
mod texts;
mod threads;
mod tidy;
mod wide;
