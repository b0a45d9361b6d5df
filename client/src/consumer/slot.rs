//! One partition on the shelf.

use super::batch::Credit;
use ottla_commitlog::format::Record;
use ottla_proto::PartitionId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Credit on its way back to a partition's reader.
#[derive(Debug, Default)]
pub(super) struct Credits {
    back: Mutex<Credit>,
    news: Notify,
}

impl Credits {
    pub(super) fn give(&self, credit: Credit) {
        self.back.lock().add(credit);
        self.news.notify_one();
    }

    /// Waits for some.
    pub(super) async fn take(&self) -> Credit {
        self.news.notified().await;
        std::mem::take(&mut *self.back.lock())
    }
}

/// Records of one answer.
pub(super) struct Shelved {
    pub(super) records: std::vec::IntoIter<Record>,
    pub(super) next_offset: u64,
    pub(super) high_watermark: u64,
    pub(super) credit: Credit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is read, or will be.
    Reading,
    /// It is to be given back, once the application knows.
    Stopping,
    /// It is being given back.
    Releasing,
}

pub(super) struct Slot {
    pub(super) id: Option<PartitionId>,
    pub(super) generation: u64,
    pub(super) phase: Phase,
    /// Which of its readers is the one.
    pub(super) feed: u64,
    pub(super) reader: Option<AbortHandle>,
    pub(super) credits: Arc<Credits>,
    pub(super) shelved: VecDeque<Shelved>,
    /// Whether it has its turn among those that have something.
    pub(super) queued: bool,
    pub(super) paused: bool,
    /// Next to be handed out, once that is known.
    pub(super) position: Option<u64>,
    /// Behind what the application has asked for more after.
    pub(super) processed: Option<u64>,
    pub(super) committed: Option<u64>,
}

impl Slot {
    /// One that nobody reads yet.
    pub(super) fn new(id: Option<PartitionId>, generation: u64) -> Self {
        Self {
            id,
            generation,
            phase: Phase::Reading,
            feed: 0,
            reader: None,
            credits: Arc::default(),
            shelved: VecDeque::new(),
            queued: false,
            paused: false,
            position: None,
            processed: None,
            committed: None,
        }
    }

    /// Ends reading, and drops what was read.
    pub(super) fn clear(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
        self.shelved.clear();
    }

    pub(super) fn may_be_taken(&self) -> bool {
        self.phase == Phase::Reading && !self.paused && !self.shelved.is_empty()
    }
}
