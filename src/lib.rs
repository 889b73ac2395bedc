//! `haus`: a real-time messaging and notification hub.
//!
//! Bounded contexts, each a folder. Arrows point downward only; `tests/it/tidy.rs` scans the imports and fails on an
//! arrow that is not in this table:
//!
//! | module      | may use                                                                      |
//! |-------------|------------------------------------------------------------------------------|
//! | `cli`       | everything                                                                   |
//! | `startup`   | everything but `cli`                                                         |
//! | `http`      | `identity messaging realtime courier store protocol updates limits config telemetry text` |
//! | `realtime`  | `courier protocol updates limits telemetry saboteur` and traits it declares itself |
//! | `messaging` | `store protocol updates telemetry saboteur text`                             |
//! | `identity`  | `store protocol telemetry text`                                              |
//! | `courier`   | `updates deployment telemetry`                                               |
//! | `limits`    | `deployment telemetry`                                                       |
//! | `store`     | `config telemetry`                                                           |
//! | `updates`   | `protocol`                                                                   |
//! | `text`      | `protocol`                                                                   |
//! | `protocol`  | `telemetry`                                                                  |
//! | `config` `deployment` `telemetry` `saboteur` | nothing here                                |

// Both panic once their reader is gone: the log is for that, and what `cli` says.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

#[cfg(test)]
#[path = "../loadtest/haus-check/checker/mod.rs"]
#[expect(dead_code, reason = "the simulation judges by the checker's own code")]
mod checker;
pub mod config;
pub mod courier;
pub mod deployment;
pub mod http;
pub mod identity;
pub mod limits;
pub mod messaging;
#[cfg(test)]
#[path = "../loadtest/haus-chaos/mirror.rs"]
mod mirror;
pub mod protocol;
pub mod realtime;
pub mod saboteur;
pub mod startup;
pub mod store;
pub mod telemetry;
pub mod text;
pub mod updates;
