//! A progress bar on stderr, shown to a terminal alone.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use super::super::stderr::say;

const WIDTH: usize = 30;

pub struct Progress {
    what: &'static str,
    total: usize,
    done: usize,
    start: Instant,
    shown: bool,
}

impl Progress {
    pub fn new(what: &'static str, total: usize) -> Self {
        Self { what, total, done: 0, start: Instant::now(), shown: std::io::stderr().is_terminal() }
    }

    /// Counts `more` as done.
    pub fn add(&mut self, more: usize) {
        self.done += more;
        if self.shown {
            let full = self.done * WIDTH / self.total.max(1);
            let bar: String = (0..WIDTH).map(|at| if at < full { '█' } else { '░' }).collect();
            let _ = write!(std::io::stderr(), "\r{:>8} {bar} {}/{}", self.what, self.done, self.total);
        }
    }

    /// Ends the line; without a terminal says the result alone.
    pub fn finish(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        if self.shown {
            say(format_args!(" {seconds:.1} s"));
        } else {
            say(format_args!("{} {} in {seconds:.1} s", self.done, self.what));
        }
    }
}
