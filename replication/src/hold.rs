//! A leadership is about to go elsewhere, for no better reason than order: the
//! preferred replica is back, or the leader is not to have the partition any more. Its
//! leader finishes what it was given first, so that nobody is left in doubt, and every
//! in-sync replica has all there is, so that nothing is lost that only the leader had.
//!
//! Best effort: safety never depends on it. Who moves the leadership goes on when a
//! leader is not done in time, as if it had died.

use crate::core::ReplicaStatus;
use crate::env::Env;
use crate::partition::{LocalPartition, Partition};
use ottla_proto::{LeaderEpoch, PartitionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long writes stay out, once all that were in are answered, if the leadership does
/// not move. An election takes milliseconds; whoever wanted it may have died.
const HELD_FOR: Duration = Duration::from_secs(1);

/// Longest time that a caller may give a leader to finish.
const MAX_WITHIN: Duration = Duration::from_secs(1);

/// Lets no further write into a partition that this node leads in `epoch`, and waits
/// until all that are in are answered and every in-sync replica has everything. Then
/// writes wait until somebody else leads, for [`HELD_FOR`] at most. False: not done in
/// time, or not led in that epoch; writes go on.
pub(crate) async fn hold(
    env: &Arc<Env>,
    id: PartitionId,
    epoch: LeaderEpoch,
    within: Duration,
) -> bool {
    let Some(partition) = env.partition(id) else { return false };
    let deadline = Instant::now() + within.min(MAX_WITHIN);
    let Ok(closed) = timeout_at(deadline, partition.writes.close()).await else { return false };
    if timeout_at(deadline, settled(&partition, epoch)).await != Ok(true) {
        return false;
    }
    let stop = env.stop.clone();
    env.tasks.spawn(async move {
        let mut state = partition.state();
        let moved = state.wait_for(|now| in_epoch(now, epoch).is_none());
        // However it ends, writes go on.
        let _ = stop.run_until_cancelled(timeout(HELD_FOR, moved)).await;
        drop(closed);
    });
    true
}

/// Waits until every in-sync replica has all that is in the leader's log. False if
/// this node leads in that epoch no more.
pub(crate) async fn settled(partition: &Partition, epoch: LeaderEpoch) -> bool {
    let mut state = partition.state();
    let settled = |now: &LocalPartition| {
        in_epoch(now, epoch).is_none_or(|now| now.high_watermark == now.log_end)
    };
    // An error: the partition has ended.
    state.wait_for(settled).await.is_ok_and(|now| in_epoch(&now, epoch).is_some())
}

fn in_epoch(now: &LocalPartition, epoch: LeaderEpoch) -> Option<&ReplicaStatus> {
    now.leading().filter(|now| now.leader_epoch == epoch)
}
