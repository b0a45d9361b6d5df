//! How far the groups that this node coordinates are behind: in records, and in seconds
//! since the first record that is still to be read was written. Measured when somebody
//! looks at `/metrics`.
//!
//! Not its job: how that is written down.

use crate::ends::{Ends, Place};
use futures::stream::{self, StreamExt};
use ottla_coordinator::groups::GroupId;
use ottla_coordinator::{Answer, Coordinator, Request};
use ottla_metadata::Metadata;
use ottla_metadata::image::Image;
use ottla_proto::{Offset, PartitionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Partitions of groups whose lag a node shows: two series each, what a small Prometheus
/// takes from every node without trouble. Beyond that, groups that come last by name are
/// counted only.
pub(crate) const MAX_LAG_PARTITIONS: usize = 1_000;

/// Leaders asked at the same time.
const ASKED_AT_ONCE: usize = 32;

/// How long a measurement takes at most: well below a scrape's usual ten seconds. What was
/// not answered by then is left out this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a measurement holds, so that two who scrape do not ask twice.
const FRESH: Duration = Duration::from_secs(1);

/// How far a group is behind in a partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lag {
    pub(crate) group: GroupId,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// From the first record that is to be read to the end; 0 if there is none.
    pub(crate) records: u64,
    /// Age of the first record that is to be read; 0 if there is none.
    pub(crate) seconds: f64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lags {
    /// By group, topic and partition.
    pub(crate) known: Vec<Lag>,
    /// Partitions of groups that are beyond the bound.
    pub(crate) left_out: usize,
}

/// Measures, and remembers for a moment.
pub(crate) struct LagMeter {
    coordinator: Coordinator,
    metadata: Metadata,
    ends: Arc<Ends>,
    /// When it was measured last. Held while it is.
    measured: tokio::sync::Mutex<Option<Instant>>,
    shown: watch::Sender<Arc<Lags>>,
}

impl LagMeter {
    pub(crate) fn new(coordinator: Coordinator, metadata: Metadata, ends: Arc<Ends>) -> Self {
        let (measured, shown) = Default::default();
        Self { coordinator, metadata, ends, measured, shown }
    }

    /// What was measured last.
    pub(crate) fn shown(&self) -> watch::Receiver<Arc<Lags>> {
        self.shown.subscribe()
    }

    /// Measures, unless somebody just has.
    pub(crate) async fn measure(&self) {
        let mut measured = self.measured.lock().await;
        if measured.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        let asked = self.coordinator.ask_all(|| Request::Offsets);
        let answers = tokio::time::timeout_at(deadline, asked).await.unwrap_or_default();
        let committed = answers.into_iter().flat_map(|answer| match answer {
            Answer::Offsets(offsets) => offsets,
            _ => Vec::new(),
        });
        let (committed, left_out) = bounded(committed.collect(), MAX_LAG_PARTITIONS);
        let image = self.metadata.image();
        let now_ms = crate::services::now_ms();
        let lags = stream::iter(committed).map(|(group, id, offset)| {
            let image = &image;
            async move {
                let place = self.ends.look(image, id, offset, deadline).await.ok()?;
                lag(image, group, id, place, now_ms)
            }
        });
        let known = lags.buffered(ASKED_AT_ONCE).filter_map(std::future::ready).collect().await;
        self.shown.send_replace(Arc::new(Lags { known, left_out }));
        *measured = Some(Instant::now());
    }
}

/// The first so many, by group and partition, and how many there are beside them.
fn bounded(
    mut all: Vec<(GroupId, PartitionId, Offset)>,
    limit: usize,
) -> (Vec<(GroupId, PartitionId, Offset)>, usize) {
    all.sort();
    let left_out = all.len().saturating_sub(limit);
    all.truncate(limit);
    (all, left_out)
}

fn lag(image: &Image, group: GroupId, id: PartitionId, place: Place, now_ms: i64) -> Option<Lag> {
    let topic = image.topics.get(&id.topic)?.name.clone();
    let records = place.next.map_or(0, |next| place.high_watermark.saturating_sub(next.offset));
    let millis = place.next.map_or(0, |next| now_ms.saturating_sub(next.written_ms).max(0));
    let seconds = Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
    Some(Lag { group, topic, partition: id.index, records, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::TopicId;

    /// Which groups are shown does not change from one scrape to the next.
    #[test]
    fn beyond_the_bound_groups_are_counted_only() {
        let id = PartitionId { topic: TopicId::from_wire(&[7; 16]).expect("16 bytes"), index: 0 };
        let of = |name: &str| (GroupId::from(name), id, 1);
        let (shown, left_out) = bounded(vec![of("c"), of("a"), of("d"), of("b")], 3);
        assert_eq!((shown, left_out), (vec![of("a"), of("b"), of("c")], 1));
        assert_eq!(bounded(vec![of("a")], 3), (vec![of("a")], 0));
    }
}
