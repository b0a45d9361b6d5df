//! Followers that know a newer leadership than the replica they ask: what they asked waits
//! until it has caught up with the metadata.

use super::types::{Follow, Peer, Progress};
use ottla_proto::NodeId;
use std::collections::BTreeMap;

/// The newest request of each follower. Who keeps one looks first whether it is a replica,
/// so that the bound is their number.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Parked(BTreeMap<NodeId, Follow>);

impl Parked {
    /// Keeps a request, unless a newer connection of the follower has one here.
    pub(super) fn keep(&mut self, follow: Follow) {
        let node = follow.peer.node;
        let newer = |parked: &Follow| parked.peer.stream > follow.peer.stream;
        if !self.0.get(&node).is_some_and(newer) {
            self.0.insert(node, follow);
        }
    }

    pub(super) fn unfollow(&mut self, peer: Peer) {
        if self.0.get(&peer.node).is_some_and(|follow| follow.peer == peer) {
            self.0.remove(&peer.node);
        }
    }

    /// Whether a follower goes on acknowledging in a session that waits here.
    pub(super) fn holds(&self, progress: &Progress) -> bool {
        self.0.get(&progress.peer.node).is_some_and(|parked| {
            let of = (parked.peer, parked.session, parked.leader_epoch, parked.log.end);
            of == (progress.peer, progress.session, progress.leader_epoch, progress.end)
        })
    }

    /// It is not said again: a follower that has nothing more to sync has nothing more to
    /// say. It is sent nothing before it is heard, so its log has the same end.
    pub(super) fn note(&mut self, progress: &Progress) {
        if let Some(parked) = self.0.get_mut(&progress.peer.node) {
            (parked.log.synced, parked.log.start) = (progress.synced, progress.start);
        }
    }

    /// All of them, which are heard now.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Follow> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}
