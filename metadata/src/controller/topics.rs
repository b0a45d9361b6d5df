//! Creation and deletion of topics, and their options.

use super::draft::Draft;
use super::partitions::{forget_eligible_of, settle_where};
use super::placement::{Candidate, place};
use super::{AlterTopicConfig, CreateTopic, PlannedTopic, Reply};
use crate::image::{Image, Partition, Topic};
use crate::records::{
    ConfigError, PartitionCreated, TopicConfig, TopicConfigChanged, TopicCreated, TopicDeleted,
};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, LeaderEpoch, NodeId, PartitionEpoch, PartitionId, TopicId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest topic name, in bytes. As Kafka's: with a partition number it still
/// fits into one file name.
pub const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Names that start so belong to Ottla itself.
pub const INTERNAL_TOPIC_PREFIX: &str = "__";

/// Most partitions of a topic. They are all created by one entry of the
/// metadata log, of about 200 bytes a partition.
pub const MAX_PARTITIONS_PER_TOPIC: u32 = 10_000;

/// The internal topic that consumer groups are kept in. Nodes have it created when it is
/// first needed. Its partitions cannot grow in number: they say where a group is.
pub const GROUPS_TOPIC: &str = "__consumer_offsets";

/// Partitions of it whose creator does not say how many: coordinators, spread over the
/// nodes, each with syncs of its own.
const GROUPS_PARTITIONS: u32 = 16;

/// Its options that are what they are.
const GROUPS_FIXED: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("durability", "disk")];

/// Partitions of a topic whose creator does not say how many.
pub const DEFAULT_PARTITIONS: u32 = 1;

/// Replicas of a topic whose creator does not say how many, as far as there
/// are nodes.
pub const DEFAULT_REPLICATION_FACTOR: u32 = 3;

/// Whether a user may give a topic this name.
///
/// # Errors
/// INVALID_TOPIC_NAME, with what is wrong.
pub fn check_topic_name(name: &str) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_TOPIC_NAME_BYTES {
        format!("has {} bytes, more than {MAX_TOPIC_NAME_BYTES}", name.len())
    } else if name == "." || name == ".." {
        format!("must not be `{name}`")
    } else if let Some(c) = name.chars().find(|&c| !legal(c)) {
        format!("has the character {c:?}; allowed are ASCII letters, digits, `.`, `_` and `-`")
    } else if name.starts_with(INTERNAL_TOPIC_PREFIX) {
        format!("starts with `{INTERNAL_TOPIC_PREFIX}`, which is kept for internal topics")
    } else {
        return Ok(());
    };
    Err(ApiError::new(ErrorReason::InvalidTopicName, format!("the topic name {problem}")))
}

pub(super) fn create(draft: &mut Draft, request: &CreateTopic) -> Result<Reply, ApiError> {
    let planned = plan(draft.image(), request)?;
    if !request.validate_only {
        write_down(draft, &planned);
    }
    Ok(Reply::TopicCreated(planned))
}

pub(super) fn delete(draft: &mut Draft, name: &str) -> Result<Reply, ApiError> {
    if name.starts_with(INTERNAL_TOPIC_PREFIX) {
        let message = format!("`{name}` is an internal topic");
        return Err(ApiError::new(ErrorReason::InvalidTopicName, message));
    }
    let topic_id = *draft.image().topic_ids.get(name).ok_or_else(|| unknown_topic(name))?;
    draft.push(TopicDeleted { id: topic_id });
    Ok(Reply::TopicDeleted { topic_id })
}

