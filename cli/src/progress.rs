//! How far long work is, on standard error, if that is a terminal. Otherwise nothing.
//!
//! Not its job: results, which are the same with and without it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};

/// How often it is drawn, per second: often enough to be believed.
const DRAWN_PER_SECOND: u8 = 5;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Shown with KiB, MiB, and a rate.
    Bytes,
    /// Things of this name.
    Things(&'static str),
}

/// A bar, or a count where the total is not known. Dropped, it is gone from the screen.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shown only where people see it: standard error is a terminal, and `beside` says
    /// that nothing else is written to the same one.
    pub(crate) fn new(unit: Unit, total: Option<u64>, beside: bool) -> Self {
        if !beside || !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND);
        Self(ProgressBar::with_draw_target(total, target).with_style(style(unit, total.is_some())))
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// So much more is done.
    pub(crate) fn add(&self, done: u64) {
        self.0.inc(done);
    }

    /// So much is done in all.
    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(unit: Unit, total_is_known: bool) -> ProgressStyle {
    let template = match (unit, total_is_known) {
        (Unit::Bytes, true) => {
            "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left".to_owned()
        }
        (Unit::Bytes, false) => "{spinner} {bytes}, {bytes_per_sec}".to_owned(),
        (Unit::Things(name), true) => {
            format!("{{bar:30}} {{human_pos}} of {{human_len}} {name}, {{eta}} left")
        }
        (Unit::Things(name), false) => format!("{{spinner}} {{human_pos}} {name}, {{per_sec}}"),
    };
    ProgressStyle::with_template(&template).expect("a template of this file")
}

/// Whether standard output goes somewhere else than to the terminal.
pub(crate) fn output_is_elsewhere() -> bool {
    !io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_a_template() {
        for unit in [Unit::Bytes, Unit::Things("records")] {
            for known in [true, false] {
                style(unit, known);
            }
        }
    }

    /// Tests have no terminal: nothing is drawn, everything counts on.
    #[test]
    fn without_a_terminal_nothing_is_shown() {
        let progress = Progress::new(Unit::Bytes, Some(10), true);
        assert!(!progress.is_shown() || io::stderr().is_terminal());
        progress.add(3);
        progress.set(10);
    }
}
