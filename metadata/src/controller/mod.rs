//! The controller: takes commands, decides against an image, and answers with
//! the records that make the decision a fact.
//!
//! Not its job: writing the records to the quorum's log, streams, timers. The
//! task that does those holds one [`Controller`] while it is the active one and
//! hands in the time.
//!
//! One rule runs through all decisions about partitions
//! (`partitions::settle`): an ISR holds active brokers with a working disk only,
//! the leader is one of the ISR, and who left it when nothing could be committed
//! any more is eligible when it is empty. Fencing, a shutdown, a new incarnation,
//! an unfencing, a failed disk, other options and a leader's proposal differ only
//! in what they change before that rule is applied.

mod alter_partition;
mod balance;
mod brokers;
mod command;
mod draft;
mod drain;
mod elect;
mod features;
mod growth;
mod hand_over;
mod heartbeat;
mod invariants;
mod members;
mod offline;
mod partitions;
mod parts;
mod placement;
mod producer_ids;
mod reassign;
mod requests;
mod sessions;
mod settings;
mod topics;
mod voters;

#[cfg(test)]
mod tests;

pub use balance::MAX_LEADER_MOVES;
pub use brokers::{MAX_HOST_BYTES, MAX_RACK_BYTES};
pub use drain::MAX_DRAIN_MOVES;

pub use command::{
    AlterConfig, AlterPartition, AlterTopicConfig, CancelReassignment, Command, CreateTopic,
    ElectLeader, Election, GrowTopic, Heartbeat, PartitionAlteration, PartitionOutcome,
    PartitionState, PlannedTopic, Reassign, RegisterBroker, Reply, ReportOffline, Requested,
};
pub use hand_over::{Leadership, leaderships_moved_by};
pub use members::{
    MAX_MEMBER_LAG, MAX_VOTERS, Member, Quorum, check_departure, check_gone, check_promotion,
    unknown as unknown_node,
};
pub use offline::MAX_OFFLINE_REPLICAS;
pub use producer_ids::PRODUCER_ID_BLOCK;
pub use requests::{MAX_REMEMBERED_REQUESTS, REMEMBERED_REQUESTS_MS};
pub use topics::{
    DEFAULT_PARTITIONS, DEFAULT_REPLICATION_FACTOR, GROUPS_TOPIC, INTERNAL_TOPIC_PREFIX,
    MAX_PARTITIONS_PER_TOPIC, MAX_TOPIC_NAME_BYTES, check_topic_name,
};

pub use voters::{check_removable, check_replaceable};

use crate::image::Image;
use crate::records::{FeatureLevels, MetadataRecord};
use draft::Draft;
use ottla_proto::{ApiError, MetadataOffset};
use sessions::Sessions;

/// What a controller has to know besides the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerOptions {
    /// Brokers of another cluster are refused.
    pub cluster_id: String,
    /// Silence after which a broker is fenced, in milliseconds.
    pub session_timeout_ms: u64,
    /// The feature levels that this release supports.
    pub levels: FeatureLevels,
}

/// The active controller. Everything that must outlive it is in the image;
/// its own state is who has been heard of when.
#[derive(Clone, Debug)]
pub struct Controller {
    options: ControllerOptions,
    sessions: Sessions,
}

/// The outcome of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Facts to be written together, in this order; none if nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The answer, to be given once the records are committed.
    pub reply: Result<Reply, ApiError>,
}

/// The outcome of several commands, each decided on what those before it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchDecision {
    /// Offset of the image that was decided on. The records may only be
    /// written if they are the next after it.
    pub expected_offset: MetadataOffset,
    /// Facts of all commands, to be written together, in this order.
    pub records: Vec<MetadataRecord>,
    /// One answer for each command, in their order, to be given once the
    /// records are committed.
    pub replies: Vec<Result<Reply, ApiError>>,
    /// The image with all records replayed.
    pub image: Image,
}

impl Controller {
    /// Starts as the active controller on an image that holds everything
    /// committed before. Every unfenced broker gets a fresh session: that
    /// nobody heard of it meanwhile was not its fault.
    #[must_use]
    pub fn activate(options: ControllerOptions, image: &Image, now_ms: u64) -> Self {
        let sessions = Sessions::fresh(image, options.session_timeout_ms, now_ms);
        Self { options, sessions }
    }

