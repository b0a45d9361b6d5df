//! The process, and the disks it writes to.

use ottla_commitlog::data_dir::{DataDirs, DirectoryState};
use procfs::process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::Arc;

/// See the module.
pub(super) struct Machine(pub(super) Arc<DataDirs>);

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}

impl Collector for Machine {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        to.encode_descriptor("build", "What runs here", None, MetricType::Info)?
            .encode_info(&[("version", crate::VERSION)])?;
        disks(&mut to, &self.0)?;
        // Where there is no /proc, there are no such figures.
        match figures() {
            Ok(figures) => process(&mut to, &figures),
            Err(_) => Ok(()),
        }
    }
}

/// Free and total bytes of the file system of a directory.
fn space(path: &std::path::Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    // What root alone may still use is not free for a node that is not root.
    Some((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}

fn disks(to: &mut DescriptorEncoder<'_>, directories: &DataDirs) -> fmt::Result {
    let found: Vec<_> = directories
        .statuses()
        .into_iter()
        .map(|status| {
            let is_online = !matches!(status.state, DirectoryState::Offline { .. });
            (status.path.display().to_string(), is_online, space(&status.path))
        })
        .collect();
    let help = "1 if the data directory is in use";
    let mut family = to.encode_descriptor("disk_online", help, None, MetricType::Gauge)?;
    for (directory, is_online, _) in &found {
        let label = [("directory", directory.as_str())];
        family.encode_family(&label)?.encode_gauge(&u64::from(*is_online))?;
    }
    type Pick = fn((u64, u64)) -> u64;
    let kinds: [(&str, &str, Pick); 2] = [
        ("disk_free", "Room on the file system of the data directory", |(free, _)| free),
        ("disk_total", "Size of the file system of the data directory", |(_, total)| total),
    ];
    for (name, help, pick) in kinds {
        let mut family = to.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for (directory, _, space) in &found {
            let Some(space) = *space else { continue };
            let label = [("directory", directory.as_str())];
            family.encode_family(&label)?.encode_gauge(&pick(space))?;
        }
    }
    Ok(())
}

struct Figures {
    resident: u64,
    cpu_seconds: f64,
    open: u64,
    most_open: Option<u64>,
    threads: u64,
}

fn figures() -> procfs::ProcResult<Figures> {
    let own = Process::myself()?;
    let stat = own.stat()?;
    let limit = own.limits()?.max_open_files.soft_limit;
    Ok(Figures {
        resident: stat.rss * procfs::page_size(),
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        open: own.fd_count()? as u64,
        most_open: match limit {
            procfs::process::LimitValue::Value(limit) => Some(limit),
            procfs::process::LimitValue::Unlimited => None,
        },
        threads: u64::try_from(stat.num_threads).unwrap_or_default(),
    })
}

fn process(to: &mut DescriptorEncoder<'_>, figures: &Figures) -> fmt::Result {
    to.encode_descriptor(
        "process_cpu",
        "Processor time used",
        Some(&Unit::Seconds),
        MetricType::Counter,
    )?
    .encode_counter::<NoLabelSet, _, u64>(&figures.cpu_seconds, None)?;
    let help = "Memory in use";
    to.encode_descriptor("process_resident", help, Some(&Unit::Bytes), MetricType::Gauge)?
        .encode_gauge(&figures.resident)?;
    let gauges = [
        ("process_open_files", "Open descriptors", Some(figures.open)),
        ("process_open_files_limit", "Descriptors that may be open", figures.most_open),
        ("process_threads", "Threads", Some(figures.threads)),
    ];
    for (name, help, value) in gauges {
        let Some(value) = value else { continue };
        to.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    Ok(())
}
