//! Opening the logs of this node: a few at a time in each data directory, and how
//! far that has come, for the log and for health.
//!
//! Only the logs of the first image count as progress: later ones are new, or come
//! one by one.

use crate::env::Env;
use ottla_commitlog::Recovery;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

/// Logs opened at the same time in one data directory. Most of the time goes into
/// waiting for syncs of small files, which a disk takes together; more threads would
/// only make it seek. Each holds a scan buffer of 1 MiB that grows to the largest
/// batch it meets (8 MiB): at most 36 MiB a directory.
const OPENS_PER_DIRECTORY: usize = 4;

/// Between two lines of progress in the log.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// How far the logs that this node had at its start are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningProgress {
    /// The metadata has said which logs belong here.
    pub known: bool,
    /// How many.
    pub logs: usize,
    /// Opened, or found that they cannot be.
    pub done: usize,
    /// Those that cannot be: offline.
    pub failed: usize,
    /// Those that were scanned, because the stop before was not clean.
    pub scanned: usize,
    /// Bytes read for that.
    pub bytes_scanned: u64,
    /// Those whose end was cut because it was bad.
    pub cut: usize,
    /// Bytes cut away.
    pub cut_bytes: u64,
}

impl OpeningProgress {
    /// Nothing is awaited any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.known && self.done == self.logs
    }
}

pub(crate) struct Opening {
    slots: Vec<Semaphore>,
    progress: watch::Sender<OpeningProgress>,
}

impl Opening {
    pub(crate) fn new(directories: usize) -> Self {
        let slots = (0..directories).map(|_| Semaphore::new(OPENS_PER_DIRECTORY)).collect();
        Self { slots, progress: watch::Sender::new(OpeningProgress::default()) }
    }

    pub(crate) fn progress(&self) -> watch::Receiver<OpeningProgress> {
        self.progress.subscribe()
    }

    /// So many logs belong here at the start.
    pub(crate) fn expect(&self, logs: usize) {
        self.progress.send_modify(|progress| {
            progress.known = true;
            progress.logs = logs;
        });
    }

    /// Leave to open a log in a directory; held until it is open.
    pub(crate) async fn slot(&self, directory: usize) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.slots[directory].acquire().await
    }

    /// A log of the start is open, or offline.
    pub(crate) fn opened(&self, recovery: Option<&Recovery>) {
        self.progress.send_modify(|progress| {
            progress.done += 1;
            let Some(recovery) = recovery else {
                progress.failed += 1;
                return;
            };
            progress.scanned += usize::from(recovery.segments_scanned > 0);
            progress.bytes_scanned += recovery.bytes_scanned;
            progress.cut += usize::from(recovery.cut_at.is_some());
            progress.cut_bytes += recovery.cut_bytes;
        });
    }
}

/// Tells the log until all are open, and once more then.
pub(crate) async fn run(env: Arc<Env>) {
    let stop = env.stop.clone();
    stop.run_until_cancelled(report(&env)).await;
}

async fn report(env: &Env) {
    let mut changes = env.opening.progress();
    if changes.wait_for(|progress| progress.known).await.is_err() {
        return;
    }
    let started = Instant::now();
    let mut next = started + REPORT_EVERY;
    loop {
        let done = changes.wait_for(OpeningProgress::is_done);
        match tokio::time::timeout_at(next, done).await {
            Ok(Ok(progress)) => return summary(&progress, started, env.clean_start),
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        next += REPORT_EVERY;
        let OpeningProgress { logs, done, bytes_scanned, .. } = *changes.borrow();
        tracing::info!(
            "opening logs: {done} of {logs} done, {} scanned, {} s",
            size(bytes_scanned),
            started.elapsed().as_secs()
        );
    }
}

fn summary(progress: &OpeningProgress, started: Instant, clean: bool) {
    let OpeningProgress { logs, failed, scanned, bytes_scanned, cut, cut_bytes, .. } = *progress;
    let after = started.elapsed().as_secs_f64();
    if logs == 0 {
        return;
    }
    let way = if clean { "after a clean stop" } else { "after an unclean stop" };
    tracing::info!(
        "opened {logs} logs {way} in {after:.1} s: {scanned} scanned ({}), {cut} cut by {}, \
         {failed} offline",
        size(bytes_scanned),
        size(cut_bytes)
    );
}

/// For people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["bytes", "KB", "MB", "GB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_done_when_every_log_is_and_not_before_they_are_known() {
        let opening = Opening::new(2);
        let progress = || *opening.progress().borrow();
        assert!(!progress().is_done());
        opening.expect(3);
        opening.opened(None);
        opening.opened(Some(&Recovery::default()));
        assert!(!progress().is_done());
        let cut = Recovery {
            segments_scanned: 2,
            bytes_scanned: 100,
            cut_at: Some(7),
            cut_bytes: 9,
            ..Recovery::default()
        };
        opening.opened(Some(&cut));
        let expected = OpeningProgress {
            known: true,
            logs: 3,
            done: 3,
            failed: 1,
            scanned: 1,
            bytes_scanned: 100,
            cut: 1,
            cut_bytes: 9,
        };
        assert_eq!(progress(), expected);
        assert!(progress().is_done());
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(4_200_000_000), "4.2 GB");
        assert_eq!(size(7_200_000_000_000), "7200.0 GB");
    }
}
