//! What logs need from time to time: syncs that nobody asked for, and an end for
//! what is old, records and the memory of producers. Every replica does it for itself, leader or not, below what it
//! knows to be committed.
//!
//! Not its job: what is old (the log's configuration says so), and removing what
//! the leader has removed (the partition's task follows that at once).

mod cleaner;

use crate::env::Env;
use crate::options::Limits;
use crate::partition::{Message, Partition, wall_clock_ms};
use ottla_commitlog::{Log, LogError};
use ottla_host::blocking;
use ottla_proto::Offset;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait before the first look: logs are opened first. As Kafka's.
const MAX_INITIAL_DELAY: Duration = Duration::from_secs(30);

/// Looks after the logs until the node stops. What was begun is finished: after
/// this nothing here touches a log any more.
pub(crate) async fn run(env: Arc<Env>) {
    let flushing = every(&env, |limits| limits.flush_check, flush);
    let retaining = every(&env, |limits| limits.retention_check, retain);
    let forgetting = every(&env, |limits| limits.producer_check, forget);
    tokio::join!(flushing, retaining, forgetting, cleaner::run(Arc::clone(&env)));
}

/// Waits until this long after `since`, however long that becomes meanwhile. False
/// when the node stops.
async fn pause(env: &Env, since: Instant, length: impl Fn(&Limits) -> Duration) -> bool {
    let mut limits = env.limits.subscribe();
    loop {
        let until = since + length(&limits.borrow_and_update());
        tokio::select! {
            () = env.stop.cancelled() => return false,
            () = tokio::time::sleep_until(until) => return true,
            // The sender lives as long as the node.
            _ = limits.changed() => {}
        }
    }
}

/// Does `work` for each partition in turn, and again after `period`.
async fn every<F: Future<Output = ()>>(
    env: &Arc<Env>,
    period: impl Fn(&Limits) -> Duration,
    work: impl Fn(Arc<Partition>, Arc<Log>) -> F,
) {
    let mut longest = MAX_INITIAL_DELAY;
    let mut since = Instant::now();
    while pause(env, since, |limits| period(limits).min(longest)).await {
        (longest, since) = (Duration::MAX, Instant::now());
        for partition in env.all_partitions() {
            if env.stop.is_cancelled() {
                return;
            }
            if let Some(log) = partition.log().map(Arc::clone)
                && partition.is_running()
            {
                work(partition, log).await;
            }
        }
    }
}

/// `flush.ms` and `flush.messages`.
async fn flush(partition: Arc<Partition>, log: Arc<Log>) {
    if log.flush_due(wall_clock_ms()) {
        let synced = blocking(move || log.sync().map(drop)).await;
        settle(&partition, "flush", synced.map_err(|lost| lost.to_string())).await;
    }
}

/// Producers that nobody has heard of for long.
async fn forget(partition: Arc<Partition>, log: Arc<Log>) {
    let forgotten = log.expire_producers(wall_clock_ms());
    if forgotten > 0 {
        tracing::debug!(partition = %partition.id, forgotten, "silent producers are forgotten");
    }
}

/// `retention.ms` and `retention.bytes`.
async fn retain(partition: Arc<Partition>, log: Arc<Log>) {
    let Some(up_to) = partition.committed() else { return };
    if !log.config().cleanup.delete {
        return;
    }
    let before = log.bounds().start;
    let retained = blocking({
        let log = Arc::clone(&log);
        move || retain_all(&log, up_to)
    })
    .await;
    let result = retained.map_err(|lost| lost.to_string());
    if let Ok(Ok(Some(timestamp))) = result {
        let partition = partition.id;
        tracing::warn!(%partition, timestamp, "a record from the future delays retention");
    }
    settle(&partition, "retention", result.map(|done| done.map(drop))).await;
    if log.bounds().start > before {
        partition.send(Message::StartRaised).await;
    }
}

/// Deletes what is old; gives back the timestamp from the future, if one stops
/// it.
fn retain_all(log: &Log, up_to: Offset) -> Result<Option<i64>, LogError> {
    loop {
        let done = log.retain(wall_clock_ms(), up_to)?;
        if !done.more {
            return Ok(done.future_timestamp_ms);
        }
    }
}

/// A disk that failed takes the partition offline; a full one is tried again the
/// next time.
async fn settle(partition: &Partition, what: &str, result: Result<Result<(), LogError>, String>) {
    let reason = match result {
        Ok(Ok(()) | Err(LogError::Offline { .. })) => return,
        Ok(Err(error @ LogError::DiskFull { .. })) => {
            tracing::warn!(partition = %partition.id, %error, what, "to be tried again");
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(lost) => lost,
    };
    partition.send(Message::Failed(reason)).await;
}
