//! Elections that an operator asks for, one partition at a time.

use super::balance::go_home;
use super::draft::Draft;
use super::partitions::{Wish, settle};
use super::topics::{partition_of, unknown_topic};
use super::{ElectLeader, Election, Reply};
use crate::image::{Image, Partition};
use crate::records::PartitionChanged;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, PartitionId};

/// What is so already makes no record: asking twice is as good as once.
pub(super) fn elect(draft: &mut Draft, request: &ElectLeader) -> Result<Reply, ApiError> {
    let image = draft.image();
    let topic = image.topic_by_name(&request.topic).ok_or_else(|| unknown_topic(&request.topic))?;
    let (id, partition) = partition_of(image, topic, request.partition)?;
    let name = format!("{}-{}", topic.name, id.index);
    let change = match request.election {
        Election::Preferred => preferred(image, id, &partition, &name)?,
        Election::Unclean => unclean(image, id, &partition, &name)?,
    };
    let changed = change.is_some();
    if let Some(change) = change {
        draft.push(change);
    }
    let after = Partition::clone(&draft.image().partitions[&id]);
    Ok(Reply::Elected { index: id.index, partition: after, changed })
}

/// The first replica of the assignment leads, if it is in the ISR and can serve.
fn preferred(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
    name: &str,
) -> Result<Option<PartitionChanged>, ApiError> {
    let first = partition.replicas.first().copied();
    if partition.leader.is_some() && partition.leader == first {
        return Ok(None);
    }
    go_home(image, id, partition).map(Some).ok_or_else(|| {
        let first = first.map_or_else(|| "none".to_owned(), |node| node.to_string());
        let message = format!(
            "node {first}, the preferred leader of {name}, cannot lead now: it is not in the ISR, \
             fenced, or lost its disk"
        );
        ApiError::new(ErrorReason::LeaderNotAvailable, message)
    })
}

/// Somebody leads, whatever it lacks. Not while there is a leader: nothing has to
/// be given up then.
fn unclean(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
    name: &str,
) -> Result<Option<PartitionChanged>, ApiError> {
    if partition.leader.is_some() {
        return Ok(None);
    }
    let wish = Wish { unclean: true, ..Wish::none(partition) };
    settle(image, id, partition, &wish).map(Some).ok_or_else(|| {
        let message = format!(
            "no replica of {name} can lead, not even with loss: all are fenced or lost their disk"
        );
        ApiError::new(ErrorReason::LeaderNotAvailable, message)
    })
}
