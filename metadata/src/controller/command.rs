//! What the controller is asked, and what it answers.

use crate::image::{Partition, Topic};
use crate::records::{ConfigResource, FeatureLevel, FeatureLevels};
use ottla_proto::{
    ApiError, BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId,
    PartitionEpoch, PartitionId, RequestId, TopicId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Something to decide. Where a decision needs chance or an id, it comes with
/// the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A process wants a broker epoch. Answered by [`Reply::Registered`].
    RegisterBroker(RegisterBroker),
    /// A broker is alive. Answered by [`Reply::Heartbeat`].
    Heartbeat(Heartbeat),
    /// Proof that the process with this registration is gone: its stream broke
    /// and its port refuses connections. Fences at once. Answered by
    /// [`Reply::Done`], also when there is nothing left to do.
    BrokerGone {
        /// The node.
        node_id: NodeId,
        /// The registration the proof is about.
        broker_epoch: BrokerEpoch,
    },
    /// A broker was silent for the session timeout; comes from
    /// [`Controller::tick`](super::Controller::tick). Answered by
    /// [`Reply::Done`], also when the broker has been heard of since.
    SessionExpired {
        /// The node.
        node_id: NodeId,
        /// The registration that was silent.
        broker_epoch: BrokerEpoch,
    },
    /// Answered by [`Reply::TopicCreated`].
    CreateTopic(CreateTopic),
    /// Answered by [`Reply::TopicDeleted`].
    DeleteTopic {
        /// Name of the topic.
        name: String,
    },
    /// Answered by [`Reply::TopicConfigAltered`], also when nothing changes.
    AlterTopicConfig(AlterTopicConfig),
    /// Options of the cluster or of a node are to be changed. Answered by
    /// [`Reply::ConfigAltered`], also when nothing changes.
    AlterConfig(AlterConfig),
    /// A topic is to have more partitions. Answered by [`Reply::TopicGrown`],
    /// also when it has as many already.
    GrowTopic(GrowTopic),
    /// Partitions are to move to other nodes. Answered by [`Reply::Reassigned`],
    /// also when they are there already.
    Reassign(Reassign),
    /// Partitions are to go back where they were. Answered by
    /// [`Reply::ReassignmentCancelled`], also when none is under way.
    CancelReassignment(CancelReassignment),
    /// An operator wants another leader. Answered by [`Reply::Elected`].
    ElectLeader(ElectLeader),
    /// A leader proposes ISRs. Answered by [`Reply::Altered`].
    AlterPartition(AlterPartition),
    /// A broker lost the disk under some of its replicas. Answered by
    /// [`Reply::Done`].
    ReportOffline(ReportOffline),
    /// A broker wants ids for producers. Answered by [`Reply::ProducerIds`].
    AllocateProducerIds {
        /// The node.
        node_id: NodeId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
    },
    /// A member of the quorum shows its data directory. Answered by [`Reply::Done`].
    RecordVoterDirectory {
        /// The member.
        node_id: NodeId,
        /// Its directory.
        directory: DirectoryId,
    },
    /// The disk of a node that votes no more is given up. Answered by
    /// [`Reply::Done`], also when that was done before.
    RetireDirectory {
        /// The node.
        node_id: NodeId,
    },
    /// A node that votes no more leaves for good. Answered by [`Reply::Done`],
    /// also when it has left already.
    RemoveNode {
        /// The node.
        node_id: NodeId,
    },
    /// Give leaderships back to preferred replicas that can take them, at most
    /// [`MAX_LEADER_MOVES`](super::MAX_LEADER_MOVES). Answered by
    /// [`Reply::Balanced`].
    BalanceLeaders,
    /// What a controller before this one may have left unfinished is to be done: see
    /// `parts`. Comes before all other commands of a controller. Answered by
    /// [`Reply::Done`].
    Settle,
    /// A node is to be emptied. Answered by [`Reply::Drain`], also when it is being
    /// emptied already.
    Drain {
        /// The node.
        node_id: NodeId,
    },
    /// It is not, after all. Answered by [`Reply::Drain`], also when it was not.
    CancelDrain {
        /// The node.
        node_id: NodeId,
    },
    /// Nodes that are being emptied are to be emptied further; comes from
    /// [`Controller::tick`](super::Controller::tick). Answered by [`Reply::Done`].
    ContinueDrains,
    /// The cluster's feature level is to be raised to this one; `None`: to the newest
    /// that the controller's release knows. Answered by [`Reply::LevelFinalised`],
    /// also when it is there already.
    FinaliseLevel {
        /// The level.
        level: Option<FeatureLevel>,
    },
    /// A command of an operator, to be carried out once however often it is sent
    /// under this id. Answered as the command is.
    Requested(Requested),
}

