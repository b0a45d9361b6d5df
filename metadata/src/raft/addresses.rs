//! Where the nodes of the cluster are, from what this node was told.
//!
//! In this order: its configuration, which an operator may have changed after
//! a node has moved; what the node itself said when it registered as a broker;
//! what is written in the quorum's membership, as old as the node's admission.

use super::types::Peer;
use crate::image::Image;
use ottla_proto::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Configured addresses by node id.
pub(super) type Endpoints = Arc<BTreeMap<u64, Peer>>;

/// Everything known about where nodes are.
pub(super) struct Addresses {
    pub(super) configured: Endpoints,
    images: watch::Receiver<Arc<Image>>,
    members: Mutex<BTreeMap<u64, Peer>>,
}

impl Addresses {
    pub(super) fn new(configured: Endpoints, images: watch::Receiver<Arc<Image>>) -> Self {
        Self { configured, images, members: Mutex::default() }
    }

    /// Where a node is, as far as this one knows.
    pub(super) fn of(&self, node: NodeId) -> Option<Peer> {
        let registered = || {
            let image = self.images.borrow();
            let broker = image.brokers.get(&node)?;
            Some(Peer { host: broker.host.clone(), port: broker.port })
        };
        let configured = self.configured.get(&node.0).cloned();
        configured.or_else(registered).or_else(|| self.members.lock().get(&node.0).cloned())
    }

    /// The quorum's membership is now this.
    pub(super) fn learn(&self, members: BTreeMap<u64, Peer>) {
        *self.members.lock() = members;
    }

    /// All addresses that some other node may answer at, by node.
    pub(super) fn others(&self, than: NodeId) -> BTreeMap<NodeId, Peer> {
        let configured = self.configured.keys().copied();
        let registered: Vec<u64> = self.images.borrow().brokers.keys().map(|id| id.0).collect();
        let members: Vec<u64> = self.members.lock().keys().copied().collect();
        let known = configured.chain(registered).chain(members).map(NodeId);
        known.filter(|id| *id != than).filter_map(|id| Some((id, self.of(id)?))).collect()
    }
}
