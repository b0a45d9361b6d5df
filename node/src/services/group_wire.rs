//! Groups, between the wire and the coordinator. What a caller may get wrong is found
//! here, or by the group.

use ottla_coordinator::groups::{
    Assignor, Commit, Committer, Departure, Group, GroupError, GroupId, GroupState, Heartbeat,
    Member, MemberId, OffsetFact,
};
use ottla_metadata::image::Image;
use ottla_proto::v1::{self, ErrorReason as R};
use ottla_proto::{ApiError, PartitionId, TopicId};
use std::collections::BTreeSet;

/// Bytes of the names of groups, members and instances, which stand in every record.
const MAX_NAME_BYTES: usize = 255;

/// Topics that one subscription names.
const MAX_SUBSCRIBED_TOPICS: usize = 1_000;

/// Partitions in one commit: below what one batch holds.
const MAX_COMMITS: usize = 2_000;

pub(super) fn check_group(name: &str) -> Result<(), ApiError> {
    check_name("the group's name", name)
}

fn invalid(message: String) -> ApiError {
    ApiError::new(R::InvalidRequest, message)
}

fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        length => {
            Err(invalid(format!("{what} has {length} bytes, expected 1 to {MAX_NAME_BYTES}")))
        }
    }
}

fn check_bound(what: &str, count: usize, limit: usize) -> Result<(), ApiError> {
    if count <= limit { Ok(()) } else { Err(invalid(format!("{count} {what}, at most {limit}"))) }
}

pub(super) fn heartbeat(request: v1::HeartbeatRequest) -> Result<Heartbeat, ApiError> {
    use v1::heartbeat_request::Departure as Leaves;
    check_group(&request.group)?;
    check_name("the member's id", &request.member_id)?;
    for (what, name) in [("the instance id", &request.instance_id), ("the rack", &request.rack)] {
        name.as_ref().map_or(Ok(()), |name| check_name(what, name))?;
    }
    check_bound("bytes of client id", request.client_id.len(), MAX_NAME_BYTES)?;
    let assignor = |name: String| {
        Assignor::from_name(&name).ok_or_else(|| {
            let known = Assignor::ALL.map(Assignor::name).join(", ");
            invalid(format!("there is no assignor `{name}`, expected one of {known}"))
        })
    };
    Ok(Heartbeat {
        group: GroupId::from(request.group),
        member: MemberId::from(request.member_id),
        epoch: request.member_epoch,
        departure: match request.departure {
            Some(Leaves::Leave(true)) => Some(Departure::Leave),
            Some(Leaves::Pause(true)) => Some(Departure::Pause),
            Some(Leaves::Leave(false) | Leaves::Pause(false)) | None => None,
        },
        instance_id: request.instance_id,
        rack: request.rack,
        client_id: request.client_id,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscription: request.subscription.map(subscription).transpose()?,
        assignor: request.assignor.map(assignor).transpose()?,
        owned: request.owned.map(|owned| wanted(&owned.topics)).transpose()?,
        sequence: request.sequence,
    })
}

fn subscription(wants: v1::Subscription) -> Result<(BTreeSet<String>, Option<String>), ApiError> {
    check_bound("topics subscribed to", wants.topics.len(), MAX_SUBSCRIBED_TOPICS)?;
    let pattern = wants.pattern.filter(|pattern| !pattern.is_empty());
    if wants.topics.is_empty() && pattern.is_none() {
        return Err(invalid("a subscription names topics, or a pattern, or both".to_owned()));
    }
    for name in &wants.topics {
        check_name("a topic's name", name)?;
    }
    if let Some(pattern) = &pattern {
        check_name("the pattern", pattern)?;
    }
    Ok((wants.topics.into_iter().collect(), pattern))
}

/// The partitions, of those asked for or of all that the group reads, that came after the
/// group had begun, and for which nothing was committed.
pub(super) fn appeared(group: &Group, asked: &BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
    let all = || {
        let topics = group.fact.topics.iter();
        topics.flat_map(|(topic, count)| {
            (0..*count).map(|index| PartitionId { topic: *topic, index })
        })
    };
    let asked: Vec<PartitionId> =
        if asked.is_empty() { all().collect() } else { asked.iter().copied().collect() };
    let is_new = |id: &PartitionId| group.has_appeared(*id) && !group.offsets.contains_key(id);
    asked.into_iter().filter(is_new).collect()
}

/// An id that need not be given.
pub(super) fn topic_id(bytes: &[u8]) -> Result<Option<TopicId>, ApiError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let wrong = || invalid(format!("a topic id has 16 bytes, not {}", bytes.len()));
    TopicId::from_wire(bytes).map(Some).ok_or_else(wrong)
}

pub(super) fn wanted(topics: &[v1::TopicPartitions]) -> Result<BTreeSet<PartitionId>, ApiError> {
    let mut all = BTreeSet::new();
    for listed in topics {
        let missing = || invalid("a topic id has 16 bytes, not 0".to_owned());
        let topic = topic_id(&listed.topic_id)?.ok_or_else(missing)?;
        all.extend(listed.partitions.iter().map(|index| PartitionId { topic, index: *index }));
    }
    Ok(all)
}

