//! Requests that are carried out once, however often they are sent.
//!
//! Whoever asks for a change makes up an id for it. With the change goes the
//! fact that it was asked for under this id, in the same batch, so that either
//! both are committed or none. A request that comes again, because its first
//! answer was lost or the controller changed, finds that fact, and is answered
//! as the first one was: a topic that it created is no obstacle, and a topic
//! that another has created under the name it deleted is not touched. The state
//! that goes with the answer is the present one.
//!
//! Not remembered: what was refused and what changed nothing. Asking again then
//! is asking for the first time.

use super::draft::Draft;
use super::drain;
use super::topics::{partition_of, unknown_topic};
use super::{Command, Controller, PlannedTopic, Reply, Requested};
use crate::image::{CarriedOut, Image, Topic};
use crate::records::{RequestCarriedOut, TopicConfig};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, RequestId, TopicId};

/// Requests that are remembered at most; then the oldest is forgotten. Within
/// the half minute in which our client asks again that allows for 136 changes
/// a second; they take about half a MiB.
pub const MAX_REMEMBERED_REQUESTS: usize = 4096;

/// Milliseconds after which a request is forgotten, as soon as another is
/// carried out: twice the longest time for which a node keeps a call waiting.
pub const REMEMBERED_REQUESTS_MS: u64 = 600_000;

impl Controller {
    pub(super) fn request(
        &mut self,
        draft: &mut Draft,
        request: Requested,
        now_ms: u64,
    ) -> Result<Reply, ApiError> {
        let Requested { id, at_ms, command } = request;
        let Some(what) = subject(&command) else { return self.run(draft, *command, now_ms) };
        if let Some(done) = draft.image().requests.get(&id) {
            return repeated(draft.image(), id, done, &what, &command);
        }
        let before = draft.mark();
        let topic_before = topic_named(draft.image(), &command);
        let reply = self.run(draft, *command.clone(), now_ms)?;
        if !draft.records_since(&before).is_empty() {
            let topic = topic_before.or_else(|| topic_named(draft.image(), &command));
            let (at_ms, forgotten) = make_room(draft.image(), at_ms);
            let added = if let Reply::TopicGrown { added, .. } = reply { added } else { 0 };
            draft.push(RequestCarriedOut { id, what, topic, added, at_ms, forgotten });
        }
        Ok(reply)
    }
}

/// What is asked of what; `None` for commands that no operator gives.
fn subject(command: &Command) -> Option<String> {
    Some(match command {
        Command::CreateTopic(request) => format!("create topic {}", request.name),
        Command::DeleteTopic { name } => format!("delete topic {name}"),
        Command::AlterTopicConfig(request) => format!("alter topic {}", request.name),
        Command::AlterConfig(request) => format!("alter the options of {}", request.resource),
        Command::GrowTopic(request) => {
            format!("grow topic {} to {} partitions", request.name, request.partitions)
        }
        Command::ElectLeader(request) => {
            format!("elect a leader of {}-{}", request.topic, request.partition)
        }
        Command::Drain { node_id } => format!("drain node {node_id}"),
        Command::CancelDrain { node_id } => format!("stop draining node {node_id}"),
        Command::FinaliseLevel { level: Some(level) } => format!("finalise feature level {level}"),
        Command::FinaliseLevel { level: None } => "finalise the newest feature level".to_owned(),
        Command::Reassign(request) => format!("move partitions of {}", request.topic),
        Command::CancelReassignment(request) => format!("cancel moves of {}", request.topic),
        Command::RegisterBroker(_)
        | Command::Heartbeat(_)
        | Command::BrokerGone { .. }
        | Command::SessionExpired { .. }
        | Command::AlterPartition(_)
        | Command::ReportOffline(_)
        | Command::AllocateProducerIds { .. }
        | Command::RecordVoterDirectory { .. }
        | Command::RetireDirectory { .. }
        | Command::RemoveNode { .. }
        | Command::ContinueDrains
        | Command::Settle
        | Command::BalanceLeaders
        | Command::Requested(_) => return None,
    })
}

