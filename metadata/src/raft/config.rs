//! openraft's configuration.

use super::options::MetadataOptions;
use openraft::{Config, ConfigError, SnapshotPolicy};
use std::sync::Arc;
use std::time::Duration;

/// Entries in one append to a follower; bytes are bounded as well.
const MAX_PAYLOAD_ENTRIES: u64 = 512;

/// Longest wait for a follower to take a whole snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// Purging at least this many entries at a time: the log deletes whole
/// segments, and each purge costs an fsync.
const PURGE_BATCH_ENTRIES: u64 = 64;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's configuration for these options; fails if they contradict each
/// other.
pub(super) fn raft_config(options: &MetadataOptions) -> Result<Arc<Config>, ConfigError> {
    let (timings, limits) = (options.timings, options.limits);
    let config = Config {
        cluster_name: options.cluster_id.clone(),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        heartbeat_interval: millis(timings.raft_heartbeat),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: MAX_PAYLOAD_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_every),
        max_in_snapshot_log_to_keep: limits.kept,
        purge_batch_size: PURGE_BATCH_ENTRIES.min(limits.snapshot_every).max(1),
        // A follower that is behind by less than this gets entries if the log
        // still has them: a snapshot would not bring it any further.
        replication_lag_threshold: limits.snapshot_every.saturating_add(limits.kept),
        // A node that cannot win must not depose a leader that serves.
        enable_pre_vote: Some(true),
        // What was not synced when it died may be missing: it must be elected anew.
        enable_leader_restore: Some(false),
        // Allowed when it has applied what it was admitted at (see `joining`).
        enable_elect: false,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}
