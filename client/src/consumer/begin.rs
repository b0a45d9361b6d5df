//! Where a member begins to read what it was given: where its group is, or where the reset
//! policy says.

use super::coordinator::CoordinatorLink;
use super::feed::without_commit;
use super::membership::Partitions;
use super::shared::{Begin, Shared};
use super::shelf::Held;
use super::types::ConsumerError;
use crate::StartPosition;
use crate::backoff::Deadline;
use ottla_proto::{PartitionId, TopicId, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Pause before offsets are asked for again.
const OFFSETS_AGAIN: Duration = Duration::from_millis(100);

/// The partitions that a node lists.
pub(super) fn ids<'a>(
    listed: impl IntoIterator<Item = &'a v1::TopicPartitions>,
) -> impl Iterator<Item = PartitionId> {
    listed.into_iter().flat_map(|listed| {
        let topic = TopicId::from_wire(&listed.topic_id);
        let all = topic.into_iter().zip(std::iter::repeat(&listed.partitions));
        all.flat_map(|(topic, indexes)| {
            indexes.iter().map(move |&index| PartitionId { topic, index })
        })
    })
}

/// Partitions, as a node is told.
pub(super) fn listed<'a>(
    ids: impl IntoIterator<Item = &'a PartitionId>,
) -> Vec<v1::TopicPartitions> {
    let mut topics: BTreeMap<TopicId, Vec<u32>> = BTreeMap::new();
    for id in ids {
        topics.entry(id.topic).or_default().push(id.index);
    }
    let listed = |(topic, partitions): (TopicId, Vec<u32>)| v1::TopicPartitions {
        topic_id: topic.to_wire().into(),
        topic: String::new(),
        partitions,
    };
    topics.into_iter().map(listed).collect()
}

/// Asks how far the group is, until that is known, and begins to read there.
pub(super) async fn begin(
    shared: Arc<Shared>,
    link: CoordinatorLink,
    mut begins: BTreeMap<PartitionId, Held>,
) {
    let committed = loop {
        begins.retain(|_, held| shared.shelf.lock().is_held(held));
        if begins.is_empty() {
            return;
        }
        let deadline = Deadline::after(shared.client.options().request_timeout);
        match link.offsets(listed(begins.keys()), deadline).await {
            Ok(committed) => break committed,
            Err(error) => {
                tracing::debug!(group = ?shared.group, %error, "offsets are not known yet");
                sleep(OFFSETS_AGAIN).await;
            }
        }
    };
    let offset = |one: v1::CommittedOffset| {
        let id = PartitionId { topic: TopicId::from_wire(&one.topic_id)?, index: one.partition };
        Some((id, one.offset))
    };
    let appeared = ids(committed.appeared.iter()).collect::<Partitions>();
    let committed: BTreeMap<PartitionId, u64> =
        committed.offsets.into_iter().filter_map(offset).collect();
    for (id, held) in begins {
        let known = committed
            .get(&id)
            .map(|offset| Begin { at: StartPosition::Offset(*offset), committed: Some(*offset) });
        match known.or_else(|| without_commit(shared.options.reset, appeared.contains(&id))) {
            Some(begin) => shared.begin(&held, begin),
            None => shared.tell(|shelf| shelf.error(ConsumerError::NoOffset(held.partition))),
        }
    }
}
