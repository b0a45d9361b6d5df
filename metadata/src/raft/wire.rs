//! Between the messages of the controller service and the controller's own
//! types. What comes from the wire is checked here for shape, not for sense.

use crate::controller::{
    AlterConfig, AlterPartition, AlterTopicConfig, CancelReassignment, Command, CreateTopic,
    ElectLeader, Election, GrowTopic, Heartbeat, PartitionAlteration, PartitionOutcome,
    PartitionState, PlannedTopic, Reassign, RegisterBroker, ReportOffline,
};
use crate::image::Partition;
use crate::records::{ConfigResource, FeatureLevel, FeatureLevels};
use ottla_proto::internal::v1 as internal;
use ottla_proto::v1::{self, ErrorReason};
use ottla_proto::{
    ApiError, BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId,
    PartitionEpoch, PartitionId, TopicId,
};

fn invalid(what: &str) -> ApiError {
    ApiError::new(ErrorReason::InvalidRequest, what)
}

pub(super) fn id<T>(parsed: Option<T>, what: &str) -> Result<T, ApiError> {
    parsed.ok_or_else(|| invalid(&format!("{what} has 16 bytes")))
}

pub(super) fn registration(
    request: internal::RegisterBrokerRequest,
) -> Result<RegisterBroker, ApiError> {
    let endpoint = request.endpoint.ok_or_else(|| invalid("an endpoint is required"))?;
    let port = u16::try_from(endpoint.port).map_err(|_| invalid("a port is 1 to 65535"))?;
    Ok(RegisterBroker {
        cluster_id: request.cluster_id,
        node_id: NodeId(request.node_id),
        incarnation: id(IncarnationId::from_wire(&request.incarnation_id), "an incarnation id")?,
        directory: id(DirectoryId::from_wire(&request.directory_id), "a directory id")?,
        host: endpoint.host,
        port,
        rack: request.rack,
        levels: levels(request.min_feature_level, request.max_feature_level)?,
        previous_broker_epoch: request.previous_broker_epoch.map(BrokerEpoch),
        previous_stream_open: false,
    })
}

/// Without them, the first: from a release that had no other.
fn levels(min: u32, max: u32) -> Result<FeatureLevels, ApiError> {
    let first = FeatureLevel::FIRST;
    let or_first = |level| Ok::<_, ApiError>(feature_level(level)?.unwrap_or(first));
    Ok(FeatureLevels { min: or_first(min)?, max: or_first(max)? })
}

/// 0 is none.
fn feature_level(level: u32) -> Result<Option<FeatureLevel>, ApiError> {
    let level = u16::try_from(level).map_err(|_| invalid("a feature level is 1 to 65535"))?;
    Ok(Some(FeatureLevel(level)).filter(|level| level.0 > 0))
}

pub(super) fn upgrade_features(request: &v1::UpgradeFeaturesRequest) -> Result<Command, ApiError> {
    Ok(Command::FinaliseLevel { level: feature_level(request.level)? })
}

pub(super) fn drain_node(request: &v1::DrainNodeRequest) -> Command {
    let node_id = NodeId(request.node_id);
    if request.cancel { Command::CancelDrain { node_id } } else { Command::Drain { node_id } }
}

pub(super) fn registration_request(request: &RegisterBroker) -> internal::RegisterBrokerRequest {
    internal::RegisterBrokerRequest {
        cluster_id: request.cluster_id.clone(),
        node_id: request.node_id.0,
        incarnation_id: request.incarnation.to_wire().into(),
        directory_id: request.directory.to_wire().into(),
        endpoint: Some(v1::Endpoint { host: request.host.clone(), port: request.port.into() }),
        rack: request.rack.clone(),
        min_feature_level: request.levels.min.0.into(),
        max_feature_level: request.levels.max.0.into(),
        previous_broker_epoch: request.previous_broker_epoch.map(|epoch| epoch.0),
    }
}

pub(super) fn heartbeat(request: &internal::HeartbeatRequest) -> Heartbeat {
    Heartbeat {
        node_id: NodeId(request.node_id),
        broker_epoch: BrokerEpoch(request.broker_epoch),
        metadata_offset: MetadataOffset(request.metadata_offset),
        want_fence: request.want_fence,
        want_shutdown: request.want_shutdown,
    }
}

