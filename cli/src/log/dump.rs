//! `ottla log dump`: prints what is in the files of a log.

use super::render;
use crate::output::Format;
use bytes::Bytes;
use ottla_node::inspect::{
    BatchHeader, FileKind, Item, RealVfs, Shown, Target, decode_marker, decode_records, dump_file,
    dump_log, logs,
};
use std::io::Write;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

/// Print the batches of a log, or the entries of one of its files.
///
/// PATH is a file of a log (segment, .index, .timeindex, .txnindex, .snapshot,
/// a checkpoint), the directory of a log (all its segments), a node's data
/// directory (all its logs), or a directory of several such. Nothing is locked
/// or changed; the node may be running. Damaged places are printed as such, and
/// the walk goes on behind them, or at the next segment.
///
/// Exit code: 0, 1 if something damaged was met, 2 if the files cannot be read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla log dump /var/lib/ottla/partitions/8a6e…-0 --records --from 1000 --max 10
  ottla log dump 00000000000000000000.timeindex
  ottla log dump PATH --format json | jq 'select(.type == \"bad\")'

As text, values are JSON strings: null, \"\" and \"text\" are distinct; bytes that are not
UTF-8 are shown as base64:…

With --format json, one object per line, by \"type\":
  file          path, kind, bytes
  batch         position, base_offset, last_offset, leader_epoch, records, bytes, codec,
                timestamp_type, base_timestamp, max_timestamp, delete_horizon (or null),
                producer_id, producer_epoch, base_sequence (or null), transactional,
                control, placeholder, crc
  record        offset, timestamp, key, value, headers: as `ottla consume` prints them
  marker        offset, timestamp, outcome (commit or abort), coordinator_epoch
  bad           position, reason, torn, base_offset (or null)
  offset_entry  position, offset, at          time_entry  position, timestamp, offset
  txn_entry     position, producer_id, first_offset, last_offset, last_stable_offset
  epoch         epoch, start_offset           text        text
  gone          path: the file was removed while the log was read")]
pub(super) struct Args {
    /// A file of a log, a log, a data directory, or a directory of several.
    path: PathBuf,

    /// Print every record, not only the batches.
    #[arg(long)]
    records: bool,

    /// Begin with the batch or record that holds this offset.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,

    /// End before this offset.
    #[arg(long, value_name = "OFFSET", default_value_t = u64::MAX)]
    to: u64,

    /// Stop after this many batches, or records with --records, of each log.
    #[arg(long, value_name = "N")]
    max: Option<u64>,

    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// Returns whether nothing damaged was met.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut dump = Dump { out: super::out(), args, left: None, bad: false };
    for target in Target::at(&args.path)? {
        match &target {
            Target::File(path, kind) => dump.file(path, *kind)?,
            Target::Log(dir) => dump.log(dir)?,
            Target::DataDir(dir) => {
                for log in logs(dir)? {
                    dump.log(&log)?;
                }
            }
        }
    }
    dump.out.flush()?;
    Ok(!dump.bad)
}

struct Dump<'a, W> {
    out: W,
    args: &'a Args,
    /// Batches or records still wanted of this log.
    left: Option<u64>,
    bad: bool,
}

impl<W: Write> Dump<'_, W> {
    fn range(&self) -> Range<u64> {
        self.args.from..self.args.to
    }

    fn file(&mut self, path: &Path, kind: FileKind) -> anyhow::Result<()> {
        self.left = self.args.max;
        let range = self.range();
        dump_file(&RealVfs, path, kind, &range, &mut |item| self.show(&item)).map(drop)
    }

    fn log(&mut self, dir: &Path) -> anyhow::Result<()> {
        self.left = self.args.max;
        let range = self.range();
        dump_log(&RealVfs, dir, &range, &mut |item| self.show(&item)).map(drop)
    }

    fn show(&mut self, item: &Item<'_>) -> Shown<anyhow::Error> {
        if self.left == Some(0) {
            return Ok(ControlFlow::Break(()));
        }
        self.bad |= matches!(item, Item::Bad { torn: false, .. });
        self.line(|| render::text(item), || render::json(item))?;
        match item {
            Item::Batch { position, header, bytes } if self.args.records => {
                self.records(*position, header, bytes)
            }
            Item::File { .. } | Item::Bad { .. } | Item::Gone { .. } => {
                Ok(ControlFlow::Continue(()))
            }
            _ => Ok(self.counted()),
        }
    }

    fn records(
        &mut self,
        position: u64,
        header: &BatchHeader,
        bytes: &Bytes,
    ) -> Shown<anyhow::Error> {
        if header.is_control() {
            return match decode_marker(bytes) {
                Err(error) => self.bad_records(position, header, error.to_string()),
                Ok(marker) => {
                    let text = || render::marker_text(header, &marker);
                    self.line(text, || render::marker_json(header, &marker))?;
                    Ok(self.counted())
                }
            };
        }
        for record in decode_records(bytes) {
            let record = match record {
                Ok(record) => record,
                Err(error) => return self.bad_records(position, header, error.to_string()),
            };
            if !self.range().contains(&record.offset) {
                continue;
            }
            self.line(|| render::record_text(&record), || render::record_json(&record))?;
            if self.counted().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn bad_records(
        &mut self,
        position: u64,
        header: &BatchHeader,
        reason: String,
    ) -> Shown<anyhow::Error> {
        let bad = Item::Bad { position, reason, header: Some(*header), torn: false };
        self.bad = true;
        self.line(|| render::text(&bad), || render::json(&bad))?;
        Ok(ControlFlow::Continue(()))
    }

    fn line(
        &mut self,
        text: impl Fn() -> String,
        json: impl Fn() -> serde_json::Value,
    ) -> anyhow::Result<()> {
        match self.args.format {
            Format::Text => writeln!(self.out, "{}", text())?,
            Format::Json => writeln!(self.out, "{}", json())?,
        }
        Ok(())
    }

    fn counted(&mut self) -> ControlFlow<()> {
        match &mut self.left {
            None => ControlFlow::Continue(()),
            Some(left) => {
                *left -= 1;
                if *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        }
    }
}
