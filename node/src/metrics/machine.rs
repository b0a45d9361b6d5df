//! The process.

use procfs::process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// See the module.
#[derive(Debug)]
pub(super) struct Machine;

impl Collector for Machine {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        to.encode_descriptor("build", "What runs here", None, MetricType::Info)?
            .encode_info(&[("version", crate::VERSION)])?;
        // Where there is no /proc, there are no such figures.
        match figures() {
            Ok(figures) => process(&mut to, &figures),
            Err(_) => Ok(()),
        }
    }
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