pub(super) fn heartbeat_request(beat: &Heartbeat) -> internal::HeartbeatRequest {
    internal::HeartbeatRequest {
        node_id: beat.node_id.0,
        broker_epoch: beat.broker_epoch.0,
        metadata_offset: beat.metadata_offset.0,
        want_fence: beat.want_fence,
        want_shutdown: beat.want_shutdown,
    }
}

/// The topic's id and the seed of its placement are drawn here, at the edge.
pub(super) fn create_topic(request: v1::CreateTopicRequest) -> Command {
    Command::CreateTopic(CreateTopic {
        name: request.name,
        topic_id: TopicId::random(),
        partitions: request.partitions,
        replication_factor: request.replication_factor,
        configs: request.configs.into_iter().collect(),
        validate_only: request.validate_only,
        placement_seed: rand::random(),
    })
}

pub(super) fn alter_topic_config(request: v1::AlterTopicConfigRequest) -> Command {
    Command::AlterTopicConfig(AlterTopicConfig {
        name: request.name,
        set: request.set.into_iter().collect(),
        unset: request.unset.into_iter().collect(),
        validate_only: request.validate_only,
    })
}

pub(super) fn alter_config(request: v1::AlterConfigRequest) -> Command {
    let node = request.node_id.map(|id| ConfigResource::Node(NodeId(id)));
    Command::AlterConfig(AlterConfig {
        resource: node.unwrap_or(ConfigResource::Cluster),
        set: request.set.into_iter().collect(),
        unset: request.unset.into_iter().collect(),
        validate_only: request.validate_only,
    })
}

/// The seed of the placement is drawn here, at the edge.
pub(super) fn create_partitions(request: v1::CreatePartitionsRequest) -> Command {
    Command::GrowTopic(GrowTopic {
        name: request.name,
        partitions: request.partitions,
        validate_only: request.validate_only,
        placement_seed: rand::random(),
    })
}

pub(super) fn reassign_partitions(request: v1::ReassignPartitionsRequest) -> Command {
    let replicas =
        |of: v1::PartitionReplicas| (of.partition, of.replicas.into_iter().map(NodeId).collect());
    Command::Reassign(Reassign {
        topic: request.topic,
        partitions: request.partitions.into_iter().map(replicas).collect(),
        validate_only: request.validate_only,
    })
}

pub(super) fn cancel_reassignments(request: v1::CancelReassignmentsRequest) -> Command {
    let (topic, partitions) = (request.topic, request.partitions);
    Command::CancelReassignment(CancelReassignment { topic, partitions })
}

pub(super) fn elect_leader(request: v1::ElectLeaderRequest) -> Result<Command, ApiError> {
    let election = match v1::ElectionType::try_from(request.election) {
        Ok(v1::ElectionType::Unspecified | v1::ElectionType::Preferred) => Election::Preferred,
        Ok(v1::ElectionType::Unclean) => Election::Unclean,
        Err(_) => return Err(invalid("an election is preferred or unclean")),
    };
    let (topic, partition) = (request.topic, request.partition);
    Ok(Command::ElectLeader(ElectLeader { topic, partition, election }))
}

pub(super) fn topic_metadata(planned: &PlannedTopic) -> v1::TopicMetadata {
    let partitions = (0..).zip(&planned.partitions);
    let partitions = partitions.map(|(index, partition)| partition_metadata(index, partition));
    v1::TopicMetadata {
        name: planned.topic.name.clone(),
        topic_id: planned.topic.id.to_wire().into(),
        partitions: partitions.collect(),
        configs: planned.topic.config.set_options().into_iter().collect(),
    }
}

