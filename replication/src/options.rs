//! What the node says at the start.

use crate::Cluster;
use ottla_commitlog::data_dir::DataDir;
use ottla_commitlog::vfs::Vfs;
use ottla_proto::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// Everything that [`crate::Replicas::start`] needs.
pub struct ReplicasOptions {
    /// This node.
    pub node_id: NodeId,
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// Where the partitions lie.
    pub data_dir: Arc<DataDir>,
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// The metadata: images in, proposed ISRs out.
    pub cluster: Arc<dyn Cluster>,
    /// The last run left a clean-shutdown marker: its logs need no recovery.
    pub clean_start: bool,
    /// Bounds and times.
    pub limits: Limits,
}

/// Bounds and times of a node's replication.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of produce requests that a node holds, from their arrival to their
    /// answer. Over it, requests wait; past their deadline they are answered
    /// OVERLOADED. 64 MiB: an eighth of a second at full disk speed.
    pub produce_bytes: usize,
    /// replica.lag.time.max.ms: a member of an ISR that has not caught up for so
    /// long is taken out of it. 10 seconds.
    pub replica_lag_max: Duration,
    /// Bytes of records that one leader may have on the way to this node. 8 MiB:
    /// several disk writes deep, and no more than one connection's window.
    pub replica_credit_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            produce_bytes: 64 * 1024 * 1024,
            replica_lag_max: Duration::from_secs(10),
            replica_credit_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Replication could not start on this node.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasError {
    /// The data directory could not be read.
    #[error("cannot list the partitions of the data directory: {0}")]
    DataDir(#[from] ottla_commitlog::data_dir::DataDirError),
    /// Not everything is on stable storage.
    #[error("{partitions} logs could not be synced")]
    NotSynced {
        /// How many.
        partitions: usize,
    },
    /// The last run did not end cleanly, and this one ended before its logs were
    /// opened: they are still to be recovered.
    #[error("the logs of the run before were not opened")]
    NotRecovered,
}
