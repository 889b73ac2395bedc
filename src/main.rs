//! The `haus` command: reads settings, runs one command, ends with its exit code. What the commands do is in `cli`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
