//! Records on standard output, as many as are wanted, in the shape that is wanted.

use super::template::Template;
use super::{Args, render};
use crate::output::Format;
use crate::progress::{Progress, Unit, output_is_elsewhere};
use anyhow::Context as _;
use ottla_client::{ReadBatch, Record};
use std::io::{self, BufWriter, Write};

/// Bytes gathered before they are written, unless nothing more comes.
const OUTPUT_BUFFER_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    Yes,
    No,
}

/// How records are written.
enum Shape {
    Raw,
    Json,
    /// And what stands for null.
    Template(Template, String),
}

pub(super) struct Printer<W> {
    out: W,
    /// Where there is one.
    topic: String,
    shape: Shape,
    progress: Progress,
    /// Records still wanted; `None` is all.
    pub(super) left: Option<u64>,
}

impl Printer<BufWriter<io::StdoutLock<'static>>> {
    /// `total`: how many records there are, as far as that is known.
    pub(super) fn new(args: &Args, total: Option<u64>) -> Self {
        let out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout().lock());
        let shape = match (args.format(), args.output.clone()) {
            (Format::Json, _) => Shape::Json,
            (Format::Text, None) => Shape::Raw,
            (Format::Text, Some(template)) => Shape::Template(template, args.null.clone()),
        };
        let topic = args.topics.first().cloned().unwrap_or_default();
        let progress = Progress::new(Unit::Things("records"), total, output_is_elsewhere());
        Self { out, topic, shape, left: args.max, progress }
    }
}

impl<W: Write> Printer<W> {
    pub(super) fn print(&mut self, batch: &ReadBatch) -> anyhow::Result<Enough> {
        let topic = self.topic.clone();
        for record in &batch.records {
            if self.record(&topic, batch.partition, record)? == Enough::Yes {
                return Ok(Enough::Yes);
            }
        }
        Ok(Enough::No)
    }

    pub(super) fn record(
        &mut self,
        topic: &str,
        partition: u32,
        record: &Record,
    ) -> anyhow::Result<Enough> {
        let out = &mut self.out;
        match &self.shape {
            Shape::Raw => render::raw(out, record),
            Shape::Json => render::json(out, topic, partition, record),
            Shape::Template(template, null) => template.write(out, topic, partition, record, null),
        }
        .context("writing to standard output")?;
        self.progress.add(1);
        let Some(left) = &mut self.left else { return Ok(Enough::No) };
        *left -= 1;
        Ok(if *left == 0 { Enough::Yes } else { Enough::No })
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context("writing to standard output")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_stops_at_the_number_asked_for() {
        let record = |offset| Record {
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(offset.to_string().into()),
            headers: Vec::new(),
        };
        let batch = ReadBatch {
            partition: 0,
            records: (0..5).map(record).collect(),
            next_offset: 5,
            high_watermark: 5,
            log_start_offset: 0,
        };
        let progress = Progress::new(Unit::Things("records"), None, false);
        let (topic, shape) = ("t".to_owned(), Shape::Raw);
        let mut printer = Printer { out: Vec::new(), topic, shape, left: Some(7), progress };
        assert_eq!(printer.print(&batch).expect("a vector takes it"), Enough::No);
        assert_eq!(printer.print(&batch).expect("a vector takes it"), Enough::Yes);
        assert_eq!(printer.out, b"0\n1\n2\n3\n4\n0\n1\n");
    }
}
