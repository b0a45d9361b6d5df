//! How often leaders and ISRs change: counted as one image of the metadata follows another.
//! What comes and goes between two looks is not seen.

use ottla_metadata::Metadata;
use ottla_metadata::image::{Delta, Image, Partition};
use ottla_proto::NodeId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Replicas that left the ISR of a partition that is led here.
    pub(crate) shrinks: u64,
    /// Replicas that joined one.
    pub(crate) expands: u64,
    /// Leaderships that came here.
    pub(crate) elected: u64,
}

/// The counts, for who shows them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    shrinks: AtomicU64,
    expands: AtomicU64,
    elected: AtomicU64,
}

impl Changes {
    pub(crate) fn so_far(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            shrinks: get(&self.shrinks),
            expands: get(&self.expands),
            elected: get(&self.elected),
        }
    }

    fn add(&self, counts: Counts) {
        self.shrinks.fetch_add(counts.shrinks, Ordering::Relaxed);
        self.expands.fetch_add(counts.expands, Ordering::Relaxed);
        self.elected.fetch_add(counts.elected, Ordering::Relaxed);
    }

    /// Counts until the metadata ends.
    pub(crate) async fn follow(self: Arc<Self>, metadata: Metadata, node: NodeId) {
        let mut images = metadata.images();
        let mut last = Arc::clone(&images.borrow_and_update());
        while images.changed().await.is_ok() {
            let image = Arc::clone(&images.borrow_and_update());
            self.add(between(&last, &image, node));
            last = image;
        }
    }
}

fn between(before: &Image, after: &Image, node: NodeId) -> Counts {
    let mut counts = Counts::default();
    for change in Delta::between(before, after).partitions {
        let Some(after) = &change.after else { continue };
        if after.leader == Some(node) {
            count(change.before.as_deref(), after, node, &mut counts);
        }
    }
    counts
}

fn count(before: Option<&Partition>, after: &Partition, node: NodeId, counts: &mut Counts) {
    let Some(before) = before else {
        counts.elected += 1;
        return;
    };
    counts.elected += u64::from(before.leader != Some(node));
    let lacks = |these: &Partition, those: &Partition| {
        these.isr.iter().filter(|replica| !those.isr.contains(replica)).count() as u64
    };
    counts.shrinks += lacks(before, after);
    counts.expands += lacks(after, before);
}
