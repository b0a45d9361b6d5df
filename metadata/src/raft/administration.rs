//! The calls of operators: which there are, and what the active controller on
//! this node makes of each. A further one takes a line in `calls!`, a member in
//! both messages of `Administer`, and an arm in [`command`] and in [`answer`].
//!
//! Not its job: the way to the controller (`controller_client`), and deciding
//! (`controller`).

use super::control::Submitted;
use super::inner::Inner;
use super::{controller_service, hand_over, members, wire};
use crate::controller::{Command, Reply, Requested};
use bytes::Bytes;
use ottla_proto::internal::v1 as internal;
use ottla_proto::v1::{self, ErrorReason};
use ottla_proto::{ApiError, RequestId};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Any of the calls, as it travels.
pub(super) type Call = internal::administer_request::Call;

/// The answer to one of them, as it travels.
pub(super) type Answer = internal::administer_response::Answer;

/// A call of an operator, for [`Metadata::administer`](super::Metadata::administer).
pub trait AdminCall {
    /// What it is answered.
    type Response;

    /// As it travels.
    fn into_call(self) -> Call;

    /// Its answer as it travelled; `None` for the answer to another call.
    fn response_of(answer: Answer) -> Option<Self::Response>;

    /// Who answers, as of which metadata.
    fn header(response: &mut Self::Response) -> &mut Option<v1::ResponseHeader>;
}

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident;)*) => {
        $(impl AdminCall for v1::$request {
            type Response = v1::$response;

            fn into_call(self) -> Call {
                Call::$name(self)
            }

            fn response_of(answer: Answer) -> Option<v1::$response> {
                match answer {
                    Answer::$name(response) => Some(response),
                    _ => None,
                }
            }

            fn header(response: &mut v1::$response) -> &mut Option<v1::ResponseHeader> {
                &mut response.header
            }
        })*
    };
}

calls! {
    CreateTopic: CreateTopicRequest => CreateTopicResponse;
    DeleteTopic: DeleteTopicRequest => DeleteTopicResponse;
    AlterTopicConfig: AlterTopicConfigRequest => AlterTopicConfigResponse;
    ElectLeader: ElectLeaderRequest => ElectLeaderResponse;
    CreatePartitions: CreatePartitionsRequest => CreatePartitionsResponse;
    DescribeQuorum: DescribeQuorumRequest => DescribeQuorumResponse;
    AddVoter: AddVoterRequest => AddVoterResponse;
    RemoveNode: RemoveNodeRequest => RemoveNodeResponse;
    ReplaceDisk: ReplaceDiskRequest => ReplaceDiskResponse;
    ReassignPartitions: ReassignPartitionsRequest => ReassignPartitionsResponse;
    CancelReassignments: CancelReassignmentsRequest => CancelReassignmentsResponse;
    UpgradeFeatures: UpgradeFeaturesRequest => UpgradeFeaturesResponse;
    DrainNode: DrainNodeRequest => DrainNodeResponse;
    AlterConfig: AlterConfigRequest => AlterConfigResponse;
}

/// What the controller on this node answers; NOT_CONTROLLER where it is not.
pub(super) async fn decide_here(inner: &Arc<Inner>, call: Call) -> Result<Answer, ApiError> {
    let inner = Arc::clone(inner);
    match call {
        Call::DescribeQuorum(_) => members::describe(&inner).await.map(Answer::DescribeQuorum),
        Call::AddVoter(request) => members::add(inner, request).await.map(Answer::AddVoter),
        Call::RemoveNode(request) => members::remove(inner, request).await.map(Answer::RemoveNode),
        Call::ReplaceDisk(request) => {
            members::replace_disk(inner, request).await.map(Answer::ReplaceDisk)
        }
        call => {
            let command = requested(call)?;
            inner.control.until_active().await?;
            hand_over::prepare(&inner, &command).await;
            let submitted = inner.control.submit_here(command).await?;
            answer(&inner, submitted)
        }
    }
}

/// The id that the caller made up for a call, none if it is empty. Calls that
/// have no place for one find by themselves what is done already.
pub(super) fn request_id(call: &mut Call) -> Option<&mut Bytes> {
    Some(match call {
        Call::CreateTopic(request) => &mut request.request_id,
        Call::DeleteTopic(request) => &mut request.request_id,
        Call::AlterTopicConfig(request) => &mut request.request_id,
        Call::ElectLeader(request) => &mut request.request_id,
        Call::CreatePartitions(request) => &mut request.request_id,
        Call::UpgradeFeatures(request) => &mut request.request_id,
        Call::DrainNode(request) => &mut request.request_id,
        Call::AlterConfig(request) => &mut request.request_id,
        Call::ReassignPartitions(request) => &mut request.request_id,
        Call::CancelReassignments(request) => &mut request.request_id,
        Call::DescribeQuorum(_)
        | Call::AddVoter(_)
        | Call::RemoveNode(_)
        | Call::ReplaceDisk(_) => return None,
    })
}

