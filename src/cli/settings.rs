//! Settings as the operator meets them: a wrong one names itself, an unknown one is told of, logs go to stderr.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use haus::config::{Config, Environment};
use tracing_subscriber::EnvFilter;

use super::error::CliError;
use super::near::{self, OURS};
use super::stderr::{self, Lossy};

/// Prints a usage error with the environment variable behind the flag; help and version go to stdout.
pub fn report(error: &clap::Error, command: &clap::Command) -> ExitCode {
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    if let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg)
        && let Some(variable) = variable_of(command, shown)
    {
        stderr::say(format_args!("the setting is {variable}"));
    }
    ExitCode::from(2)
}

/// The environment variable of a flag as clap shows it: `--heartbeat-ms <HEARTBEAT_MS>`.
fn variable_of(command: &clap::Command, shown: &str) -> Option<String> {
    let long = shown.strip_prefix("--")?.split([' ', '=']).next()?;
    let found = command.get_arguments().find(|argument| argument.get_long() == Some(long))?;
    found.get_env()?.to_str().map(str::to_owned)
}

/// Variables that begin like ours and are none of ours. One that is nearly a setting is a slip of the pen and refused, with the
/// name that was meant; others belong to tools or to the platform (Kubernetes sets `HAUS_SERVICE_HOST` beside a service of
/// this name) and are told of.
pub fn refuse_misspelt(command: &clap::Command) -> Result<(), CliError> {
    let known: BTreeSet<&str> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let given = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in given.filter(|name| name.starts_with(OURS) && !known.contains(name.as_str())) {
        match near::meant(&name, &known) {
            Some(meant) => {
                return Err(CliError::setting(format!("{name}: there is no such setting; did you mean {meant}?")));
            }
            None => tracing::warn!("{name} is not a setting of this program and has no effect"),
        }
    }
    Ok(())
}

/// A variable that is set and empty is a slip of the pen, as where a secret was not filled in.
pub fn refuse_empty(command: &clap::Command) -> Result<(), CliError> {
    let names = command.get_arguments().filter_map(|argument| argument.get_env());
    match names.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| value.is_empty())) {
        Some(name) => Err(CliError::setting(format!("{}: is set and empty", name.to_string_lossy()))),
        None => Ok(()),
    }
}

/// Whether every part of a filter is a level, or a target with one: a bare word would be taken for a target, and
/// everything else would be silent.
fn is_filter(text: &str) -> bool {
    let level = |text: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| level.eq_ignore_ascii_case(text.trim()))
    };
    let part = |part: &str| level(part) || part.rsplit_once('=').is_some_and(|(_, after)| level(after));
    text.split(',').all(part) || (text.contains('{') && text.contains('='))
}

/// Logs to stderr: for people in development, JSON lines in production.
pub fn start_logs(config: &Config) -> Result<(), CliError> {
    if !is_filter(&config.log) {
        return Err(CliError::setting(format!("HAUS_LOG: {:?} is no filter, such as info or haus=debug", config.log)));
    }
    let filter = EnvFilter::try_new(&config.log).map_err(|error| CliError::setting(format!("HAUS_LOG: {error}")))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lossy).log_internal_errors(false);
    match config.environment {
        Environment::Production => logs.json().init(),
        Environment::Development => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no text");
        tracing::error!(place, "panic: {text}");
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::{is_filter, variable_of};

    #[test]
    fn a_filter_that_would_silence_everything_is_refused() {
        for good in ["info", "DEBUG", "haus=debug", "warn,haus::courier=trace", "off"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "banana", "info,banana", "haus=loud", "haus"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn every_setting_has_a_variable_and_a_help_text() {
        let command = Cli::command();
        let unnamed: Vec<_> = command
            .get_arguments()
            .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
            .filter(|argument| argument.get_env().is_none() || argument.get_help().is_none())
            .map(|argument| argument.get_id().clone())
            .collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
        assert_eq!(variable_of(&command, "--heartbeat-ms <HEARTBEAT_MS>").as_deref(), Some("HAUS_HEARTBEAT_MS"));
        assert_eq!(variable_of(&command, "--nonsense"), None);
    }
}