    /// Decides one command. The time is in milliseconds of any clock that
    /// never goes back.
    pub fn decide(&mut self, image: &Image, command: Command, now_ms: u64) -> Decision {
        let mut batch = self.decide_batch(image, vec![command], now_ms);
        let reply = batch.replies.pop().expect("one reply for one command");
        Decision { records: batch.records, reply }
    }

    /// Decides commands in their order, each on the image that the records of
    /// those before it make. A command that is refused adds no record.
    ///
    /// Commands may be decided again, on another image, if their records were
    /// not committed.
    ///
    /// # Panics
    /// If a decision breaks an invariant of the image (see `invariants`):
    /// written down, it would make every node wrong in the same way.
    pub fn decide_batch(
        &mut self,
        image: &Image,
        commands: Vec<Command>,
        now_ms: u64,
    ) -> BatchDecision {
        let mut draft = Draft::on(image);
        let mut replies = Vec::with_capacity(commands.len());
        if !commands.is_empty() {
            features::begin(&mut draft, self.options.levels);
        }
        for command in commands {
            let before = draft.mark();
            let reply = self.run(&mut draft, command, now_ms);
            let reply = features::within_level(&mut draft, &before, reply);
            let decided = draft.records_since(&before);
            assert!(reply.is_ok() || decided.is_empty(), "a refused command changes nothing");
            invariants::check(before.image(), draft.image(), decided);
            replies.push(reply);
        }
        let (records, after) = draft.finish();
        BatchDecision { expected_offset: image.offset, records, replies, image: after }
    }

    /// What the passing of time asks for: a command for every broker that was
    /// silent too long, and one to go on with nodes that are being emptied. The same
    /// turns up again until it is done in the image, which must be one that is
    /// committed.
    pub fn tick(&mut self, image: &Image, now_ms: u64) -> Vec<Command> {
        let silent = self.sessions.silent(image, now_ms).into_iter();
        let expired =
            silent.map(|(node_id, broker_epoch)| Command::SessionExpired { node_id, broker_epoch });
        let drains = drain::is_needed(image).then_some(Command::ContinueDrains);
        expired.chain(drains).collect()
    }

    fn run(&mut self, draft: &mut Draft, command: Command, now_ms: u64) -> Result<Reply, ApiError> {
        match command {
            Command::RegisterBroker(request) => self.register(draft, request, now_ms),
            Command::Heartbeat(heartbeat) => self.heartbeat(draft, heartbeat, now_ms),
            Command::BrokerGone { node_id, broker_epoch } => {
                self.sessions.expire(node_id, broker_epoch);
                Ok(self.fence_silent(draft, node_id, broker_epoch, now_ms))
            }
            Command::SessionExpired { node_id, broker_epoch } => {
                Ok(self.fence_silent(draft, node_id, broker_epoch, now_ms))
            }
            Command::CreateTopic(request) => topics::create(draft, &request),
            Command::DeleteTopic { name } => topics::delete(draft, &name),
            Command::AlterTopicConfig(request) => topics::alter_config(draft, &request),
            Command::AlterConfig(request) => settings::alter(draft, &request),
            Command::GrowTopic(request) => growth::grow(draft, &request),
            Command::Reassign(request) => reassign::begin(draft, &request),
            Command::CancelReassignment(request) => reassign::cancel(draft, &request),
            Command::ElectLeader(request) => elect::elect(draft, &request),
            Command::AlterPartition(request) => alter_partition::alter(draft, &request),
            Command::ReportOffline(request) => offline::report(draft, &request),
            Command::AllocateProducerIds { node_id, broker_epoch } => {
                producer_ids::allocate(draft, node_id, broker_epoch)
            }
            Command::RecordVoterDirectory { node_id, directory } => {
                voters::record_directory(draft, node_id, directory)
            }
            Command::RetireDirectory { node_id } => voters::retire_directory(draft, node_id),
            Command::RemoveNode { node_id } => voters::remove_node(draft, node_id),
            Command::Settle => Ok(parts::settle_rest(draft)),
            Command::Drain { node_id } => drain::begin(draft, node_id),
            Command::CancelDrain { node_id } => drain::cancel(draft, node_id),
            Command::ContinueDrains => Ok(drain::go_on(draft)),
            Command::FinaliseLevel { level } => {
                features::finalise(draft, self.options.levels, level)
            }
            Command::Requested(request) => self.request(draft, request, now_ms),
            Command::BalanceLeaders => Ok(balance::give_back(draft)),
        }
    }
}
