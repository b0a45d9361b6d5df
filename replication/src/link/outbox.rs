//! What a follower has to say to a leader: the newest of each kind for each
//! partition, so that a slow connection makes nothing pile up.

use crate::core::{LogState, SessionRef};
use crate::wire;
use ottla_proto::internal::v1::replicate_request::Message as Body;
use ottla_proto::internal::v1::{AddCredit, Follow, Progress, ReplicateRequest, Unfollow};
use ottla_proto::{Offset, PartitionId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Credit goes back to the leader in parts of the whole, and of so many bytes at most:
/// not a message for every batch, and always most of it at the leader's disposal, of
/// what catching up may use of it too.
const CREDIT_PARTS: u64 = 8;
const CREDIT_PART_BYTES: u64 = 64 * 1024;

#[derive(Default)]
struct Content {
    /// Partitions that this node wants served, on this connection or the next.
    followed: BTreeSet<PartitionId>,
    unfollows: BTreeSet<PartitionId>,
    follows: BTreeMap<PartitionId, Follow>,
    progress: BTreeMap<PartitionId, Progress>,
    /// Bytes written or dropped, not yet given back.
    credit: u64,
    /// Number of the connection; what belongs to an earlier one is void.
    connection: u64,
}

/// The outbox of one connection after the other to the same leader.
pub(super) struct Outbox {
    content: Mutex<Content>,
    changed: Notify,
    credit_part: u64,
}

impl Outbox {
    pub(super) fn new(credit_bytes: usize) -> Self {
        let credit_part = (credit_bytes as u64 / CREDIT_PARTS).clamp(1, CREDIT_PART_BYTES);
        Self { content: Mutex::default(), changed: Notify::new(), credit_part }
    }

    pub(super) fn follow(&self, id: PartitionId, of: SessionRef, log: LogState) {
        let mut content = self.content.lock();
        content.followed.insert(id);
        content.progress.remove(&id);
        content.follows.insert(id, wire::follow(id, of, log));
        self.changed.notify_one();
    }

    pub(super) fn unfollow(&self, id: PartitionId) {
        let mut content = self.content.lock();
        if content.followed.remove(&id) {
            content.follows.remove(&id);
            content.progress.remove(&id);
            content.unfollows.insert(id);
            self.changed.notify_one();
        }
    }

    /// `at`: end, synced end and start of the log.
    pub(super) fn acknowledge(
        &self,
        id: PartitionId,
        of: SessionRef,
        at: (Offset, Offset, Offset),
    ) {
        let mut content = self.content.lock();
        if content.followed.contains(&id) {
            content.progress.insert(id, wire::progress(id, of, at));
            self.changed.notify_one();
        }
    }

    /// Waits until something is followed.
    pub(super) async fn wanted(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.content.lock().followed.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// A new connection: nothing of the old one is said on it. Returns its number
    /// and the partitions that have to begin again.
    pub(super) fn begin(&self) -> (u64, Vec<PartitionId>) {
        let mut content = self.content.lock();
        content.connection += 1;
        content.credit = 0;
        content.unfollows.clear();
        content.follows.clear();
        content.progress.clear();
        (content.connection, content.followed.iter().copied().collect())
    }

    /// Waits for something to say, and takes all of it: first who is not to be
    /// served any more, then who is.
    pub(super) async fn take(&self) -> Vec<ReplicateRequest> {
        loop {
            let changed = self.changed.notified();
            let bodies = self.take_now();
            if !bodies.is_empty() {
                return bodies
                    .into_iter()
                    .map(|body| ReplicateRequest { message: Some(body) })
                    .collect();
            }
            changed.await;
        }
    }

    fn take_now(&self) -> Vec<Body> {
        let mut content = self.content.lock();
        let mut bodies = Vec::new();
        for id in std::mem::take(&mut content.unfollows) {
            bodies.push(Body::Unfollow(Unfollow { partition: wire::key(id), session: 0 }));
        }
        bodies.extend(std::mem::take(&mut content.follows).into_values().map(Body::Follow));
        bodies.extend(std::mem::take(&mut content.progress).into_values().map(Body::Progress));
        if content.credit >= self.credit_part {
            let bytes = std::mem::take(&mut content.credit);
            bodies.push(Body::AddCredit(AddCredit { bytes }));
        }
        bodies
    }

    fn give_back(&self, connection: u64, bytes: u64) {
        let mut content = self.content.lock();
        if content.connection == connection {
            content.credit += bytes;
            if content.credit >= self.credit_part {
                self.changed.notify_one();
            }
        }
    }
}

/// Bytes that a leader sent, given back when dropped.
pub(crate) struct Credit {
    outbox: Arc<Outbox>,
    connection: u64,
    bytes: u64,
}

impl Credit {
    pub(super) fn new(outbox: &Arc<Outbox>, connection: u64, bytes: usize) -> Self {
        Self { outbox: Arc::clone(outbox), connection, bytes: bytes as u64 }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.outbox.give_back(self.connection, self.bytes);
    }
}
