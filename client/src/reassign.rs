//! Moving partitions to other nodes: beginning, cancelling, and how far it is.

use crate::admin::{Admin, request_id};
use crate::channel::Connection;
use crate::client::{Asked, with_timeout};
use crate::{ClientError, HostPort};
use ottla_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::Response;

/// How long a leader may take to say how far the copies of its partitions are. What
/// it would have said is left out then.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// What became of a call about reassignments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reassigned {
    /// With all its partitions as they are now, or as they would be.
    pub topic: v1::TopicMetadata,
    /// Indexes of the partitions for which that is news.
    pub changed: Vec<u32>,
}

impl Admin {
    /// Moves partitions of a topic to other nodes: for each the nodes it is to be on,
    /// the preferred leader first. Returns when that has begun. They can be used
    /// meanwhile; [`Self::reassignments`] says how far they are.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC or INVALID_REPLICA_ASSIGNMENT; nothing has begun then.
    pub async fn reassign(
        &self,
        topic: &str,
        partitions: BTreeMap<u32, Vec<u64>>,
        validate_only: bool,
    ) -> Result<Reassigned, ClientError> {
        let of = |(partition, replicas)| v1::PartitionReplicas { partition, replicas };
        let partitions = partitions.into_iter().map(of).collect();
        let topic = topic.to_owned();
        let request = v1::ReassignPartitionsRequest {
            topic,
            partitions,
            validate_only,
            request_id: request_id(),
        };
        let call = |connection: Connection, request| async move {
            connection.topics().reassign_partitions(request).await
        };
        let answer = self.ask("reassigning partitions", Asked::ToChange, request, call).await?;
        let topic = answer.topic.ok_or_else(no_topic)?;
        Ok(Reassigned { topic, changed: answer.changed })
    }

    /// Takes partitions that are being moved back to the nodes they were on; all of
    /// the topic, if none is named.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC, or INVALID_REPLICA_ASSIGNMENT where a new copy is needed
    /// already; none goes back then.
    pub async fn cancel_reassignments(
        &self,
        topic: &str,
        partitions: Vec<u32>,
    ) -> Result<Reassigned, ClientError> {
        let (topic, request_id) = (topic.to_owned(), request_id());
        let request = v1::CancelReassignmentsRequest { topic, partitions, request_id };
        let call = |connection: Connection, request| async move {
            connection.topics().cancel_reassignments(request).await
        };
        let answer = self.ask("cancelling reassignments", Asked::ToChange, request, call).await?;
        let topic = answer.topic.ok_or_else(no_topic)?;
        Ok(Reassigned { topic, changed: answer.cancelled })
    }

    /// The moves under way, of one topic or of all. Each leader is asked how far the
    /// new copies are; where it does not answer in time that is left out.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC, or when no node answers.
    pub async fn reassignments(
        &self,
        topic: Option<&str>,
    ) -> Result<Vec<v1::Reassignment>, ClientError> {
        let request = v1::ListReassignmentsRequest { topic: topic.map(str::to_owned) };
        let call = |connection: Connection, request| async move {
            connection.topics().list_reassignments(request).await
        };
        let answer =
            self.ask("listing reassignments", Asked::ToTell, request.clone(), call).await?;
        let mut all = answer.reassignments;
        if all.iter().any(|moving| moving.progress.is_empty()) {
            let leaders: BTreeSet<u64> = all.iter().filter_map(|moving| moving.leader_id).collect();
            let info = self.cluster_info().await?;
            for node in info.nodes.iter().filter(|node| leaders.contains(&node.node_id)) {
                if let Some(endpoint) = node.endpoint.as_ref().and_then(HostPort::from_wire) {
                    let view = self.reassignments_of(&endpoint, request.clone()).await;
                    fill_in(&mut all, view.unwrap_or_default());
                }
            }
        }
        Ok(all)
    }

    async fn reassignments_of(
        &self,
        leader: &HostPort,
        request: v1::ListReassignmentsRequest,
    ) -> Result<Vec<v1::Reassignment>, ClientError> {
        let request = with_timeout(request, PROGRESS_TIMEOUT);
        let call = |connection: Connection| async move {
            connection.topics().list_reassignments(request).await.map(Response::into_inner)
        };
        Ok(self.client().attempt(leader, PROGRESS_TIMEOUT, call).await?.reassignments)
    }
}

fn fill_in(all: &mut [v1::Reassignment], view: Vec<v1::Reassignment>) {
    for known in all.iter_mut().filter(|moving| moving.progress.is_empty()) {
        let same = |seen: &&v1::Reassignment| {
            (&seen.topic, seen.partition) == (&known.topic, known.partition)
        };
        if let Some(seen) = view.iter().find(same) {
            known.progress.clone_from(&seen.progress);
        }
    }
}

fn no_topic() -> ClientError {
    ClientError::UnexpectedAnswer("no topic in it".to_owned())
}
