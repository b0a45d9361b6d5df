//! The leading side: one session for each connection of a follower.

mod outgoing;
mod push;
mod read;
mod service;
mod session;
mod throttle;

use ottla_proto::NodeId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use service::ReplicationRpc;
pub(crate) use session::Session;
pub(crate) use throttle::Traffics;

/// The sessions of a node, by the number of their connection. Numbers are never
/// used twice, and a newer connection has a higher one.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<u64, Arc<Session>>>,
    last: AtomicU64,
}

impl Sessions {
    pub(crate) fn get(&self, stream: u64) -> Option<Arc<Session>> {
        self.open.lock().get(&stream).map(Arc::clone)
    }

    fn begin(&self, node: NodeId, credit: u64) -> Arc<Session> {
        let stream = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(Session::new(stream, node, credit));
        self.open.lock().insert(stream, Arc::clone(&session));
        session
    }

    fn end(&self, stream: u64) {
        self.open.lock().remove(&stream);
    }
}
