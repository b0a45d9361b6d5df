//! Who has been heard of, and when. Soft state: a new active controller starts
//! with a fresh session for every unfenced broker.

use crate::image::Image;
use ottla_proto::{BrokerEpoch, MetadataOffset, NodeId};
use std::collections::BTreeMap;

/// The session of one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    broker_epoch: BrokerEpoch,
    /// Milliseconds on the caller's clock from which on the broker counts as
    /// silent.
    expires_ms: u64,
    /// Metadata records the broker has applied, as of its last heartbeat.
    metadata_offset: MetadataOffset,
}

/// Sessions of all registered brokers that have been heard of.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    timeout_ms: u64,
    by_node: BTreeMap<NodeId, Session>,
    /// For brokers in controlled shutdown: the image offset at which their
    /// last leadership was moved.
    shutdown_offsets: BTreeMap<NodeId, MetadataOffset>,
}

impl Sessions {
    /// Fresh sessions for every unfenced broker. Where a shutdown under way
    /// started is not known any more, so now counts.
    pub(super) fn fresh(image: &Image, timeout_ms: u64, now_ms: u64) -> Self {
        let mut sessions = Self { timeout_ms, ..Self::default() };
        for broker in image.brokers.values().filter(|broker| !broker.fenced) {
            sessions.renew(broker.node_id, broker.epoch, MetadataOffset(0), now_ms);
            if broker.shutting_down {
                sessions.shutdown_offsets.insert(broker.node_id, image.offset);
            }
        }
        sessions
    }

    /// A new registration begins.
    pub(super) fn start(&mut self, node: NodeId, broker_epoch: BrokerEpoch, now_ms: u64) {
        self.shutdown_offsets.remove(&node);
        self.renew(node, broker_epoch, MetadataOffset(0), now_ms);
    }

    /// The broker was heard of.
    pub(super) fn renew(
        &mut self,
        node: NodeId,
        broker_epoch: BrokerEpoch,
        metadata_offset: MetadataOffset,
        now_ms: u64,
    ) {
        let expires_ms = now_ms.saturating_add(self.timeout_ms);
        // Heartbeats of one registration may overtake each other on a reconnect.
        let metadata_offset = metadata_offset.max(self.metadata_offset(node, broker_epoch));
        self.by_node.insert(node, Session { broker_epoch, expires_ms, metadata_offset });
    }

    /// How much of the metadata this registration is known to have applied.
    fn metadata_offset(&self, node: NodeId, broker_epoch: BrokerEpoch) -> MetadataOffset {
        let session = self.by_node.get(&node).filter(|s| s.broker_epoch == broker_epoch);
        session.map_or(MetadataOffset(0), |session| session.metadata_offset)
    }

    /// The process is known to be gone. The session stays until its broker is
    /// fenced in the image: if that record is never committed, the session is
    /// found expired at the next tick.
    pub(super) fn expire(&mut self, node: NodeId, broker_epoch: BrokerEpoch) {
        if let Some(session) = self.by_node.get_mut(&node)
            && session.broker_epoch == broker_epoch
        {
            session.expires_ms = 0;
        }
    }

    /// Whether this registration has been heard of within the timeout.
    pub(super) fn is_live(&self, node: NodeId, broker_epoch: BrokerEpoch, now_ms: u64) -> bool {
        self.by_node
            .get(&node)
            .is_some_and(|s| s.broker_epoch == broker_epoch && s.expires_ms > now_ms)
    }

    /// The silent ones.
    pub(super) fn expired(&self, now_ms: u64) -> Vec<(NodeId, BrokerEpoch)> {
        self.by_node
            .iter()
            .filter(|(_, session)| session.expires_ms <= now_ms)
            .map(|(&node, session)| (node, session.broker_epoch))
            .collect()
    }

    /// Nothing more to watch for.
    pub(super) fn forget(&mut self, node: NodeId, broker_epoch: BrokerEpoch) {
        if self.by_node.get(&node).is_some_and(|session| session.broker_epoch == broker_epoch) {
            self.by_node.remove(&node);
            self.shutdown_offsets.remove(&node);
        }
    }

    /// A broker in controlled shutdown had leaderships moved, by records that
    /// end at this offset.
    pub(super) fn leaderships_moved(&mut self, node: NodeId, offset: MetadataOffset) {
        self.shutdown_offsets.insert(node, offset);
    }

    /// Whether every active broker has applied the records that moved the
    /// leaderships of this one: until then some of them would still follow it,
    /// or send clients to it.
    pub(super) fn others_know_of_shutdown(&self, image: &Image, node: NodeId) -> bool {
        let Some(&moved_at) = self.shutdown_offsets.get(&node) else { return true };
        image.brokers.values().filter(|broker| broker.is_active()).all(|broker| {
            self.by_node.get(&broker.node_id).is_some_and(|session| {
                session.broker_epoch == broker.epoch && session.metadata_offset >= moved_at
            })
        })
    }
}