fn requested(mut call: Call) -> Result<Command, ApiError> {
    let id = request_id(&mut call).map(std::mem::take).unwrap_or_default();
    let command = command(call)?;
    if id.is_empty() {
        return Ok(command);
    }
    let id = wire::id(RequestId::from_wire(&id), "a request id")?;
    Ok(Command::Requested(Requested { id, at_ms: unix_ms(), command: Box::new(command) }))
}

/// Milliseconds since the Unix epoch, by this node's clock.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn command(call: Call) -> Result<Command, ApiError> {
    Ok(match call {
        Call::CreateTopic(request) => wire::create_topic(request),
        Call::DeleteTopic(request) => Command::DeleteTopic { name: request.name },
        Call::AlterTopicConfig(request) => wire::alter_topic_config(request),
        Call::ElectLeader(request) => wire::elect_leader(request)?,
        Call::CreatePartitions(request) => wire::create_partitions(request),
        Call::UpgradeFeatures(request) => wire::upgrade_features(&request)?,
        Call::DrainNode(request) => wire::drain_node(&request),
        Call::AlterConfig(request) => wire::alter_config(request),
        // Changes of the quorum's members are no commands.
        Call::DescribeQuorum(_)
        | Call::AddVoter(_)
        | Call::RemoveNode(_)
        | Call::ReplaceDisk(_) => return Err(unknown_call()),
        Call::ReassignPartitions(request) => wire::reassign_partitions(request),
        Call::CancelReassignments(request) => wire::cancel_reassignments(request),
    })
}

fn answer(inner: &Inner, submitted: Submitted) -> Result<Answer, ApiError> {
    let header = Some(inner.header(submitted.offset));
    Ok(match submitted.reply {
        Reply::TopicCreated(planned) => {
            let topic = Some(wire::topic_metadata(&planned));
            Answer::CreateTopic(v1::CreateTopicResponse { header, topic })
        }
        Reply::TopicDeleted { topic_id } => {
            let topic_id = topic_id.to_wire().into();
            Answer::DeleteTopic(v1::DeleteTopicResponse { header, topic_id })
        }
        Reply::TopicConfigAltered(planned) => {
            let topic = Some(wire::topic_metadata(&planned));
            Answer::AlterTopicConfig(v1::AlterTopicConfigResponse { header, topic })
        }
        Reply::Elected { index, partition, changed } => {
            let partition = Some(wire::partition_metadata(index, &partition));
            Answer::ElectLeader(v1::ElectLeaderResponse { header, partition, changed })
        }
        Reply::TopicGrown { planned, added } => {
            let topic = Some(wire::topic_metadata(&planned));
            Answer::CreatePartitions(v1::CreatePartitionsResponse { header, topic, added })
        }
        Reply::Reassigned { planned, changed } => {
            let topic = Some(wire::topic_metadata(&planned));
            Answer::ReassignPartitions(v1::ReassignPartitionsResponse { header, topic, changed })
        }
        Reply::ReassignmentCancelled { planned, cancelled } => {
            let topic = Some(wire::topic_metadata(&planned));
            let response = v1::CancelReassignmentsResponse { header, topic, cancelled };
            Answer::CancelReassignments(response)
        }
        Reply::Drain { changed, replicas, taken_back } => {
            let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
            let (replicas, taken_back) = (count(replicas), count(taken_back));
            Answer::DrainNode(v1::DrainNodeResponse { header, changed, replicas, taken_back })
        }
        Reply::LevelFinalised { level, changed } => {
            let level = level.0.into();
            Answer::UpgradeFeatures(v1::UpgradeFeaturesResponse { header, level, changed })
        }
        Reply::ConfigAltered { options } => {
            let options = options.into_iter().collect();
            Answer::AlterConfig(v1::AlterConfigResponse { header, options })
        }
        reply => return Err(controller_service::unexpected(&reply)),
    })
}

/// A call that only another release knows.
pub(super) fn unknown_call() -> ApiError {
    let what = "the controller's release does not know this call: expected one of those in \
                ottla.internal.v1.AdministerRequest";
    ApiError::new(ErrorReason::InvalidRequest, what)
}

/// An answer of another kind than the call, or of none.
pub(super) fn unknown_answer() -> ApiError {
    ApiError::new(ErrorReason::Internal, "the controller answered another call than was made")
}