/// A command of an operator, under an id that only this request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Made up by whoever asks.
    pub id: RequestId,
    /// When it came, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What is asked for.
    pub command: Box<Command>,
}

/// A process wants a broker epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    /// The cluster it believes to belong to.
    pub cluster_id: String,
    /// The node id it was configured with.
    pub node_id: NodeId,
    /// The process.
    pub incarnation: IncarnationId,
    /// The data directory it opened.
    pub directory: DirectoryId,
    /// Host at which it can be reached.
    pub host: String,
    /// Port of its gRPC services.
    pub port: u16,
    /// Where it stands.
    pub rack: Option<String>,
    /// The feature levels that its release supports.
    pub levels: FeatureLevels,
    /// From its clean-shutdown marker, if there was one.
    pub previous_broker_epoch: Option<BrokerEpoch>,
    /// Whether the heartbeat stream of the node's *current* registration is
    /// open at this controller, as far as the network shows. A stream that is
    /// open belongs to a living process, which another must not push aside; a
    /// killed process loses its stream at once, so that its successor need not
    /// wait for the session to expire.
    pub previous_stream_open: bool,
}

/// A broker is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The node.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// Number of metadata records it has applied.
    pub metadata_offset: MetadataOffset,
    /// It wants no leadership and no ISR membership now.
    pub want_fence: bool,
    /// It wants to stop.
    pub want_shutdown: bool,
}

/// A topic is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// A new id; used only if the topic is created.
    pub topic_id: TopicId,
    /// Number of partitions; 0 means 1.
    pub partitions: u32,
    /// Replicas of each; 0 means 3, or the number of nodes if that is smaller.
    pub replication_factor: u32,
    /// Options by name.
    pub configs: BTreeMap<String, String>,
    /// Check everything, create nothing.
    pub validate_only: bool,
    /// Any number. Spreads the placement of different topics.
    pub placement_seed: u64,
}

/// A topic's options are to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterTopicConfig {
    /// Its name.
    pub name: String,
    /// Options to set, by name.
    pub set: BTreeMap<String, String>,
    /// Options to put back to their defaults.
    pub unset: BTreeSet<String>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

/// Options of the cluster or of a node are to be changed: all of this, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterConfig {
    /// Whose options.
    pub resource: ConfigResource,
    /// Options to set, by name.
    pub set: BTreeMap<String, String>,
    /// Options that are not to be set any more.
    pub unset: BTreeSet<String>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

/// A topic is to have more partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions it is to have in all.
    pub partitions: u32,
    /// Check everything, change nothing.
    pub validate_only: bool,
    /// Any number. Spreads the placement of different topics.
    pub placement_seed: u64,
}

/// Partitions of a topic are to move to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassign {
    /// The topic's name.
    pub topic: String,
    /// Index and replicas of each, the preferred leader first. All begin, or none.
    pub partitions: Vec<(u32, Vec<NodeId>)>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

/// Partitions of a topic that are being moved are to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelReassignment {
    /// The topic's name.
    pub topic: String,
    /// Their indexes; none: all that are being moved. All go back, or none.
    pub partitions: Vec<u32>,
}

/// An operator wants another leader for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectLeader {
    /// The topic's name.
    pub topic: String,
    /// Index of the partition.
    pub partition: u32,
    /// Who may lead.
    pub election: Election,
}

/// Who may lead after an election by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first replica of the assignment, if it is in the ISR.
    Preferred,
    /// If nobody leads: any replica that is there. What it lacks is lost.
    Unclean,
}

/// A leader proposes new ISRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartition {
    /// The node that leads them.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// One proposal a partition.
    pub partitions: Vec<PartitionAlteration>,
}

