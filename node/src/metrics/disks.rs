//! The disks that data directories are on.

use ottla_commitlog::data_dir::DirectoryState;
use ottla_replication::DiskStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// See the module.
pub(super) struct Disks<D>(pub(super) D);

impl<D> fmt::Debug for Disks<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disks")
    }
}

/// A figure of a disk; `None` where it is not known.
type Pick = fn(&DiskStatus) -> Option<u64>;

/// What is 1 where it is so.
const FLAGS: [(&str, &str, Pick); 4] = [
    ("disk_online", "1 if the data directory is in use", |disk| {
        Some(u64::from(!matches!(disk.directory.state, DirectoryState::Offline { .. })))
    }),
    ("disk_low", "1 if there is less room than disk_alert_free_bytes asks for", |disk| {
        Some(u64::from(disk.room > ottla_replication::Room::Enough))
    }),
    ("disk_refuses_writes", "1 if clients' writes are refused for want of room", |disk| {
        Some(u64::from(disk.room.refuses_writes()))
    }),
    ("disk_refuses_copies", "1 if copies are refused as well for want of room", |disk| {
        Some(u64::from(disk.room.refuses_copies()))
    }),
];

const BYTES: [(&str, &str, Pick); 5] = [
    ("disk_free", "Room on the file system of the data directory", |disk| {
        disk.space.map(|space| space.free)
    }),
    ("disk_total", "Size of the file system of the data directory", |disk| {
        disk.space.map(|space| space.total)
    }),
    ("disk_alert_free", "Room below which somebody should look", |disk| {
        disk.space.map(|_| disk.levels.alert)
    }),
    ("disk_refuse_free", "Room below which clients' writes are refused", |disk| {
        disk.space.map(|_| disk.levels.writes)
    }),
    ("disk_logs", "Size of the open logs in the data directory", |disk| Some(disk.log_bytes)),
];

impl<D: Fn() -> Vec<DiskStatus> + Send + Sync + 'static> Collector for Disks<D> {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let disks = (self.0)();
        let flags = FLAGS.map(|figure| (figure, None));
        let bytes = BYTES.map(|figure| (figure, Some(&Unit::Bytes)));
        for ((name, help, pick), unit) in flags.into_iter().chain(bytes) {
            let mut family = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for disk in &disks {
                let Some(value) = pick(disk) else { continue };
                let directory = disk.directory.path.display().to_string();
                let label = [("directory", directory.as_str())];
                family.encode_family(&label)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}
