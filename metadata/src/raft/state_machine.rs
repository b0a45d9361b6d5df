//! openraft's state machine: replays committed facts on the image, publishes
//! it, keeps it in sled, and writes and installs snapshots.
//!
//! Replay is deterministic or the node stops: a record that does not fit is an
//! error that ends Raft on this node. If only another release reads it, that is
//! told to whoever watches, so that the node can say so and stop.

use super::applied::{Applied, AppliedStore};
use super::database::Databases;
use super::incompatible::Incompatible;
use super::log_writer::Stopped;
use super::snapshot::{self, SnapshotBytes, SnapshotStore};
use super::types::{Entry, LogId, Membership, Outcome, Proposal, SnapshotMeta, TypeConfig};
use crate::image::Image;
use crate::records::FeatureLevels;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

const SLED_DIR: &str = "image.sled";

/// Entries replayed before the image is published and the answers are given.
/// An apply is usually one entry; catching up takes this many at a time.
const APPLY_BATCH_ENTRIES: usize = 256;

type Current = Snapshot<super::types::LeaderId, u64, super::types::Peer, SnapshotBytes>;

/// Image, sled and snapshots of a node.
pub(crate) struct StateMachine {
    applied: Applied,
    /// `None` only while a blocking task has it.
    store: Option<AppliedStore>,
    snapshots: Arc<SnapshotStore>,
    images: watch::Sender<Arc<Image>>,
    /// What this release supports.
    levels: FeatureLevels,
    /// Why it can apply nothing more.
    incompatible: watch::Sender<Option<Incompatible>>,
    /// Dropped last, after sled.
    open: watch::Sender<()>,
}

impl StateMachine {
    /// Opens what is on disk. `justified` says whether the log or a snapshot
    /// (whose last id is given) can account for an applied log id; if not, the
    /// applied image is wiped and made again. Blocks on the disk.
    pub(crate) fn open(
        dir: &Path,
        shared: &Arc<ottla_commitlog::Shared>,
        databases: Arc<dyn Databases>,
        levels: FeatureLevels,
        justified: impl FnOnce(&LogId, Option<&LogId>) -> bool,
    ) -> io::Result<Self> {
        let snapshots = Arc::new(SnapshotStore::open(Arc::clone(shared), dir)?);
        let (mut store, mut applied) = AppliedStore::open(databases, &dir.join(SLED_DIR))?;
        let covered = snapshots.meta().and_then(|meta| meta.last_log_id);
        if let Some(last) = applied.last
            && !justified(&last, covered.as_ref())
        {
            tracing::warn!(%last, "the applied image is ahead of the log: rebuilding it");
            store = store.wipe();
            applied = Applied::default();
        }
        Incompatible::check(&applied.image, levels, "the applied metadata")?;
        let (images, _) = watch::channel(Arc::new(applied.image.clone()));
        let incompatible = watch::Sender::new(None);
        let (store, open) = (Some(store), watch::Sender::new(()));
        Ok(Self { applied, store, snapshots, images, levels, incompatible, open })
    }

    /// Completes when this is dropped and sled is closed.
    pub(crate) fn stopped(&self) -> Stopped {
        Stopped(self.open.subscribe())
    }

    /// Says when there is something that only another release can apply.
    pub(crate) fn incompatible(&self) -> watch::Receiver<Option<Incompatible>> {
        self.incompatible.subscribe()
    }

