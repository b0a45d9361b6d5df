//! What the node says at the start.

use crate::Cluster;
use ottla_commitlog::data_dir::DataDirs;
use ottla_commitlog::{DEFAULT_KEY_MAP_BYTES, Shared};
use ottla_host::Network;
use ottla_proto::NodeId;
use ottla_trace::Tracer;
use std::sync::Arc;
use std::time::Duration;

/// Everything that [`crate::Replicas::start`] needs.
pub struct ReplicasOptions {
    /// This node.
    pub node_id: NodeId,
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// Where the partitions lie.
    pub data_dirs: Arc<DataDirs>,
    /// What the node's logs share: the disk first.
    pub shared: Arc<Shared>,
    /// How other nodes are reached.
    pub network: Arc<dyn Network>,
    /// What is traced of writes.
    pub tracer: Tracer,
    /// The metadata: images in, proposed ISRs out.
    pub cluster: Arc<dyn Cluster>,
    /// The last run left a clean-shutdown marker: its logs need no recovery.
    pub clean_start: bool,
    /// Bounds and times.
    pub limits: Limits,
}

/// Bounds and times of a node's replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Bytes a second that this node sends at most to followers that are to come back
    /// into an ISR, all together. 0: no limit; they yield to those in sync anyway.
    pub catch_up_bytes_per_second: u64,
    /// The same for followers that a reassignment adds. 0, as in Kafka.
    pub reassignment_bytes_per_second: u64,
    /// How often logs are looked at for syncs that nobody asked for (`flush.ms`,
    /// `flush.messages`). A second: Kafka's default never looks.
    pub flush_check: Duration,
    /// How often retention deletes what is old. Five minutes, as Kafka's
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,
    /// How often logs are looked at for compaction. 15 seconds, as Kafka's
    /// `log.cleaner.backoff.ms`.
    pub cleaner_backoff: Duration,
    /// Bytes a second that compaction reads and writes at most. 64 MiB: a quarter
    /// of a slow disk, so that appends stay quick.
    pub cleaner_bytes_per_second: u64,
    /// Memory for the keys of the compaction that runs; held only meanwhile. More
    /// keys than fit take several goes.
    pub cleaner_key_map_bytes: usize,
    /// How often producers that have been silent for a day are forgotten. Ten
    /// minutes, as Kafka's `producer.id.expiration.check.interval.ms`.
    pub producer_check: Duration,
    /// Free bytes of a disk below which somebody should look; on small disks a share of
    /// it. 20 GiB: hours at full speed of a few clients.
    pub disk_alert_free_bytes: u64,
    /// Free bytes of a disk below which clients' writes are refused; on small disks a
    /// share of it. A GiB: what compaction may need to copy the largest segment there is
    /// by default (`segment.bytes`), and make room.
    pub disk_refuse_free_bytes: u64,
    /// How often disks are asked for their room. A second: at 500 MB/s half of the
    /// default above is gone meanwhile.
    pub disk_check: Duration,
}

const GIB: u64 = 1024 * 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            produce_bytes: 64 * 1024 * 1024,
            replica_lag_max: Duration::from_secs(10),
            replica_credit_bytes: 8 * 1024 * 1024,
            catch_up_bytes_per_second: 0,
            reassignment_bytes_per_second: 0,
            flush_check: Duration::from_secs(1),
            retention_check: Duration::from_mins(5),
            cleaner_backoff: Duration::from_secs(15),
            cleaner_bytes_per_second: 64 * 1024 * 1024,
            cleaner_key_map_bytes: DEFAULT_KEY_MAP_BYTES,
            producer_check: Duration::from_mins(10),
            disk_alert_free_bytes: 20 * GIB,
            disk_refuse_free_bytes: GIB,
            disk_check: Duration::from_secs(1),
        }
    }
}

/// Replication could not start on this node.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasError {
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
