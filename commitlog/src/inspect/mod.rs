//! Looking into logs and data directories from outside: what `ottla log` shows.
//!
//! Reads only, takes no lock, holds one read and one batch in memory, and works
//! beside a running node.
//!
//! Not its job: mending anything, or saying it nicely.

mod data_dir;
mod dump;
mod entries;
mod files;
mod indexes;
mod look;
mod problem;
mod scan;
mod target;
mod verify;

pub use data_dir::verify_data_dir;
pub use dump::{AbortedEntry, Item, Shown, dump_file, dump_log};
pub use files::FileKind;
pub use problem::{MAX_PROBLEMS, Problem, Severity};
pub use target::{Target, TargetError, logs};
pub use verify::{BeingWritten, Owner, Verification, verify, verify_segment};

#[cfg(test)]
mod tests;
