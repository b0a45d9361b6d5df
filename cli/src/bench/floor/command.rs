//! `ottla bench floor`: the floor by itself, to stand beside `ottla bench produce`.

use super::super::figures::{cores, per_gigabyte, per_second, seconds};
use super::super::setting::{Figures, Setting};
use super::{Sync, Took, Work, work};
use crate::bench::cluster::Place;
use crate::output::Format;
use clap::value_parser;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Measure what nobody can leave out who keeps copies of bytes.
///
/// One thread sends chunks over loopback TCP to another, which checksums them (CRC-32C),
/// writes them to a file, and sends them on to two more, which do the same. Nothing else:
/// no acknowledgements over the network, no records, no offsets. With durability=disk
/// bytes count as received when they are synced; one fdatasync covers what has come
/// meanwhile. `ottla bench produce` beside it, with chunks as large as its batches and a
/// window as large as its buffer, shows what everything else costs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench floor
  ottla bench floor --megabytes 2000 --durability disk --dir /data/floor --format json")]
pub(crate) struct Args {
    /// What is sent, in millions of bytes.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u64).range(1..=1_000_000))]
    megabytes: u64,

    /// Bytes of one send and one write.
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = value_parser!(u32).range(1..=64 << 20))]
    batch_bytes: u32,

    /// Files that get the bytes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=5))]
    replication_factor: u16,

    /// When bytes count as received: in memory (the page cache) of all, or synced.
    #[arg(long, value_enum, default_value_t)]
    durability: Durability,

    /// Bytes sent that not everybody has received, at most.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    buffer_bytes: u64,

    #[command(flatten)]
    setting: Setting,
}

/// As the topic option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Durability {
    #[default]
    Memory,
    Disk,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.setting.format
    }

    fn work(&self) -> Work {
        Work {
            bytes: self.megabytes * 1_000_000,
            chunk_bytes: self.batch_bytes as usize,
            copies: self.replication_factor,
            sync: match self.durability {
                Durability::Memory => Sync::Never,
                Durability::Disk => Sync::Always,
            },
            window_bytes: self.buffer_bytes,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let place = Place::open(args.setting.dir.as_deref())?;
    std::fs::create_dir_all(place.dir())?;
    let work_done = work(place.dir(), args.work());
    let took = place.leave(work_done)?;
    args.setting.show(&Report { work: args.work(), took })
}

struct Report {
    work: Work,
    took: Took,
}

impl Figures for Report {
    fn text(&self) -> String {
        let Self { work, took } = self;
        format!(
            "{} MB to {} files over loopback, {} on {} processors\n\
             floor      in {} s: {} MB/s\n\
             processor  {} s, {} s/GB\n\
             memory     {} MB at most",
            work.bytes / 1_000_000,
            work.copies,
            if work.sync == Sync::Always { "synced," } else { "not synced," },
            cores(),
            seconds(took.time),
            per_second(work.bytes, took.time) / 1_000_000,
            seconds(took.cpu),
            per_gigabyte(took.cpu, work.bytes),
            took.peak_bytes / 1_000_000,
        )
    }

    fn json(&self) -> Value {
        let Self { work, took } = self;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "replication_factor": work.copies,
            "batch_bytes": work.chunk_bytes,
            "durability": if work.sync == Sync::Always { "disk" } else { "memory" },
            "measured": {
                "seconds": seconds(took.time),
                "bytes": work.bytes,
                "bytes_per_second": per_second(work.bytes, took.time),
            },
            "processor": {
                "seconds": seconds(took.cpu),
                "seconds_per_gb": per_gigabyte(took.cpu, work.bytes),
            },
            "memory": { "peak_bytes": took.peak_bytes },
        })
    }
}
