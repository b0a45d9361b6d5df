//! The following side: one connection to each node that leads a partition which
//! is followed here, opened again whenever it breaks.

mod connection;
mod outbox;

use crate::core::{LogState, SessionRef};
use crate::env::Env;
use crate::partition::Partition;
use connection::Link;
use ottla_proto::{NodeId, Offset, PartitionId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) use outbox::Credit;

/// The connections of a node, at most one to each other node.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<NodeId, Arc<Link>>>);

impl Links {
    /// Asks `leader` to serve a partition, once there is a connection to it.
    pub(crate) fn follow(
        &self,
        env: &Arc<Env>,
        leader: NodeId,
        partition: &Partition,
        of: SessionRef,
        log: LogState,
    ) {
        let mut links = self.0.lock();
        let link = links.entry(leader).or_insert_with(|| {
            let link = Arc::new(Link::new(leader, env.limits().replica_credit_bytes));
            env.tasks.spawn(connection::run(Arc::clone(env), Arc::clone(&link)));
            link
        });
        link.outbox().follow(partition.id, of, log);
    }

    /// Whether there is a connection to `leader`, and whether there goes on to be one;
    /// `None` while nothing was ever followed there.
    pub(crate) fn connected(&self, leader: NodeId) -> Option<watch::Receiver<bool>> {
        self.0.lock().get(&leader).map(|link| link.connected())
    }

    pub(crate) fn unfollow(&self, leader: NodeId, id: PartitionId) {
        if let Some(link) = self.0.lock().get(&leader) {
            link.outbox().unfollow(id);
        }
    }

    pub(crate) fn acknowledge(
        &self,
        leader: NodeId,
        id: PartitionId,
        of: SessionRef,
        at: (Offset, Offset, Offset),
    ) {
        if let Some(link) = self.0.lock().get(&leader) {
            link.outbox().acknowledge(id, of, at);
        }
    }
}
