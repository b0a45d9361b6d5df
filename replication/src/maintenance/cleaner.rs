//! Compaction: one log after the other, the dirtiest first, on one thread, at a
//! bounded speed and with bounded memory.

mod postponed;

use super::{pause, settle};
use crate::env::Env;
use crate::options::Limits;
use crate::partition::{Partition, wall_clock_ms};
use ottla_commitlog::{Cleaner, Dirtiness, Log, LogError};
use ottla_host::blocking;
use ottla_proto::Offset;
use postponed::Postponed;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
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
    let mut cleaner = None;
    let mut postponed = Postponed::default();
    while pause(&env, tokio::time::Instant::now(), |limits| limits.cleaner_backoff).await {
        let looking = Arc::clone(&env);
        let Ok(due) = blocking(move || all_due(&looking)).await else { continue };
        for Due { partition, log, up_to, .. } in due {
            if env.stop.is_cancelled() {
                return;
            }
            if !postponed.is_due(partition.id, Instant::now()) {
                continue;
            }
            let memory = env.limits().cleaner_key_map_bytes;
            let same = cleaner.take().filter(|(known, _)| *known == memory);
            let (_, mut lent) = same.unwrap_or_else(|| (memory, Cleaner::new(memory)));
            let mut pace = Pace::new(env.limits.subscribe(), env.stop.clone());
            let done = blocking(move || {
                let mut pace = |bytes| pace.did(bytes);
                let done = log.compact(wall_clock_ms(), up_to, &mut lent, &mut pace);
                (done, lent)
            });
            let result = done.await.map(|(done, lent)| {
                cleaner = Some((memory, lent));
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
    limits: watch::Receiver<Limits>,
    bytes_per_second: u64,
    /// Since when this many bytes a second are allowed, and how many were moved.
    begun: Instant,
    bytes: u64,
    stop: CancellationToken,
}

impl Pace {
    fn new(mut limits: watch::Receiver<Limits>, stop: CancellationToken) -> Self {
        let bytes_per_second = limits.borrow_and_update().cleaner_bytes_per_second.max(1);
        Self { limits, bytes_per_second, begun: Instant::now(), bytes: 0, stop }
    }

    fn did(&mut self, bytes: u64) -> ControlFlow<()> {
        self.bytes += bytes;
        while !self.stop.is_cancelled() {
            if self.limits.has_changed().unwrap_or(false) {
                *self = Self::new(self.limits.clone(), self.stop.clone());
            }
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
        let allow =
            |cleaner_bytes_per_second| Limits { cleaner_bytes_per_second, ..Limits::default() };
        let limits = watch::Sender::new(allow(1_000_000));
        let mut pace = Pace::new(limits.subscribe(), stop.clone());
        assert_eq!(pace.did(20_000), ControlFlow::Continue(()));
        assert!(pace.begun.elapsed() >= Duration::from_millis(20));
        // At the old speed this would take an hour.
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| pace.did(3_600_000_000));
            limits.send_replace(allow(u64::MAX));
            assert_eq!(slow.join().expect("no panic"), ControlFlow::Continue(()));
        });
        stop.cancel();
        assert_eq!(pace.did(1 << 40), ControlFlow::Break(()));
    }
}
