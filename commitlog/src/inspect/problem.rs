//! Something that should not be, and what it means.

use std::fmt;
use std::path::{Path, PathBuf};

/// Problems that are listed one by one: enough to see what is wrong. The walk
/// goes on behind the last, so that the totals are right.
pub const MAX_PROBLEMS: usize = 100;

/// What a problem puts at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Records cannot be read, or cannot be believed.
    Damage,
    /// The end of the log is what an unclean stop leaves: nothing that was
    /// synced is missing.
    Torn,
    /// Derived data: it is made again from the batches.
    Derived,
    /// A file without a use.
    Leftover,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damage => "damage",
            Self::Torn => "torn",
            Self::Derived => "derived",
            Self::Leftover => "leftover",
        })
    }
}

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Byte within it.
    pub position: u64,
    /// What it puts at risk.
    pub severity: Severity,
    /// What is wrong.
    pub reason: String,
    /// What the next start, or whoever uses the file, does about it.
    pub outcome: &'static str,
}

/// The first [`MAX_PROBLEMS`] problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(
        &mut self,
        path: &Path,
        position: u64,
        severity: Severity,
        reason: impl ToString,
        outcome: &'static str,
    ) {
        if self.0.len() < MAX_PROBLEMS {
            let (path, reason) = (path.to_owned(), reason.to_string());
            self.0.push(Problem { path, position, severity, reason, outcome });
        }
    }
}