/// Sets and unsets options; what is so already makes no record. Where unclean
/// elections are allowed from now on, they are held.
pub(super) fn alter_config(
    draft: &mut Draft,
    request: &AlterTopicConfig,
) -> Result<Reply, ApiError> {
    let (name, image) = (&request.name, draft.image());
    let topic = image.topic_by_name(name).ok_or_else(|| unknown_topic(name))?;
    let asked = || request.set.keys().chain(&request.unset);
    if name == GROUPS_TOPIC
        && let Some(fixed) = asked().find(|option| GROUPS_FIXED.iter().any(|(f, _)| f == option))
    {
        let message = format!("`{fixed}` of `{name}` is fixed: what groups remember depends on it");
        return Err(ApiError::new(ErrorReason::InvalidConfig, message).with("option", fixed));
    }
    let config = topic.config.altered(&request.set, &request.unset).map_err(invalid_config)?;
    let partitions: Vec<Partition> =
        image.partitions_of(topic.id).map(|(_, partition)| Partition::clone(partition)).collect();
    let fewest = partitions.iter().map(|partition| partition.target().len()).min();
    check_min_isr(&config, fewest.unwrap_or(0))?;
    let planned =
        PlannedTopic { topic: Topic { config: config.clone(), ..Topic::clone(topic) }, partitions };
    if config != topic.config && !request.validate_only {
        let (id, old) = (topic.id, topic.config.clone());
        draft.push(TopicConfigChanged { id, config: config.clone() });
        give_up_eligible(draft, id, &old, &config);
        settle_where(draft, None, |partition, _| partition.topic == id);
    }
    Ok(Reply::TopicConfigAltered(planned))
}

/// Another min.insync.replicas changes what could be committed beside an ISR, and
/// another durability what a restart can lose: who was eligible by the old options
/// is so no more, unless there is nobody else to lead.
pub(super) fn give_up_eligible(
    draft: &mut Draft,
    id: TopicId,
    old: &TopicConfig,
    new: &TopicConfig,
) {
    if old.min_insync_replicas != new.min_insync_replicas || old.durability != new.durability {
        forget_eligible_of(draft, id);
    }
}

/// A partition of a topic, by its index.
pub(super) fn partition_of(
    image: &Image,
    topic: &Topic,
    index: u32,
) -> Result<(PartitionId, Arc<Partition>), ApiError> {
    let found = image.partition(topic.id, index).ok_or_else(|| {
        let message = format!(
            "topic `{}` has {} partitions, there is no partition {index}",
            topic.name, topic.partitions
        );
        ApiError::new(ErrorReason::UnknownPartition, message)
    })?;
    Ok((PartitionId { topic: topic.id, index }, Arc::clone(found)))
}

