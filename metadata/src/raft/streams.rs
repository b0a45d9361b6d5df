//! Which heartbeat streams are open at this node. A process whose stream is
//! open is alive, and no other may take its place.

use ottla_proto::{BrokerEpoch, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Open streams by registration. Usually one each; two while a broker
/// reconnects.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<BTreeMap<(NodeId, BrokerEpoch), usize>>>);

impl Streams {
    /// Counts a stream until the guard is dropped.
    pub(super) fn opened(&self, node_id: NodeId, epoch: BrokerEpoch) -> OpenStream {
        *self.0.lock().entry((node_id, epoch)).or_default() += 1;
        OpenStream { streams: self.clone(), key: (node_id, epoch) }
    }

    /// Whether a stream of this registration is open.
    pub(super) fn is_open(&self, node_id: NodeId, epoch: BrokerEpoch) -> bool {
        self.0.lock().contains_key(&(node_id, epoch))
    }
}

/// An open stream.
pub(super) struct OpenStream {
    streams: Streams,
    key: (NodeId, BrokerEpoch),
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}
