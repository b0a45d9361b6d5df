//! Partitions that were here and whose logs are being deleted. One that comes back
//! meanwhile, as a reassignment can have it, has to wait until its old log is gone:
//! it would open what is being deleted.

use ottla_proto::PartitionId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Leaving {
    /// No more than there were partitions.
    ids: Mutex<BTreeSet<PartitionId>>,
    gone: Notify,
}

impl Leaving {
    pub(crate) fn begin(&self, id: PartitionId) {
        self.ids.lock().insert(id);
    }

    /// Its log is gone, or could not be deleted.
    pub(crate) fn end(&self, id: PartitionId) {
        self.ids.lock().remove(&id);
        self.gone.notify_one();
    }

    pub(crate) fn contains(&self, id: PartitionId) -> bool {
        self.ids.lock().contains(&id)
    }

    /// Waits until one has gone since this was called last. For one waiter.
    pub(crate) async fn changed(&self) {
        self.gone.notified().await;
    }
}
