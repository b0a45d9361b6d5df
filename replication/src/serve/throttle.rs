//! The node's limits on what it sends to followers outside of the ISR, over all
//! their connections, and how much it has sent.

use crate::env::Clock;
use crate::flow::{Bucket, Traffic};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{MutexGuard, Notify};
use tokio::time::sleep;

/// One limit, which may be changed while it is waited for.
pub(crate) struct Throttle {
    clock: Clock,
    bucket: Mutex<Bucket>,
    changed: Notify,
    /// Connections go one after the other, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

impl Throttle {
    fn new(clock: Clock, bytes_per_second: u64) -> Self {
        let bucket = Mutex::new(Bucket::new(bytes_per_second));
        Self { clock, bucket, changed: Notify::new(), turn: tokio::sync::Mutex::default() }
    }

    /// 0: no limit.
    pub(crate) fn set(&self, bytes_per_second: u64) {
        self.bucket.lock().set(bytes_per_second, self.clock.micros());
        self.changed.notify_waiters();
    }

    pub(crate) fn get(&self) -> u64 {
        self.bucket.lock().per_second()
    }

    /// Waits until something may be sent. Nobody else may while the answer is held.
    pub(super) async fn admit(&self) -> Option<MutexGuard<'_, ()>> {
        if !self.bucket.lock().is_limited() {
            return None;
        }
        let turn = self.turn.lock().await;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(wait) = self.bucket.lock().wait(self.clock.micros()) else {
                return Some(turn);
            };
            tokio::select! {
                () = sleep(Duration::from_micros(wait)) => {}
                () = changed => {}
            }
        }
    }

    pub(super) fn take(&self, bytes: usize) {
        self.bucket.lock().take(bytes, self.clock.micros());
    }
}

/// What all connections of followers share.
pub(crate) struct Traffics {
    /// For who is to come back into an ISR.
    pub(crate) catch_up: Throttle,
    /// For who is added by a reassignment.
    pub(crate) moving: Throttle,
    sent: [AtomicU64; Traffic::ALL.len()],
}

impl Traffics {
    pub(crate) fn new(clock: Clock, catch_up: u64, moving: u64) -> Self {
        Self {
            catch_up: Throttle::new(clock, catch_up),
            moving: Throttle::new(clock, moving),
            sent: Default::default(),
        }
    }

    /// `None`: it is never limited.
    pub(super) fn throttle(&self, traffic: Traffic) -> Option<&Throttle> {
        match traffic {
            Traffic::Live | Traffic::Lagging => None,
            Traffic::CatchUp => Some(&self.catch_up),
            Traffic::Moving => Some(&self.moving),
        }
    }

    pub(super) fn count(&self, traffic: Traffic, bytes: usize) {
        self.sent[traffic.index()].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of records sent.
    pub(crate) fn sent(&self, traffic: Traffic) -> u64 {
        self.sent[traffic.index()].load(Ordering::Relaxed)
    }
}
