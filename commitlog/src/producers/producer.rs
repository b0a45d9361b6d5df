//! One producer of one log.

use super::Step;
use super::window::{Sequenced, Window, advance};
use ottla_proto::Offset;

/// What is known of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    /// Batches of that epoch.
    pub(super) window: Window,
    /// Of the newest marker; -1 before the first.
    pub(super) coordinator_epoch: i32,
    /// First offset of the transaction that is open.
    pub(super) open_since: Option<Offset>,
    /// Of the newest batch or marker, ms (KAFKA-9144).
    pub(super) last_timestamp: i64,
}

impl Producer {
    pub(super) fn new(epoch: i16) -> Self {
        Self {
            epoch,
            window: Window::default(),
            coordinator_epoch: -1,
            open_since: None,
            last_timestamp: -1,
        }
    }

    pub(super) fn open_since(&self) -> Option<Offset> {
        self.open_since
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open_since.is_none()
    }

    pub(super) fn last_timestamp(&self) -> i64 {
        self.last_timestamp
    }

    /// The only sequence with which a new batch of this epoch may begin.
    pub(super) fn next_sequence(&self) -> i32 {
        self.window.last().map_or(0, |batch| advance(batch.last_sequence, 1))
    }

    pub(super) fn apply(&mut self, step: &Step) {
        if self.epoch != step.epoch {
            self.epoch = step.epoch;
            self.window = Window::default();
        }
        self.last_timestamp = step.timestamp;
        if let Some(marker) = step.marker {
            self.coordinator_epoch = self.coordinator_epoch.max(marker.coordinator_epoch);
            self.open_since = None;
        }
        if let Some((first_sequence, last_sequence)) = step.sequences {
            self.window.push(Sequenced {
                first_sequence,
                last_sequence,
                first_offset: step.first,
                last_offset: step.last,
                timestamp: step.timestamp,
            });
        }
        if step.transactional && step.marker.is_none() && step.sequences.is_some() {
            self.open_since = self.open_since.or(Some(step.first));
        }
    }
}
