//! Proposed ISRs on their way to the controller: gathered from all partitions,
//! one call at a time, each answer back to where the proposal came from.

use crate::core::{AlterOutcome, Event};
use crate::env::Env;
use crate::hold;
use crate::partition::Message;
use ottla_metadata::controller::{PartitionAlteration, PartitionOutcome, PartitionState};
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, NodeId, PartitionId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Proposals in one call. A change record is small; the controller decides some
/// tens of thousands a second, so a call stays well below a heartbeat's time.
const MAX_PROPOSALS_PER_CALL: usize = 1000;

/// How long the last proposal of a leader waits for writes under way: many times a
/// sync, and no more than a client notices.
const PARTING: Duration = Duration::from_millis(500);

/// Proposals that wait for their call. A partition has at most one.
#[derive(Default)]
pub(crate) struct IsrProposals {
    waiting: Mutex<BTreeMap<PartitionId, PartitionAlteration>>,
    added: Notify,
}

impl IsrProposals {
    pub(crate) fn add(&self, change: PartitionAlteration) {
        self.waiting.lock().insert(change.partition, change);
        self.added.notify_one();
    }

    async fn take(&self) -> Vec<PartitionAlteration> {
        loop {
            let added = self.added.notified();
            {
                let mut waiting = self.waiting.lock();
                let mut taken = Vec::new();
                while taken.len() < MAX_PROPOSALS_PER_CALL
                    && let Some((_, change)) = waiting.pop_first()
                {
                    taken.push(change);
                }
                if !taken.is_empty() {
                    return taken;
                }
            }
            added.await;
        }
    }
}

/// Carries proposals until the node stops.
pub(crate) async fn run(env: Arc<Env>) {
    let work = async {
        loop {
            let mut changes = env.proposals.take().await;
            let image = env.image();
            let parting = changes.extract_if(.., |change| ends_leadership(&env, &image, change));
            for change in parting {
                env.tasks.spawn(part(Arc::clone(&env), change));
            }
            if !changes.is_empty() {
                propose(&env, changes).await;
            }
        }
    };
    env.stop.run_until_cancelled(work).await;
}

async fn propose(env: &Env, changes: Vec<PartitionAlteration>) {
    let answers = env.cluster.alter_partition(changes.clone()).await;
    deliver(env, changes, answers).await;
}

/// Whether a proposal completes a reassignment in which this node, the leader, is one
/// of those to go.
fn ends_leadership(env: &Env, image: &Image, change: &PartitionAlteration) -> bool {
    let partition = image.partitions.get(&change.partition);
    let Some(moving) = partition.and_then(|partition| partition.reassignment.as_ref()) else {
        return false;
    };
    let joins = |node: &NodeId| change.new_isr.iter().any(|(member, _)| member == node);
    !moving.to.contains(&env.node_id) && moving.to.iter().all(joins)
}

/// The last proposal of a leader: it finishes what it was given first.
async fn part(env: Arc<Env>, change: PartitionAlteration) {
    let work = async {
        if !hold::hold(&env, change.partition, change.leader_epoch, PARTING).await {
            let partition = change.partition;
            tracing::info!(%partition, "not all was finished before the leadership goes");
        }
        propose(&env, vec![change]).await;
    };
    env.stop.run_until_cancelled(work).await;
}

async fn deliver(
    env: &Env,
    changes: Vec<PartitionAlteration>,
    answers: Result<Vec<PartitionOutcome>, ApiError>,
) {
    let answers = answers.unwrap_or_else(|error| {
        tracing::warn!(%error, proposals = changes.len(), "ISR proposals went unanswered");
        Vec::new()
    });
    let mut answers: BTreeMap<PartitionId, Result<PartitionState, ApiError>> =
        answers.into_iter().map(|answer| (answer.partition, answer.result)).collect();
    for change in changes {
        let answer = answers.remove(&change.partition);
        if let Some(Err(error)) = &answer {
            tracing::info!(partition = %change.partition, %error, "ISR proposal refused");
        }
        let outcome = answer.map_or(AlterOutcome::Unknown, outcome_of);
        if let Some(partition) = env.partition(change.partition) {
            let (leader_epoch, partition_epoch) = (change.leader_epoch, change.partition_epoch);
            let event = Event::AlterAnswered { leader_epoch, partition_epoch, outcome };
            partition.send(Message::Event(event)).await;
        }
    }
}

/// What each answer lets the leader conclude (KIP-497, KIP-841).
pub(crate) fn outcome_of(answer: Result<PartitionState, ApiError>) -> AlterOutcome {
    match answer {
        Ok(changed) => AlterOutcome::Changed {
            leader_epoch: changed.leader_epoch,
            partition_epoch: changed.partition_epoch,
            isr: changed.isr.into_iter().collect(),
            min_isr: changed.min_isr,
        },
        Err(error) => match error.reason {
            R::IneligibleReplica => AlterOutcome::NotApplied,
            R::FencedLeaderEpoch
            | R::InvalidUpdateVersion
            | R::InvalidRequest
            | R::UnknownTopic
            | R::UnknownPartition
            | R::NewLeaderElected => AlterOutcome::Superseded,
            _ => AlterOutcome::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only INELIGIBLE_REPLICA takes a proposal back. A new leader that was
    /// elected by the proposal itself must not: the ISR did change.
    #[test]
    fn only_ineligible_replica_rolls_back() {
        let reasons = (0..200).filter_map(|n| R::try_from(n).ok());
        let rolled_back: Vec<R> = reasons
            .filter(|&reason| {
                outcome_of(Err(ApiError::new(reason, ""))) == AlterOutcome::NotApplied
            })
            .collect();
        assert_eq!(rolled_back, [R::IneligibleReplica]);
        let superseded = outcome_of(Err(ApiError::new(R::NewLeaderElected, "")));
        assert_eq!(superseded, AlterOutcome::Superseded);
        let unknown = outcome_of(Err(ApiError::new(R::NotController, "")));
        assert_eq!(unknown, AlterOutcome::Unknown);
    }
}
