//! Produce requests between their arrival and their answer.

use super::Admission;
use crate::Produced;
use crate::core::{DeletionRefusal, ProduceRefusal, RequestId};
use crate::env::Env;
use ottla_commitlog::ProducerRefusal;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, LeaderEpoch, Offset, PartitionId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

struct Request {
    reply: oneshot::Sender<Result<Produced, ApiError>>,
    produced: Produced,
    _admission: Arc<Admission>,
}

/// Bounded by the node's produce memory, of which every request holds a share.
#[derive(Default)]
pub(super) struct Requests {
    open: HashMap<RequestId, Request>,
    deletions: HashMap<RequestId, oneshot::Sender<Result<Offset, ApiError>>>,
    last: RequestId,
}

impl Requests {
    pub(super) fn add(
        &mut self,
        reply: oneshot::Sender<Result<Produced, ApiError>>,
        record_count: u32,
        admission: Arc<Admission>,
    ) -> RequestId {
        self.last += 1;
        let produced = Produced {
            base_offset: None,
            end_offset: None,
            record_count,
            leader_epoch: LeaderEpoch(0),
        };
        self.open.insert(self.last, Request { reply, produced, _admission: admission });
        self.last
    }

    pub(super) fn add_deletion(
        &mut self,
        reply: oneshot::Sender<Result<Offset, ApiError>>,
    ) -> RequestId {
        self.last += 1;
        self.deletions.insert(self.last, reply);
        self.last
    }

    pub(super) fn answer_deletion(
        &mut self,
        env: &Env,
        partition: PartitionId,
        id: RequestId,
        result: Result<Offset, DeletionRefusal>,
    ) {
        if let Some(reply) = self.deletions.remove(&id) {
            let result = result.map_err(|refusal| deletion_error(env, partition, refusal));
            // A caller that has gone needs no answer.
            let _ = reply.send(result);
        }
    }

    /// Notes where the records went. The request may be answered already.
    pub(super) fn appended(&mut self, id: RequestId, base: u64, end: u64, epoch: LeaderEpoch) {
        if let Some(request) = self.open.get_mut(&id) {
            request.produced.base_offset = Some(base);
            request.produced.end_offset = Some(end);
            request.produced.leader_epoch = epoch;
        }
    }

    pub(super) fn answer(
        &mut self,
        env: &Env,
        partition: PartitionId,
        id: RequestId,
        result: Result<(), ProduceRefusal>,
    ) {
        if let Some(request) = self.open.remove(&id) {
            let result = result
                .map(|()| request.produced)
                .map_err(|refusal| error_of(env, partition, refusal));
            // A caller that has gone needs no answer.
            let _ = request.reply.send(result);
        }
    }
}

pub(super) fn error_of(env: &Env, id: PartitionId, refusal: ProduceRefusal) -> ApiError {
    let (node, name) = (env.node_id, env.name(id));
    let (reason, message) = match refusal {
        ProduceRefusal::NotLeader => return env.not_leader(id),
        ProduceRefusal::NotEnoughReplicas => {
            let in_sync = in_sync(env, id);
            (R::NotEnoughReplicas, format!("{name} has {in_sync}; nothing was written"))
        }
        ProduceRefusal::NotEnoughReplicasAfterAppend => {
            let in_sync = in_sync(env, id);
            let message = format!("{name} has {in_sync}; the records are in the leader's log");
            (R::NotEnoughReplicasAfterAppend, message)
        }
        ProduceRefusal::TimedOut => {
            (R::RequestTimedOut, format!("{name}: the records were not replicated in time"))
        }
        ProduceRefusal::LeadershipLost => (
            R::LeadershipLost,
            format!("node {node} stopped leading {name} before the records were committed"),
        ),
        ProduceRefusal::Offline => {
            (R::PartitionOffline, format!("the disk of node {node} failed under {name}"))
        }
        ProduceRefusal::DiskFull => (R::DiskFull, format!("no space on node {node} for {name}")),
        ProduceRefusal::Producer(refusal) => return producer_error(refusal, &name.to_string()),
    };
    ApiError::new(reason, message).with_leader(env.leader_hint(id).filter(|l| l.node_id != node))
}

pub(super) fn deletion_error(env: &Env, id: PartitionId, refusal: DeletionRefusal) -> ApiError {
    let (node, name) = (env.node_id, env.name(id));
    match refusal {
        DeletionRefusal::NotLeader => env.not_leader(id),
        DeletionRefusal::OutOfRange { start, watermark } => {
            let message = format!(
                "{name}: only records that are there and committed can be deleted: \
                 those of {start} to {watermark}"
            );
            ApiError::new(R::OffsetOutOfRange, message)
                .with("log_start_offset", start)
                .with("high_watermark", watermark)
        }
        DeletionRefusal::TimedOut => {
            let message = format!("{name}: the records are not yet gone from all replicas");
            ApiError::new(R::RequestTimedOut, message)
        }
        DeletionRefusal::LeadershipLost => {
            let message = format!("node {node} stopped leading {name} before they were gone");
            ApiError::new(R::LeadershipLost, message)
        }
        DeletionRefusal::Offline => {
            let message = format!("the disk of node {node} failed under {name}");
            ApiError::new(R::PartitionOffline, message)
        }
    }
}

/// How many replicas there are and how many acks=all needs.
fn in_sync(env: &Env, id: PartitionId) -> String {
    let image = env.image();
    let now = image.partitions.get(&id).map_or(0, |partition| partition.isr.len());
    let least = image.effective_min_isr(id).unwrap_or_default();
    format!("{now} in-sync replicas, acks=all needs {least} (min.insync.replicas)")
}

/// Definite, and no other node says anything else.
fn producer_error(refusal: ProducerRefusal, name: &str) -> ApiError {
    let of = |reason| ApiError::new(reason, format!("{name}: {refusal}; nothing was written"));
    match refusal {
        ProducerRefusal::OutOfOrderSequence { expected, got, .. } => {
            of(R::OutOfOrderSequence).with("expected", expected).with("got", got)
        }
        ProducerRefusal::InvalidProducerEpoch { current, got, .. } => {
            of(R::InvalidProducerEpoch).with("current", current).with("got", got)
        }
        ProducerRefusal::StaleCoordinatorEpoch { current, got, .. } => {
            of(R::TransactionCoordinatorFenced).with("current", current).with("got", got)
        }
        ProducerRefusal::InvalidTransactionState { .. } => of(R::InvalidTransactionState),
        ProducerRefusal::TooManyTransactions { .. } => of(R::Overloaded),
    }
}
