//! Produce requests between their arrival and their answer.

use crate::Produced;
use crate::core::{ProduceRefusal, RequestId};
use crate::env::Env;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, LeaderEpoch, PartitionId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

struct Request {
    reply: oneshot::Sender<Result<Produced, ApiError>>,
    produced: Produced,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Bounded by the node's produce memory, of which every request holds a share.
#[derive(Default)]
pub(super) struct Requests {
    open: HashMap<RequestId, Request>,
    last: RequestId,
}

impl Requests {
    pub(super) fn add(
        &mut self,
        reply: oneshot::Sender<Result<Produced, ApiError>>,
        record_count: u32,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> RequestId {
        self.last += 1;
        let produced = Produced {
            base_offset: None,
            end_offset: None,
            record_count,
            leader_epoch: LeaderEpoch(0),
        };
        self.open.insert(self.last, Request { reply, produced, _permit: permit });
        self.last
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
    };
    ApiError::new(reason, message).with_leader(env.leader_hint(id).filter(|l| l.node_id != node))
}

/// How many replicas there are and how many acks=all needs.
fn in_sync(env: &Env, id: PartitionId) -> String {
    let image = env.image();
    let now = image.partitions.get(&id).map_or(0, |partition| partition.isr.len());
    let least = image.effective_min_isr(id).unwrap_or_default();
    format!("{now} in-sync replicas, acks=all needs {least} (min.insync.replicas)")
}
