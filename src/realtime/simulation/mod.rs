//! The engine in one thread, under a virtual clock and a seed: several nodes (the real hub, feeds, repairs, page readers
//! and workers), a model of database and courier, and clients that keep the protocol. What breaks, and when, follows from
//! the seed. The checker of the chaos histories judges each run.
//!
//! `make simulate SEEDS=n` runs many; `SEED=n make simulate` one, with its history. Model: FoundationDB's simulation.

mod backend;
mod client;
mod database;
mod director;
mod node;
pub(super) mod pipe;
#[path = "../../../loadtest/rig/rng.rs"]
mod rng;
mod tests;
mod world;
