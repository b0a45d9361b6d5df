//! Compaction: one log after the other, the dirtiest first, on one thread, at a
//! bounded speed and with bounded memory.

mod postponed;

use super::settle;
use crate::env::Env;
use crate::partition::{Partition, wall_clock_ms};
use ottla_commitlog::{Cleaner, Dirtiness, Log, LogError};
use ottla_host::blocking;
use ottla_proto::Offset;
use postponed::Postponed;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest sleep for the sake of speed: the end of the node is heard after it.
const MAX_PAUSE: Duration = Duration::from_millis(100);

struct Due {
    partition: Arc<Partition>,
    log: Arc<Log>,
    dirt: Dirtiness,
    up_to: Offset,
}

/// Compacts what is due, then waits, until the node stops.
pub(super) async fn run(env: Arc<Env>) {
    let fresh = || Cleaner::new(env.limits.cleaner_key_map_bytes);
    let mut cleaner = Some(fresh());
    let mut postponed = Postponed::default();
    let wait = || tokio::time::sleep(env.limits.cleaner_backoff);
    while env.stop.run_until_cancelled(wait()).await.is_some() {
        let looking = Arc::clone(&env);
        let Ok(due) = blocking(move || all_due(&looking)).await else { continue };
        for Due { partition, log, up_to, .. } in due {
            if env.stop.is_cancelled() {
                return;
            }
            if !postponed.is_due(partition.id, Instant::now()) {
                continue;
            }
            let mut lent = cleaner.take().unwrap_or_else(fresh);
            let mut pace = Pace::new(env.limits.cleaner_bytes_per_second, env.stop.clone());
            let done = blocking(move || {
                let mut pace = |bytes| pace.did(bytes);
                let done = log.compact(wall_clock_ms(), up_to, &mut lent, &mut pace);
                (done, lent)
            });
            let result = done.await.map(|(done, lent)| {
                cleaner = Some(lent);
                done.map(drop)
            });
            let full = matches!(result, Ok(Err(LogError::DiskFull { .. })));
            postponed.note(partition.id, full, Instant::now());
            conclude(&partition, result.map_err(|lost| lost.to_string())).await;
        }
    }
}

/// The dirtiest first; those whose time has come before all.
fn all_due(env: &Env) -> Vec<Due> {
    let mut all: Vec<Due> = env.all_partitions().into_iter().filter_map(due).collect();
    all.sort_by_key(|due| std::cmp::Reverse((due.dirt.overdue, due.dirt.ratio_permille)));
    all
}

fn due(partition: Arc<Partition>) -> Option<Due> {
    let up_to = partition.committed()?;
    let log = Arc::clone(partition.log()?);
    if !log.config().cleanup.compact {
        return None;
    }
    match log.dirty(wall_clock_ms(), up_to) {
        Ok(dirt) => dirt.due.then_some(Due { partition, log, dirt, up_to }),
        Err(error) => {
            tracing::warn!(partition = %partition.id, %error, "not looked at for compaction");
            None
        }
    }
}

/// What could not be read stays as it was, and the log works on: only a log that
/// went offline itself takes its partition along.
async fn conclude(partition: &Partition, result: Result<Result<(), LogError>, String>) {
    let offline = partition.log().is_some_and(|log| log.offline_reason().is_some());
    match &result {
        Ok(Err(error)) if !offline => {
            tracing::warn!(partition = %partition.id, %error, "compaction failed");
        }
        _ => settle(partition, "compaction", result).await,
    }
}

/// Bytes a second, and the word to stop.
struct Pace {
    bytes_per_second: u64,
    begun: Instant,
    bytes: u64,
    stop: CancellationToken,
}

impl Pace {
    fn new(bytes_per_second: u64, stop: CancellationToken) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), begun: Instant::now(), bytes: 0, stop }
    }

    fn did(&mut self, bytes: u64) -> ControlFlow<()> {
        self.bytes += bytes;
        while !self.stop.is_cancelled() {
            let ahead = self.allowed_at().saturating_sub(self.begun.elapsed());
            if ahead.is_zero() {
                return ControlFlow::Continue(());
            }
            std::thread::sleep(ahead.min(MAX_PAUSE));
        }
        ControlFlow::Break(())
    }

    /// When, from the beginning, so many bytes may have been moved.
    fn allowed_at(&self) -> Duration {
        let micros = u128::from(self.bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_is_paced_and_stopped() {
        let stop = CancellationToken::new();
        let mut pace = Pace::new(1_000_000, stop.clone());
        assert_eq!(pace.did(20_000), ControlFlow::Continue(()));
        assert!(pace.begun.elapsed() >= Duration::from_millis(20));
        stop.cancel();
        assert_eq!(pace.did(1 << 40), ControlFlow::Break(()));
    }
}
