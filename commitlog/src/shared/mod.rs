//! What all logs of a node share: the disk, a bounded memory of what was appended
//! last, and figures to watch.
//!
//! Not its job: anything that one log could do alone.

mod figures;
mod hot_tail;

pub use figures::{Figures, Histogram, HistogramSnapshot};
pub use hot_tail::{DEFAULT_HOT_TAIL_BYTES, HotTailUse};
pub(crate) use hot_tail::{Run, Tail};

use crate::vfs::Vfs;
use hot_tail::HotTail;
use std::sync::Arc;

/// What all logs of a node share. One per node, given to every
/// [`crate::Log::open`].
pub struct Shared {
    vfs: Arc<dyn Vfs>,
    hot_tail: Arc<HotTail>,
    figures: Figures,
}

impl Shared {
    /// For the logs of one node, with [`DEFAULT_HOT_TAIL_BYTES`].
    #[must_use]
    pub fn new(vfs: Arc<dyn Vfs>) -> Arc<Self> {
        Self::with_hot_tail(vfs, DEFAULT_HOT_TAIL_BYTES)
    }

    /// For the logs of one node, which together keep at most about `bytes` of
    /// what was appended last in memory; 0: nothing.
    #[must_use]
    pub fn with_hot_tail(vfs: Arc<dyn Vfs>, bytes: usize) -> Arc<Self> {
        Arc::new(Self { vfs, hot_tail: HotTail::new(bytes), figures: Figures::default() })
    }

    /// The disk.
    #[must_use]
    pub fn vfs(&self) -> &dyn Vfs {
        &*self.vfs
    }

    /// What the logs have done so far.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// How much the hot tails take, and how often they served.
    #[must_use]
    pub fn hot_tail_use(&self) -> HotTailUse {
        self.hot_tail.usage()
    }

    /// From now on the logs together keep at most about `bytes` in memory.
    pub fn set_hot_tail(&self, bytes: usize) {
        self.hot_tail.resize(bytes);
    }

    /// The hot tail of a log.
    pub(crate) fn tail(&self) -> Tail {
        HotTail::tail(&self.hot_tail)
    }
}
