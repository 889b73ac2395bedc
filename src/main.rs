//! The `haus` command: reads settings, runs one command, ends with its exit code. What the commands do is in `cli`.

// Both panic once their reader is gone: `cli::stderr::say`, `cli::print_line`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