pub(super) fn unknown_topic(name: &str) -> ApiError {
    ApiError::new(ErrorReason::UnknownTopic, format!("there is no topic `{name}`"))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn invalid_config(error: ConfigError) -> ApiError {
    ApiError::new(ErrorReason::InvalidConfig, error.to_string()).with("option", error.option())
}

/// Checks everything and places the replicas.
fn plan(image: &Image, request: &CreateTopic) -> Result<PlannedTopic, ApiError> {
    let is_internal = request.name == GROUPS_TOPIC;
    if !is_internal {
        check_topic_name(&request.name)?;
    }
    if image.topic_ids.contains_key(&request.name) {
        let message = format!("topic `{}` exists already", request.name);
        return Err(ApiError::new(ErrorReason::TopicAlreadyExists, message));
    }
    if image.topics.contains_key(&request.topic_id) {
        let message = format!("the topic id {} is taken", request.topic_id);
        return Err(ApiError::new(ErrorReason::InvalidRequest, message));
    }
    let partitions = match request.partitions {
        0 if is_internal => GROUPS_PARTITIONS,
        asked => partition_count(asked)?,
    };
    let none = TopicConfig::default().with_defaults(&image.topic_defaults());
    let mut configs = request.configs.clone();
    if is_internal {
        // Else facts of groups would get old, or be lost with the memory of the nodes.
        configs.extend(GROUPS_FIXED.map(|(option, value)| (option.to_owned(), value.to_owned())));
    }
    let config = none.altered(&configs, &BTreeSet::new()).map_err(invalid_config)?;
    let candidates = candidates(image);
    let factor = replication_factor(request.replication_factor, &candidates)?;
    check_min_isr(&config, factor)?;
    let assignments = place(&candidates, partitions, factor, request.placement_seed);
    Ok(PlannedTopic {
        topic: Topic { id: request.topic_id, name: request.name.clone(), partitions, config },
        partitions: assignments.into_iter().map(|replicas| first_state(image, replicas)).collect(),
    })
}

fn partition_count(asked: u32) -> Result<u32, ApiError> {
    match asked {
        0 => Ok(DEFAULT_PARTITIONS),
        1..=MAX_PARTITIONS_PER_TOPIC => Ok(asked),
        _ => {
            let message =
                format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions, not {asked}");
            Err(ApiError::new(ErrorReason::InvalidPartitions, message))
        }
    }
}

/// Every registered broker that takes replicas counts, fenced ones too, as in Kafka: a node that is
/// away for a moment should not stop topics from being created. Somebody has
/// to be there to lead, though.
pub(super) fn replication_factor(asked: u32, candidates: &[Candidate]) -> Result<usize, ApiError> {
    if !candidates.iter().any(|candidate| candidate.active) {
        let message = format!(
            "none of {} nodes that take replicas is active: nobody could lead the topic",
            candidates.len()
        );
        return Err(ApiError::new(ErrorReason::LeaderNotAvailable, message));
    }
    let asked = match asked {
        0 => return Ok(candidates.len().min(DEFAULT_REPLICATION_FACTOR as usize)),
        asked => usize::try_from(asked).unwrap_or(usize::MAX),
    };
    if asked > candidates.len() {
        let message = format!(
            "a replication factor of {asked} needs as many nodes, and there are {}",
            candidates.len()
        );
        return Err(ApiError::new(ErrorReason::InvalidReplicationFactor, message)
            .with("nodes", candidates.len()));
    }
    Ok(asked)
}

/// Only what was asked for is held against the number of replicas: the default
/// gives way.
pub(super) fn check_min_isr(
    config: &TopicConfig,
    replication_factor: usize,
) -> Result<(), ApiError> {
    match config.options().min_insync_replicas {
        Some(min) if min as usize > replication_factor => {
            let message = format!(
                "min.insync.replicas of {min} can never be reached with a replication factor of \
                 {replication_factor}"
            );
            Err(ApiError::new(ErrorReason::InvalidConfig, message)
                .with("option", "min.insync.replicas"))
        }
        _ => Ok(()),
    }
}

/// Every registered broker but those that are being emptied.
pub(super) fn candidates(image: &Image) -> Vec<Candidate> {
    image
        .brokers
        .values()
        .filter(|broker| !image.draining.contains(&broker.node_id))
        .map(|broker| Candidate {
            node: broker.node_id,
            rack: broker.rack.clone(),
            active: broker.is_active(),
        })
        .collect()
}

/// All active replicas of a new partition are in sync: there is nothing yet to
/// be behind with.
pub(super) fn first_state(image: &Image, replicas: Vec<NodeId>) -> Partition {
    let isr: Vec<NodeId> = replicas.iter().copied().filter(|&node| image.is_active(node)).collect();
    Partition {
        leader: isr.first().copied(),
        isr,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        last_leader: None,
        recovering: false,
        replicas,
        reassignment: None,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    }
}

fn write_down(draft: &mut Draft, planned: &PlannedTopic) {
    let topic = &planned.topic;
    draft.push(TopicCreated {
        id: topic.id,
        name: topic.name.clone(),
        partitions: topic.partitions,
        config: topic.config.clone(),
    });
    create_partitions(draft, topic.id, 0, &planned.partitions);
}

/// Writes down new partitions of a topic, from an index on.
pub(super) fn create_partitions(
    draft: &mut Draft,
    topic: TopicId,
    from: u32,
    partitions: &[Partition],
) {
    for (index, partition) in (from..).zip(partitions) {
        draft.push(PartitionCreated {
            partition: PartitionId { topic, index },
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            last_leader: None,
            recovering: false,
            reassignment: None,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
        });
    }
}
