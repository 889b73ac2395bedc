//! SIGINT and SIGTERM: a node drains at the first and ends at the second, every other command ends at the first. They are
//! listened to by name, as what runs as process 1 of a container would otherwise not hear them.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::error::CliError;

/// Exit code of a command that a signal ended: 128 and its number, as in a shell.
const ENDED: u8 = 128;

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Inside a runtime.
    fn new() -> Result<Self, CliError> {
        let one = |kind| signal(kind).map_err(|error| CliError::failed(format!("signals: {error}")));
        Ok(Self { interrupt: one(SignalKind::interrupt())?, terminate: one(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
        }
    }
}

/// Two flags: the first signal asks to drain, the second to end.
pub fn two() -> Result<(watch::Receiver<bool>, watch::Receiver<bool>), CliError> {
    let mut signals = Signals::new()?;
    let (first, asked) = watch::channel(false);
    let (second, ended) = watch::channel(false);
    tokio::spawn(async move {
        for flag in [first, second] {
            signals.next().await;
            flag.send_replace(true);
        }
    });
    Ok((asked, ended))
}

/// Resolves when a flag is up; never when nobody can raise it any more.
pub async fn up(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|up| *up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The first signal, as what ends a command that is no node.
pub async fn first() -> CliError {
    match Signals::new() {
        Ok(mut signals) => {
            let (name, kind) = signals.next().await;
            let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
            CliError::with_code(ENDED + number, format!("ended by {name}"))
        }
        Err(error) => error,
    }
}
