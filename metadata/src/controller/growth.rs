//! More partitions for a topic. There is no way back: what lies in a partition
//! cannot be spread over others without another offset.
//!
//! Keys move: a key's partition follows from the number of partitions. That is
//! for whoever grows the topic to consider.

use super::draft::Draft;
use super::placement::place;
use super::topics::{
    INTERNAL_TOPIC_PREFIX, MAX_PARTITIONS_PER_TOPIC, candidates, create_partitions, first_state,
    replication_factor, unknown_topic,
};
use super::{GrowTopic, PlannedTopic, Reply};
use crate::image::{Image, Partition, Topic};
use crate::records::TopicGrown;
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason;

pub(super) fn grow(draft: &mut Draft, request: &GrowTopic) -> Result<Reply, ApiError> {
    let (name, image) = (&request.name, draft.image());
    let topic = image.topic_by_name(name).ok_or_else(|| unknown_topic(name))?;
    let (id, before) = (topic.id, topic.partitions);
    check(topic, request.partitions)?;
    let mut partitions: Vec<Partition> =
        image.partitions_of(id).map(|(_, partition)| Partition::clone(partition)).collect();
    if request.partitions > before {
        partitions.extend(place_more(image, &partitions, request)?);
    }
    let topic = Topic { partitions: request.partitions, ..Topic::clone(topic) };
    let added = request.partitions - before;
    if added > 0 && !request.validate_only {
        draft.push(TopicGrown { id, partitions: request.partitions });
        create_partitions(draft, id, before, &partitions[before as usize..]);
    }
    Ok(Reply::TopicGrown { planned: PlannedTopic { topic, partitions }, added })
}

fn check(topic: &Topic, asked: u32) -> Result<(), ApiError> {
    let (name, has) = (&topic.name, topic.partitions);
    if name.starts_with(INTERNAL_TOPIC_PREFIX) {
        let message = format!(
            "`{name}` is an internal topic: what is where in it follows from its number of \
             partitions"
        );
        return Err(ApiError::new(ErrorReason::InvalidTopicName, message));
    }
    let problem = if asked < has {
        format!("topic `{name}` has {has} partitions and can only grow, not shrink to {asked}")
    } else if asked > MAX_PARTITIONS_PER_TOPIC {
        format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions, not {asked}")
    } else {
        return Ok(());
    };
    Err(ApiError::new(ErrorReason::InvalidPartitions, problem).with("partitions", has))
}

/// The new ones have as many replicas as the first.
fn place_more(
    image: &Image,
    known: &[Partition],
    request: &GrowTopic,
) -> Result<Vec<Partition>, ApiError> {
    let replicas = known.first().map_or(1, |first| first.target().len());
    let candidates = candidates(image);
    let factor = replication_factor(u32::try_from(replicas).unwrap_or(u32::MAX), &candidates)?;
    let more = request.partitions - u32::try_from(known.len()).unwrap_or(u32::MAX);
    let assignments = place(&candidates, more, factor, request.placement_seed);
    Ok(assignments.into_iter().map(|replicas| first_state(image, replicas)).collect())
}