/// A partition as clients are told.
pub(super) fn partition_metadata(index: u32, partition: &Partition) -> v1::PartitionMetadata {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    v1::PartitionMetadata {
        partition: index,
        leader_id: partition.leader.map(|leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        replicas: ids(&partition.replicas),
        isr: ids(&partition.isr),
        elr: ids(&partition.elr),
        last_known_elr: ids(&partition.last_known_elr),
        recovering: partition.recovering,
        adding_replicas: ids(&partition.adding()),
        removing_replicas: ids(&partition.removing()),
    }
}

fn partition_id(topic: &[u8], index: u32) -> Result<PartitionId, ApiError> {
    Ok(PartitionId { topic: id(TopicId::from_wire(topic), "a topic id")?, index })
}

pub(super) fn alteration(
    request: internal::AlterPartitionRequest,
) -> Result<AlterPartition, ApiError> {
    let partitions = request.partitions.into_iter().map(|change| {
        let member = |member: internal::IsrMember| {
            (NodeId(member.node_id), BrokerEpoch(member.broker_epoch))
        };
        Ok(PartitionAlteration {
            partition: partition_id(&change.topic_id, change.partition)?,
            leader_epoch: LeaderEpoch(change.leader_epoch),
            partition_epoch: PartitionEpoch(change.partition_epoch),
            new_isr: change.new_isr.into_iter().map(member).collect(),
            recovered: change.recovered,
        })
    });
    Ok(AlterPartition {
        node_id: NodeId(request.node_id),
        broker_epoch: BrokerEpoch(request.broker_epoch),
        partitions: partitions.collect::<Result<_, ApiError>>()?,
    })
}

pub(super) fn report(request: internal::ReportOfflineRequest) -> Result<ReportOffline, ApiError> {
    let partitions = request.partitions.iter();
    let partitions = partitions.map(|replica| partition_id(&replica.topic_id, replica.partition));
    Ok(ReportOffline {
        node_id: NodeId(request.node_id),
        broker_epoch: BrokerEpoch(request.broker_epoch),
        partitions: partitions.collect::<Result<_, ApiError>>()?,
    })
}

pub(super) fn report_request(request: &ReportOffline) -> internal::ReportOfflineRequest {
    let partitions = request.partitions.iter().map(|id| internal::OfflineReplica {
        topic_id: id.topic.to_wire().into(),
        partition: id.index,
    });
    internal::ReportOfflineRequest {
        node_id: request.node_id.0,
        broker_epoch: request.broker_epoch.0,
        partitions: partitions.collect(),
    }
}

pub(super) fn alteration_request(request: &AlterPartition) -> internal::AlterPartitionRequest {
    let partitions = request.partitions.iter().map(|change| internal::PartitionChange {
        topic_id: change.partition.topic.to_wire().into(),
        partition: change.partition.index,
        leader_epoch: change.leader_epoch.0,
        partition_epoch: change.partition_epoch.0,
        new_isr: change
            .new_isr
            .iter()
            .map(|(node, epoch)| internal::IsrMember { node_id: node.0, broker_epoch: epoch.0 })
            .collect(),
        recovered: change.recovered,
    });
    internal::AlterPartitionRequest {
        node_id: request.node_id.0,
        broker_epoch: request.broker_epoch.0,
        partitions: partitions.collect(),
    }
}

pub(super) fn alteration_response(
    outcomes: Vec<PartitionOutcome>,
) -> internal::AlterPartitionResponse {
    use internal::partition_change_result::Outcome;
    let results = outcomes.into_iter().map(|outcome| internal::PartitionChangeResult {
        topic_id: outcome.partition.topic.to_wire().into(),
        partition: outcome.partition.index,
        outcome: Some(match outcome.result {
            Ok(state) => Outcome::Changed(internal::PartitionChanged {
                leader_id: state.leader.map(|leader| leader.0),
                leader_epoch: state.leader_epoch.0,
                partition_epoch: state.partition_epoch.0,
                isr: state.isr.iter().map(|node| node.0).collect(),
                min_isr: u32::try_from(state.min_isr).unwrap_or(u32::MAX),
            }),
            Err(error) => Outcome::Error(error.into()),
        }),
    });
    internal::AlterPartitionResponse { partitions: results.collect() }
}

pub(super) fn alteration_outcomes(
    response: internal::AlterPartitionResponse,
) -> Result<Vec<PartitionOutcome>, ApiError> {
    use internal::partition_change_result::Outcome;
    let outcomes = response.partitions.into_iter().map(|result| {
        let outcome = match result.outcome {
            Some(Outcome::Changed(changed)) => Ok(PartitionState {
                leader: changed.leader_id.map(NodeId),
                leader_epoch: LeaderEpoch(changed.leader_epoch),
                partition_epoch: PartitionEpoch(changed.partition_epoch),
                isr: changed.isr.into_iter().map(NodeId).collect(),
                min_isr: usize::try_from(changed.min_isr).unwrap_or(usize::MAX),
            }),
            Some(Outcome::Error(error)) => Err(error.into()),
            None => Err(ApiError::new(ErrorReason::Internal, "an outcome without content")),
        };
        Ok(PartitionOutcome {
            partition: partition_id(&result.topic_id, result.partition)?,
            result: outcome,
        })
    });
    outcomes.collect()
}
