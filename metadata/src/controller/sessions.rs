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
    /// Metadata records the broker has applied, as of its heartbeats.
    metadata_offset: MetadataOffset,
    /// In controlled shutdown: the image offset at which its leaderships had
    /// been moved.
    moved_at: Option<MetadataOffset>,
}

/// Sessions of all registered brokers that have been heard of.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    timeout_ms: u64,
    by_node: BTreeMap<NodeId, Session>,
}

impl Sessions {
    /// Fresh sessions for every unfenced broker. Where a shutdown under way
    /// started is not known any more, so now counts.
    pub(super) fn fresh(image: &Image, timeout_ms: u64, now_ms: u64) -> Self {
        let mut sessions = Self { timeout_ms, by_node: BTreeMap::new() };
        for broker in image.brokers.values().filter(|broker| !broker.fenced) {
            sessions.renew(broker.node_id, broker.epoch, MetadataOffset(0), now_ms);
            if broker.shutting_down {
                sessions.leaderships_moved(broker.node_id, image.offset);
            }
        }
        sessions
    }

    /// The broker was heard of. The first time that happens under an epoch, a
    /// new session begins.
    pub(super) fn renew(
        &mut self,
        node: NodeId,
        broker_epoch: BrokerEpoch,
        metadata_offset: MetadataOffset,
        now_ms: u64,
    ) {
        let expires_ms = now_ms.saturating_add(self.timeout_ms);
        let known = self.by_node.get(&node).filter(|s| s.broker_epoch == broker_epoch);
        let session = Session {
            broker_epoch,
            expires_ms,
            // A repeated registration says nothing about it, and heartbeats may
            // overtake each other on a reconnect.
            metadata_offset: known
                .map_or(metadata_offset, |s| s.metadata_offset.max(metadata_offset)),
            moved_at: known.and_then(|s| s.moved_at),
        };
        self.by_node.insert(node, session);
    }

    /// The process is known to be gone. Its session stays until the broker is
    /// fenced in the image: if that record is never committed, the next tick
    /// finds the session expired.
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

    /// The unfenced brokers that are silent.
    ///
    /// Sessions end only here, and only by a committed image, which also says
    /// who has to be watched: what was decided and never committed, or took
    /// longer to be committed than a session, must not leave an unfenced broker
    /// that nobody watches.
    pub(super) fn silent(&mut self, image: &Image, now_ms: u64) -> Vec<(NodeId, BrokerEpoch)> {
        let mut silent = Vec::new();
        for broker in image.brokers.values().filter(|broker| !broker.fenced) {
            match self.by_node.get(&broker.node_id) {
                // Perhaps of a registration that was never committed. Then the
                // one in force has been silent for longer.
                Some(session) if session.expires_ms <= now_ms => {
                    silent.push((broker.node_id, broker.epoch));
                }
                Some(_) => {}
                None => self.renew(broker.node_id, broker.epoch, MetadataOffset(0), now_ms),
            }
        }
        let watched = |node: &NodeId| image.brokers.get(node).is_some_and(|b| !b.fenced);
        self.by_node.retain(|node, session| session.expires_ms > now_ms || watched(node));
        silent
    }

    /// A broker in controlled shutdown had leaderships moved, by records that
    /// end at this offset.
    pub(super) fn leaderships_moved(&mut self, node: NodeId, offset: MetadataOffset) {
        if let Some(session) = self.by_node.get_mut(&node) {
            session.moved_at = Some(offset);
        }
    }

    /// Whether every active broker has applied the records that moved the
    /// leaderships of this one: until then some of them would still follow it,
    /// or send clients to it.
    pub(super) fn others_know_of_shutdown(&self, image: &Image, node: NodeId) -> bool {
        let Some(moved_at) = self.by_node.get(&node).and_then(|session| session.moved_at) else {
            return true;
        };
        image.brokers.values().filter(|broker| broker.is_active()).all(|broker| {
            self.by_node.get(&broker.node_id).is_some_and(|session| {
                session.broker_epoch == broker.epoch && session.metadata_offset >= moved_at
            })
        })
    }
}