pub(super) fn commits(
    image: &Image,
    request: &v1::CommitOffsetsRequest,
) -> Result<(Committer, Vec<Commit>), ApiError> {
    check_bound("offsets in one commit", request.offsets.len(), MAX_COMMITS)?;
    let committer = match &request.member_id {
        Some(member) => Committer::Member(MemberId::from(member.as_str()), request.member_epoch),
        None => Committer::Anybody,
    };
    let commit = |one: &v1::OffsetCommit| {
        let named = match topic_id(&one.topic_id)? {
            Some(id) => image.topics.get(&id),
            None => image.topic_by_name(&one.topic),
        };
        let topic = named.filter(|topic| one.partition < topic.partitions).ok_or_else(|| {
            let (topic, partition) = (one.topic.clone(), one.partition);
            refusal(&GroupError::UnknownPartition { topic, partition })
        })?;
        let partition = PartitionId { topic: topic.id, index: one.partition };
        let v1::OffsetCommit { offset, leader_epoch, metadata, .. } = one.clone();
        Ok(Commit { partition, offset, leader_epoch, metadata })
    };
    let commits = request.offsets.iter().map(commit).collect::<Result<_, ApiError>>()?;
    Ok((committer, commits))
}

/// A group's refusal, as a caller is told.
pub(super) fn refusal(error: &GroupError) -> ApiError {
    let reason = match error {
        GroupError::Invalid(_) | GroupError::Overtaken { .. } => R::InvalidRequest,
        GroupError::InvalidPattern { .. } => R::InvalidSubscription,
        GroupError::UnknownGroup => R::UnknownGroup,
        GroupError::UnknownMember(_) => R::UnknownMember,
        GroupError::FencedMemberEpoch { .. } => R::FencedMemberEpoch,
        GroupError::StaleMemberEpoch { .. } => R::StaleMemberEpoch,
        GroupError::UnreleasedInstance { .. } => R::UnreleasedInstance,
        GroupError::FencedInstance { .. } => R::FencedInstance,
        GroupError::NotEmpty { .. } => R::GroupNotEmpty,
        GroupError::Full { .. } => R::GroupFull,
        GroupError::UnknownPartition { .. } => R::UnknownPartition,
        GroupError::TooLarge { .. } => R::GroupFull,
        GroupError::MetadataTooLarge { .. } => R::OffsetMetadataTooLarge,
    };
    let api = ApiError::new(reason, error.to_string());
    match error {
        GroupError::FencedMemberEpoch { expected, got }
        | GroupError::StaleMemberEpoch { expected, got } => {
            api.with("expected", expected).with("got", got)
        }
        _ => api,
    }
}

pub(super) fn beyond_the_end(image: &Image, commit: &Commit, high_watermark: u64) -> ApiError {
    let (topic, partition) = (name_of(image, commit.partition.topic), commit.partition.index);
    let offset = commit.offset;
    let message = format!("{topic}-{partition} ends at {high_watermark}, before {offset}");
    ApiError::new(R::OffsetOutOfRange, message)
        .with("topic", topic)
        .with("partition", partition)
        .with("high_watermark", high_watermark)
}

fn name_of(image: &Image, id: TopicId) -> String {
    image.topics.get(&id).map_or_else(String::new, |topic| topic.name.clone())
}

pub(super) fn partitions(
    image: &Image,
    partitions: &BTreeSet<PartitionId>,
) -> Vec<v1::TopicPartitions> {
    let mut topics: Vec<v1::TopicPartitions> = Vec::new();
    let mut last = None;
    for id in partitions {
        if last != Some(id.topic) {
            last = Some(id.topic);
            topics.push(v1::TopicPartitions {
                topic_id: id.topic.to_wire().into(),
                topic: name_of(image, id.topic),
                partitions: Vec::new(),
            });
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(id.index);
        }
    }
    topics
}

pub(super) fn committed(image: &Image, id: PartitionId, fact: &OffsetFact) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: name_of(image, id.topic),
        topic_id: id.topic.to_wire().into(),
        partition: id.index,
        offset: fact.offset,
        leader_epoch: fact.leader_epoch,
        metadata: fact.metadata.clone(),
        committed_at_ms: fact.committed_at_ms,
    }
}

pub(super) fn state(group: &Group) -> v1::GroupState {
    match group.state() {
        GroupState::Empty => v1::GroupState::Empty,
        GroupState::Reconciling => v1::GroupState::Reconciling,
        GroupState::Stable => v1::GroupState::Stable,
    }
}

pub(super) fn describe(image: &Image, name: &str, group: &Group) -> v1::DescribeGroupResponse {
    let member = |(id, member): (&MemberId, &Member)| v1::GroupMember {
        member_id: id.to_string(),
        instance_id: member.fact.instance_id.clone(),
        rack: member.fact.rack.clone(),
        client_id: member.fact.client_id.clone(),
        member_epoch: member.current.epoch,
        subscription: Some(v1::Subscription {
            topics: member.fact.topics.iter().cloned().collect(),
            pattern: member.fact.pattern.clone(),
        }),
        assigned: partitions(image, &member.current.assigned),
        revoking: partitions(image, &member.current.revoking),
        target: partitions(image, &member.target),
    };
    let offset = |(id, fact): (&PartitionId, &OffsetFact)| committed(image, *id, fact);
    v1::DescribeGroupResponse {
        header: None,
        group: name.to_owned(),
        state: state(group).into(),
        epoch: group.fact.epoch,
        assignor: group.fact.assignor.name().to_owned(),
        members: group.members.iter().map(member).collect(),
        offsets: group.offsets.iter().map(offset).collect(),
    }
}
