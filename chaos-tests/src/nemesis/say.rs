//! What a run tells people while it goes on: a line for everything that is done.

// Results are for people, on standard output.
#![allow(clippy::print_stdout)]

use std::time::Duration;
use tokio::time::Instant;

/// Says lines with the time since the run began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    begun: Instant,
}

impl Say {
    /// The run begins now.
    pub(super) fn from_now() -> Self {
        Self { begun: Instant::now() }
    }

    /// Since the run began.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// One line.
    pub(super) fn line(&self, text: &str) {
        println!("{:8.1} s  {text}", self.elapsed().as_secs_f64());
    }
}