/// A broker lost the disk under some of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOffline {
    /// The node.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// At most [`MAX_OFFLINE_REPLICAS`](super::MAX_OFFLINE_REPLICAS). Partitions that
    /// are gone, or of which it is no replica, are passed over.
    pub partitions: Vec<PartitionId>,
}

/// The ISR that a leader wants for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAlteration {
    /// The partition.
    pub partition: PartitionId,
    /// Generation in which the caller leads.
    pub leader_epoch: LeaderEpoch,
    /// Version of the state the proposal was made for.
    pub partition_epoch: PartitionEpoch,
    /// Members, each with the broker epoch under which it caught up.
    pub new_isr: Vec<(NodeId, BrokerEpoch)>,
    /// If the leader was elected without being known to have everything: it is
    /// done with what it had to do about that.
    pub recovered: bool,
}

/// The answer to a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// There was nothing to tell.
    Done,
    /// The broker is registered.
    Registered {
        /// Under this epoch.
        broker_epoch: BrokerEpoch,
        /// The previous process had left in order: what it acknowledged from
        /// memory is on its disk.
        clean_restart: bool,
    },
    /// How the broker stands.
    Heartbeat {
        /// It leads nothing and is in no ISR.
        fenced: bool,
        /// It may stop now.
        should_shutdown: bool,
    },
    /// The topic as created, or as it would have been.
    TopicCreated(PlannedTopic),
    /// The topic with its options as they are now, or as they would be.
    TopicConfigAltered(PlannedTopic),
    /// The options that are set on the cluster or the node now, or would be.
    ConfigAltered {
        /// By name.
        options: BTreeMap<String, String>,
    },
    /// The topic with all its partitions as it is now, or as it would be.
    TopicGrown {
        /// The topic.
        planned: PlannedTopic,
        /// New partitions among them, the last ones: none if it had as many as
        /// were asked for.
        added: u32,
    },
    /// The topic as it is now, or as it would be.
    Reassigned {
        /// The topic with all its partitions.
        planned: PlannedTopic,
        /// Indexes of those that differ from before.
        changed: Vec<u32>,
    },
    /// The topic as it is now.
    ReassignmentCancelled {
        /// The topic with all its partitions.
        planned: PlannedTopic,
        /// Indexes of those that go back.
        cancelled: Vec<u32>,
    },
    /// The topic is gone.
    TopicDeleted {
        /// Its id.
        topic_id: TopicId,
    },
    /// The partition as it is now.
    Elected {
        /// Its index.
        index: u32,
        /// Its state.
        partition: Partition,
        /// Whether that is news: a leader that should lead may lead already.
        changed: bool,
    },
    /// One outcome for each proposal, in their order.
    Altered(Vec<PartitionOutcome>),
    /// Producer ids that nobody else gets.
    ProducerIds {
        /// These.
        ids: Range<i64>,
    },
    /// How a node that is being emptied stands, or one that is not any more.
    Drain {
        /// Whether it is news that it is, or that it is not.
        changed: bool,
        /// Replicas that it has.
        replicas: usize,
        /// Moves that were taken back.
        taken_back: usize,
    },
    /// The cluster's feature level.
    LevelFinalised {
        /// As it is now.
        level: FeatureLevel,
        /// Whether that is news.
        changed: bool,
    },
    /// How many leaderships moved. As many as
    /// [`MAX_LEADER_MOVES`](super::MAX_LEADER_MOVES): there may be more to do.
    Balanced {
        /// Leaderships moved.
        moved: usize,
    },
}

/// A topic and its partitions, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTopic {
    /// The topic.
    pub topic: Topic,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// What became of one proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOutcome {
    /// The partition.
    pub partition: PartitionId,
    /// Its state now, or why it did not change. `NEW_LEADER_ELECTED` is the
    /// exception: the ISR did change, and the caller leads no more.
    pub result: Result<PartitionState, ApiError>,
}

/// A partition's leadership and ISR after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The leader, if any.
    pub leader: Option<NodeId>,
    /// Generation of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// Version of the state.
    pub partition_epoch: PartitionEpoch,
    /// In-sync replicas, in assignment order.
    pub isr: Vec<NodeId>,
    /// Members of the ISR below which nothing may be committed, as the
    /// controller had it when it decided who is eligible beside this ISR.
    pub min_isr: usize,
}
