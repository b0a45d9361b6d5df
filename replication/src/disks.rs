//! The disks of a node: how much room each has, looked at again and again, and what is
//! refused where there is too little of it (docs/decisions/0056-room-on-disks.md).
//!
//! Not its job: what too little is ([`crate::room`]), and disks that fail (the data
//! directories know).

use crate::env::Env;
use crate::options::Limits;
use crate::room::{Levels, Room, Thresholds, room};
use ottla_commitlog::data_dir::{DataDirs, DirectoryState, DirectoryStatus};
use ottla_commitlog::vfs::{Space, Vfs};
use ottla_host::blocking;
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason as R;
use parking_lot::RwLock;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a writer is told to wait for room: as often as it is looked for.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// A data directory, and the room on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStatus {
    /// The directory.
    pub directory: DirectoryStatus,
    /// Room on its file system; `None`: without bound, or not known.
    pub space: Option<Space>,
    /// What that allows.
    pub room: Room,
    /// Below how many free bytes it allows less.
    pub levels: Levels,
    /// Bytes of the logs in it that are open.
    pub log_bytes: u64,
}

/// What is known of the disk of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) space: Option<Space>,
    pub(crate) room: Room,
    pub(crate) levels: Levels,
}

/// A disk for each data directory, in their order.
pub(crate) struct Disks(Vec<RwLock<Disk>>);

impl Disks {
    /// As they are now, and whether any of them has a bound, and is to be looked at again.
    pub(crate) fn look(vfs: &dyn Vfs, directories: &DataDirs, limits: &Limits) -> (Self, bool) {
        let disks = Self(directories.statuses().iter().map(|_| RwLock::default()).collect());
        disks.look_again(vfs, directories, limits);
        let bounded = disks.0.iter().any(|disk| disk.read().space.is_some());
        (disks, bounded)
    }

    /// What is known of the disk of a directory.
    pub(crate) fn of(&self, directory: usize) -> Disk {
        self.0.get(directory).map_or_else(Disk::default, |disk| *disk.read())
    }

    fn look_again(&self, vfs: &dyn Vfs, directories: &DataDirs, limits: &Limits) {
        for (status, disk) in directories.statuses().iter().zip(&self.0) {
            if matches!(status.state, DirectoryState::Offline { .. }) {
                continue;
            }
            let before = *disk.read();
            let space = match vfs.space(&status.path) {
                Ok(space) => space,
                Err(error) => {
                    // Writes will tell whether it still works; nothing is refused for this.
                    tracing::debug!(path = %status.path.display(), %error, "room not known");
                    None
                }
            };
            let now = before.with(space, limits);
            if now.room != before.room {
                tell(&status.path, before.room, &now);
            }
            *disk.write() = now;
        }
    }
}

impl Disk {
    fn with(self, space: Option<Space>, limits: &Limits) -> Self {
        let Some(space) = space else { return Self::default() };
        let Limits { disk_alert_free_bytes: alert, disk_refuse_free_bytes: refuse, .. } = *limits;
        let levels = Thresholds { alert, refuse }.on(space.total);
        Self { space: Some(space), room: room(self.room, space, levels), levels }
    }
}

fn tell(path: &Path, before: Room, now: &Disk) {
    let (path, Space { free, total }) = (path.display(), now.space.unwrap_or_default());
    match now.room {
        Room::Enough => tracing::info!(%path, free, total, "there is enough room again"),
        Room::Low if before > Room::Low => {
            tracing::warn!(%path, free, total, "writes are taken again; there is little room");
        }
        Room::Low => tracing::warn!(%path, free, total, "there is little room"),
        Room::NoWrites if before > Room::NoWrites => {
            tracing::warn!(%path, free, total, "copies are taken again; clients' writes are not");
        }
        Room::NoWrites => {
            tracing::error!(%path, free, total, "too little room: clients' writes are refused");
        }
        Room::NoCopies => {
            tracing::error!(%path, free, total, "too little room: copies are refused as well");
        }
    }
}

/// Looks until the node stops.
pub(crate) async fn run(env: Arc<Env>) {
    let mut limits = env.limits.subscribe();
    loop {
        let pause = limits.borrow_and_update().disk_check;
        tokio::select! {
            () = env.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            // The sender lives as long as the node.
            _ = limits.changed() => {}
        }
        let looking = Arc::clone(&env);
        let look = move || {
            let (vfs, limits) = (looking.shared.vfs(), looking.limits());
            looking.disks.look_again(vfs, &looking.data_dirs, &limits);
        };
        if let Err(lost) = blocking(look).await {
            tracing::error!(%lost, "nobody looks for room on disks any more");
            return;
        }
    }
}

impl Env {
    /// Whether a client may write to a partition whose log lies in this directory.
    ///
    /// # Errors
    /// `DISK_FULL`, with the directory, its room and what it should have.
    pub(crate) fn check_room(&self, directory: Option<usize>) -> Result<(), ApiError> {
        let Some(directory) = directory else { return Ok(()) };
        let disk = self.disks.of(directory);
        if !disk.room.refuses_writes() {
            return Ok(());
        }
        let node = self.node_id;
        let free = disk.space.unwrap_or_default().free;
        let (least, statuses) = (disk.levels.writes, self.data_dirs.statuses());
        let path = statuses.get(directory).map(|status| status.path.display().to_string());
        let path = path.unwrap_or_default();
        let message = format!(
            "node {node} has {free} bytes left on the disk of {path}; clients may write where \
             there are more than {least} (disk_refuse_free_bytes)"
        );
        Err(ApiError::new(R::DiskFull, message)
            .with("directory", path)
            .with("free_bytes", free)
            .with("threshold_bytes", least)
            .with_retry_after(ROOM_RETRY))
    }

    /// The data directories, with the room on their disks.
    pub(crate) fn disk_statuses(&self) -> Vec<DiskStatus> {
        let mut log_bytes = vec![0; self.data_dirs.count()];
        for partition in self.partitions.read().values() {
            if let (Some(directory), Some(log)) = (partition.directory(), partition.log())
                && let Some(bytes) = log_bytes.get_mut(directory)
            {
                *bytes += log.size_bytes();
            }
        }
        let statuses = self.data_dirs.statuses().into_iter().zip(log_bytes).enumerate();
        let status = |(index, (directory, log_bytes))| {
            let Disk { space, room, levels } = self.disks.of(index);
            DiskStatus { directory, space, room, levels, log_bytes }
        };
        statuses.map(status).collect()
    }
}