    /// Every image after its apply.
    pub(crate) fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.images.subscribe()
    }

    /// Whether there is anything at all.
    pub(crate) fn is_blank(&self) -> bool {
        self.applied.last.is_none() && self.snapshots.meta().is_none()
    }

    /// Replays one entry on the image; an error must end Raft here.
    pub(crate) fn replay(&mut self, entry: Entry) -> io::Result<Outcome> {
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.applied.membership = Membership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(proposal) => {
                if proposal.decided_on != self.applied.image.offset {
                    self.applied.last = Some(entry.log_id);
                    return Ok(Outcome::Conflict(self.applied.image.offset));
                }
                let replayed = self.replay_records(&entry.log_id, &proposal);
                replayed.inspect_err(|error| self.tell(error))?;
            }
        }
        self.applied.last = Some(entry.log_id);
        Ok(Outcome::Applied(self.applied.image.offset))
    }

    /// All records of a proposal or none.
    fn replay_records(&mut self, log_id: &LogId, proposal: &Proposal) -> io::Result<()> {
        let mut image = self.applied.image.clone();
        let place = format!("entry {log_id} of the metadata log");
        for fact in &proposal.records {
            image.replay(fact.read(&place)?).map_err(|error| {
                let what = format!("log entry {log_id} does not fit the image: {error}");
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
        }
        Incompatible::check(&image, self.levels, &place)?;
        self.applied.image = image;
        Ok(())
    }

    fn tell(&self, error: &io::Error) {
        if let Some(incompatible) = Incompatible::within(error) {
            self.incompatible.send_replace(Some(incompatible));
        }
    }

    /// Lets everybody see the image.
    fn publish(&self) {
        self.images.send_replace(Arc::new(self.applied.image.clone()));
    }

    /// Keeps what changed since `before`.
    async fn store(&mut self, before: Image) -> io::Result<()> {
        let mut store = self.store.take().expect("one operation at a time has the store");
        let after = self.applied.clone();
        let write = move || {
            store.write(&before, &after);
            store
        };
        self.store = Some(ottla_host::blocking(write).await.map_err(io::Error::other)?);
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.try_ready_chunks(APPLY_BATCH_ENTRIES);
        while let Some(batch) = batches.try_next().await.map_err(|error| error.1)? {
            let before = self.applied.image.clone();
            let mut answers = Vec::with_capacity(batch.len());
            for (entry, responder) in batch {
                let outcome = self.replay(entry)?;
                answers.extend(responder.map(|responder| (responder, outcome)));
            }
            // Whoever gets an answer finds its effect in the published image.
            self.publish();
            for (responder, outcome) in answers {
                responder.send(outcome);
            }
            self.store(before).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied.last,
                last_membership: self.applied.membership.clone(),
            },
            image: self.applied.image.clone(),
            snapshots: Arc::clone(&self.snapshots),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotBytes,
    ) -> io::Result<()> {
        let (meta, snapshots) = (meta.clone(), Arc::clone(&self.snapshots));
        let levels = self.levels;
        let install = move || {
            let (held, image) = snapshot::decode(&snapshot)?;
            Incompatible::check(&image, levels, "the metadata snapshot")?;
            if held != meta {
                let what = format!("a snapshot of {held} was announced as {meta}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            snapshots.write(&meta, &snapshot)?;
            Ok((meta, image))
        };
        let installed = ottla_host::blocking(install).await.map_err(io::Error::other)?;
        let (meta, image) = installed.inspect_err(|error| self.tell(error))?;
        let before = std::mem::replace(&mut self.applied.image, image);
        self.applied.last = meta.last_log_id;
        self.applied.membership = meta.last_membership;
        self.publish();
        self.store(before).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Current>> {
        let snapshots = Arc::clone(&self.snapshots);
        let read = ottla_host::blocking(move || snapshots.read());
        let current = read.await.map_err(io::Error::other)??;
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes a snapshot of the image as it was when this was made.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    image: Image,
    snapshots: Arc<SnapshotStore>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> io::Result<Current> {
        let (meta, image) = (self.meta.clone(), self.image.clone());
        let snapshots = Arc::clone(&self.snapshots);
        let build = move || {
            let bytes = snapshot::encode(&meta, &image)?;
            snapshots.write(&meta, &bytes)?;
            Ok(Snapshot { meta, snapshot: bytes })
        };
        ottla_host::blocking(build).await.map_err(io::Error::other)?
    }
}
