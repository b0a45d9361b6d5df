//! What can be said of a configuration without starting the node: that its options make
//! sense, and that the data directories are this node's or blank.
//!
//! Not its job: whether addresses can be bound or reached, which the next minute may change.

use crate::config::NodeConfig;
use crate::{storage, telemetry};
use std::path::PathBuf;

/// Checks what does not change by itself, and changes nothing. Returns the data directories
/// that are to be formatted before the node can start.
///
/// # Errors
/// A log filter that is none; a directory that belongs to another node or cluster, or that
/// cannot be read.
pub fn check(config: &NodeConfig) -> anyhow::Result<Vec<PathBuf>> {
    telemetry::filter(&config.log_level)?;
    Ok(storage::blank(config)?)
}
