//! What a node tells its metadata quorum at the start, and the times and bounds
//! it runs under.

use super::database::Databases;
use super::proposal::PROPOSAL_BYTES;
use crate::records::FeatureLevels;
use ottla_commitlog::Shared;
use ottla_host::Network;
use ottla_proto::{BrokerEpoch, DirectoryId, IncarnationId, NodeId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Raft log entries between two snapshots. Replaying this many takes well under
/// a second, and they are a few MiB in the usual case.
pub const SNAPSHOT_EVERY_ENTRIES: u64 = 4096;

/// Raft log entries kept although a snapshot holds them, so that a follower
/// that was away for a moment catches up from the log. A quarter of the above.
pub const KEPT_ENTRIES: u64 = 1024;

/// Everything that [`Metadata::open`](super::Metadata::open) needs.
#[derive(Clone)]
pub struct MetadataOptions {
    /// Id of the cluster, as formatted into the data directory.
    pub cluster_id: String,
    /// This node. If it is not one of `voters` it is added to a cluster that exists.
    pub node_id: NodeId,
    /// This data directory, since it was formatted.
    pub directory_id: DirectoryId,
    /// This run of the process.
    pub incarnation_id: IncarnationId,
    /// From the clean-shutdown marker. Keeping that marker is the node's job.
    pub previous_broker_epoch: Option<BrokerEpoch>,
    /// Directory of Raft log, snapshots and applied image; created if absent.
    pub dir: PathBuf,
    /// What the node's logs share, the disk first.
    pub shared: Arc<Shared>,
    /// Where the applied image is kept, which is rebuildable.
    pub databases: Arc<dyn Databases>,
    /// How other nodes are reached.
    pub network: Arc<dyn Network>,
    /// Host and port of the gRPC ports of the voters that a new cluster begins
    /// with: the same on each of them, as they become the quorum's first
    /// membership. To a node that joins later they are who to ask first.
    pub voters: BTreeMap<NodeId, (String, u16)>,
    /// Host and port under which clients reach this broker.
    pub advertised: (String, u16),
    /// Failure domain of this broker.
    pub rack: Option<String>,
    /// The feature levels that this release supports: `FeatureLevels::SUPPORTED`.
    pub levels: FeatureLevels,
    /// For `dev` only: join with a blank disk although the quorum knows another.
    pub replace_directory: bool,
    /// Timeouts and intervals.
    pub timings: Timings,
    /// Bounds on the Raft log.
    pub limits: LogLimits,
}

/// Timeouts and intervals of quorum and brokers.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Shortest silence of the leader after which an election starts. Three
    /// heartbeats: one lost or late frame must not depose a leader.
    pub election_min: Duration,
    /// Longest such silence. The span is redrawn each time, so that candidates
    /// do not tie for ever.
    pub election_max: Duration,
    /// Interval of Raft heartbeats.
    pub raft_heartbeat: Duration,
    /// Interval of broker heartbeats. A fifth of the session timeout.
    pub broker_heartbeat: Duration,
    /// Silence after which a broker is fenced. Decides how long a dead host
    /// keeps its leaderships; a dead process is noticed at once.
    pub broker_session_timeout: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            raft_heartbeat: Duration::from_millis(50),
            broker_heartbeat: Duration::from_millis(200),
            broker_session_timeout: Duration::from_millis(1000),
        }
    }
}

/// Bounds on the Raft log.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// See [`SNAPSHOT_EVERY_ENTRIES`].
    pub snapshot_every: u64,
    /// See [`KEPT_ENTRIES`].
    pub kept: u64,
    /// Encoded bytes of the records in one entry.
    pub proposal_bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            snapshot_every: SNAPSHOT_EVERY_ENTRIES,
            kept: KEPT_ENTRIES,
            proposal_bytes: PROPOSAL_BYTES,
        }
    }
}
