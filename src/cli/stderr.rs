//! Standard error may have no reader any more (`haus serve 2>&1 | tee log`), or a full disk behind it. What cannot be said
//! there is lost; nothing fails over it, as `eprintln!` would.

use std::fmt::Display;
use std::io::{Write, stderr};

/// Says a line.
pub fn say(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// What logs are written through. It takes everything: a log that answers a failed write with a word on stderr would panic
/// there, and the hook that logs the panic would again.
pub struct Lossy;

impl Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = stderr().flush();
        Ok(())
    }
}