fn topic_named(image: &Image, command: &Command) -> Option<TopicId> {
    let name = match command {
        Command::CreateTopic(request) => &request.name,
        Command::DeleteTopic { name } => name,
        Command::AlterTopicConfig(request) => &request.name,
        Command::GrowTopic(request) => &request.name,
        Command::ElectLeader(request) => &request.topic,
        Command::Reassign(request) => &request.topic,
        Command::CancelReassignment(request) => &request.topic,
        _ => return None,
    };
    image.topic_ids.get(name).copied()
}

/// The answer to a request that was carried out before.
fn repeated(
    image: &Image,
    id: RequestId,
    done: &CarriedOut,
    what: &str,
    command: &Command,
) -> Result<Reply, ApiError> {
    let mismatch = || {
        let message = format!(
            "the request id {id} was used before, to {}, and is used again to {what}: every \
             request takes an id of its own",
            done.what
        );
        ApiError::new(ErrorReason::InvalidRequest, message)
    };
    if done.what != what {
        return Err(mismatch());
    }
    match command {
        Command::FinaliseLevel { .. } => {
            return Ok(Reply::LevelFinalised { level: image.feature_level, changed: true });
        }
        Command::Drain { node_id } | Command::CancelDrain { node_id } => {
            return Ok(drain::repeated(image, *node_id));
        }
        _ => {}
    }
    if let Command::AlterConfig(request) = command {
        let options = image.settings_of(request.resource).set_options();
        return Ok(Reply::ConfigAltered { options });
    }
    let topic = done.topic.ok_or_else(mismatch)?;
    match command {
        Command::CreateTopic(request) => {
            Ok(Reply::TopicCreated(present(image, topic, &request.name)))
        }
        Command::AlterTopicConfig(request) => {
            Ok(Reply::TopicConfigAltered(present(image, topic, &request.name)))
        }
        Command::GrowTopic(request) => {
            let planned = present(image, topic, &request.name);
            Ok(Reply::TopicGrown { planned, added: done.added })
        }
        Command::Reassign(request) => {
            let planned = present(image, topic, &request.topic);
            let changed = request.partitions.iter().map(|(index, _)| *index).collect();
            Ok(Reply::Reassigned { planned, changed })
        }
        Command::CancelReassignment(request) => {
            let planned = present(image, topic, &request.topic);
            let cancelled = request.partitions.clone();
            Ok(Reply::ReassignmentCancelled { planned, cancelled })
        }
        Command::DeleteTopic { .. } => Ok(Reply::TopicDeleted { topic_id: topic }),
        Command::ElectLeader(request) => {
            let topic = image.topics.get(&topic).ok_or_else(|| unknown_topic(&request.topic))?;
            let (id, partition) = partition_of(image, topic, request.partition)?;
            let partition = (*partition).clone();
            Ok(Reply::Elected { index: id.index, partition, changed: true })
        }
        _ => Err(mismatch()),
    }
}

/// A topic as it is now; without partitions and options if it has been deleted
/// since.
fn present(image: &Image, id: TopicId, name: &str) -> PlannedTopic {
    let partitions = image.partitions_of(id).map(|(_, partition)| (**partition).clone()).collect();
    let topic = image.topics.get(&id).map_or_else(
        || Topic { id, name: name.to_owned(), partitions: 0, config: TopicConfig::default() },
        |topic| (**topic).clone(),
    );
    PlannedTopic { topic, partitions }
}

/// When the next request is carried out, by a clock that never goes back, and
/// what is forgotten with it.
fn make_room(image: &Image, at_ms: u64) -> (u64, Vec<RequestId>) {
    let mut known: Vec<(u64, RequestId)> =
        image.requests.iter().map(|(id, request)| (request.at_ms, *id)).collect();
    known.sort_unstable();
    let at_ms = known.last().map_or(at_ms, |(newest, _)| at_ms.max(*newest));
    let surplus = (known.len() + 1).saturating_sub(MAX_REMEMBERED_REQUESTS);
    let expired =
        known.iter().take_while(|(then, _)| at_ms - then > REMEMBERED_REQUESTS_MS).count();
    (at_ms, known.into_iter().take(surplus.max(expired)).map(|(_, id)| id).collect())
}
