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
    let node = env.node_id;
    let (reason, message) = match refusal {
        ProduceRefusal::NotLeader => {
            (R::NotLeader, format!("node {node} does not lead partition {id}"))
        }
        ProduceRefusal::NotEnoughReplicas => (
            R::NotEnoughReplicas,
            format!("partition {id} has fewer in-sync replicas than min.insync.replicas"),
        ),
        ProduceRefusal::NotEnoughReplicasAfterAppend => (
            R::NotEnoughReplicasAfterAppend,
            format!(
                "the records are in the leader's log of partition {id}, which has fewer in-sync \
                 replicas than min.insync.replicas"
            ),
        ),
        ProduceRefusal::TimedOut => (
            R::RequestTimedOut,
            format!("the records were not replicated in time to partition {id}"),
        ),
        ProduceRefusal::LeadershipLost => (
            R::LeadershipLost,
            format!("node {node} stopped leading partition {id} before the records were committed"),
        ),
        ProduceRefusal::Offline => {
            (R::PartitionOffline, format!("the disk of node {node} failed under partition {id}"))
        }
        ProduceRefusal::DiskFull => {
            (R::DiskFull, format!("no space on node {node} for partition {id}"))
        }
    };
    ApiError::new(reason, message).with_leader(env.leader_hint(id).filter(|l| l.node_id != node))
}
