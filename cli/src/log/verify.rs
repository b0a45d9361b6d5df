//! `ottla log verify`: checks every byte of logs.

use crate::output::Format;
use crate::progress::{Progress, Unit, output_is_elsewhere};
use anyhow::Context;
use ottla_node::inspect::{
    self, FileKind, Owner, Problem, RealVfs, Severity, Target, Verification, verify_data_dir,
    verify_segment,
};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Check logs down to the last record, with their indexes and checkpoints.
///
/// PATH is a segment file, the directory of a log, a node's data directory
/// (all its logs and small files), or a directory of several such, as that of
/// `ottla dev`. Nothing is locked or changed; the node may be running.
///
/// Each problem has a severity: `damage` (records cannot be read or believed),
/// `torn` (the end of the log is what an unclean stop leaves), `derived` (made
/// again from the batches), `leftover` (a file without a use). Exit code: 0 if
/// there is nothing worse than leftovers, 1 if there is, 2 if the files cannot
/// be read at all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla log verify ottla-data/node-1/data
  ottla log verify /var/lib/ottla/partitions/8a6e…-0 --format json

With --format json, one object per line: for each data directory
  {\"type\":\"data_dir\",\"path\",\"owner\",\"problems\":[…]}
for each log
  {\"type\":\"log\",\"path\",\"owner\":\"running|clean|unknown\",\"segments\",\"batches\",\"records\",
   \"bytes\",\"start_offset\",\"end_offset\",\"being_written\":null|{\"path\",\"position\",\"bytes\"},
   \"problems\":[{\"path\",\"position\",\"severity\",\"reason\",\"outcome\"}]}
and at the end
  {\"type\":\"summary\",\"logs\",\"segments\",\"batches\",\"records\",\"bytes\",
   \"problems\":{\"damage\",\"torn\",\"derived\",\"leftover\"},\"clean\":true|false}")]
pub(super) struct Args {
    /// A segment file, a log, a data directory, or a directory of several.
    path: PathBuf,

    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// Returns whether there is nothing worse than leftovers.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    let progress = Progress::new(Unit::Bytes, None, output_is_elsewhere());
    let totals = Totals::default();
    let mut report = Report { out: super::out(), format: args.format, totals, progress };
    for target in Target::at(&args.path)? {
        report.target(&target)?;
    }
    report.finish()
}

#[derive(Default)]
struct Totals {
    logs: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    /// Problems by severity, in the order of [`SEVERITIES`].
    problems: [u64; 4],
}

const SEVERITIES: [Severity; 4] =
    [Severity::Damage, Severity::Torn, Severity::Derived, Severity::Leftover];

impl Totals {
    fn count(&mut self, problems: &[Problem]) {
        for (severity, count) in SEVERITIES.iter().zip(&mut self.problems) {
            *count +=
                problems.iter().filter(|problem| problem.severity == *severity).count() as u64;
        }
    }

    fn clean(&self) -> bool {
        self.problems[..3].iter().all(|count| *count == 0)
    }

    /// Such as `2 damage, 1 leftover`.
    fn summary(&self) -> String {
        let some = SEVERITIES.iter().zip(self.problems).filter(|(_, count)| *count > 0);
        let some: Vec<_> = some.map(|(severity, count)| format!("{count} {severity}")).collect();
        if some.is_empty() { "clean".to_owned() } else { some.join(", ") }
    }
}

struct Report<W> {
    out: W,
    format: Format,
    totals: Totals,
    progress: Progress,
}

impl<W: Write> Report<W> {
    fn target(&mut self, target: &Target) -> anyhow::Result<()> {
        match target {
            Target::File(path, kind) => self.file(path, *kind),
            Target::Log(dir) => self.log(dir, Owner::of_log(dir)),
            Target::DataDir(dir) => self.data_dir(dir),
        }
    }

    fn file(&mut self, path: &Path, kind: FileKind) -> anyhow::Result<()> {
        let (FileKind::Segment(base), Some(dir)) = (kind, path.parent()) else {
            anyhow::bail!(
                "{} is not a segment: give the log's directory to check its other files",
                path.display()
            );
        };
        let found = verify_segment(&RealVfs, dir, base, Owner::of_log(dir))?;
        self.show(path, Owner::of_log(dir), &found)
    }

    fn log(&mut self, dir: &Path, owner: Owner) -> anyhow::Result<()> {
        let found = inspect::verify(&RealVfs, dir, owner)?;
        self.show(dir, owner, &found)
    }

    fn data_dir(&mut self, dir: &Path) -> anyhow::Result<()> {
        let owner = Owner::of_data_dir(dir);
        let problems = verify_data_dir(dir, owner).with_context(|| dir.display().to_string())?;
        self.totals.count(&problems);
        match self.format {
            Format::Text => self.problems(&problems)?,
            Format::Json => self.json(&json!({
                "type": "data_dir",
                "path": dir,
                "owner": name_of(owner),
                "problems": problems.iter().map(problem_json).collect::<Vec<_>>(),
            }))?,
        }
        for log in inspect::logs(dir)? {
            match inspect::verify(&RealVfs, &log, owner) {
                Ok(found) => self.show(&log, owner, &found)?,
                // A topic deleted while the node runs.
                Err(_) if owner == Owner::Running && !log.exists() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn show(&mut self, path: &Path, owner: Owner, found: &Verification) -> anyhow::Result<()> {
        self.totals.logs += 1;
        self.progress.add(found.bytes);
        self.totals.segments += u64::from(found.segments);
        self.totals.batches += found.batches;
        self.totals.records += found.records;
        self.totals.bytes += found.bytes;
        self.totals.count(&found.problems);
        if self.format == Format::Json {
            return self.json(&log_json(path, owner, found));
        }
        let Verification { segments, batches, records, bytes, start, end, .. } = found;
        let mut totals = Totals::default();
        totals.count(&found.problems);
        writeln!(
            self.out,
            "{}: {segments} segments, {batches} batches, {records} records, {bytes} bytes, \
             offsets {start} to {end}: {}",
            path.display(),
            totals.summary(),
        )?;
        if let Some(tail) = &found.being_written {
            let (path, position) = (tail.path.display(), tail.position);
            writeln!(self.out, "  {path} byte {position}: a batch is being written")?;
        }
        self.problems(&found.problems)
    }

    fn problems(&mut self, problems: &[Problem]) -> anyhow::Result<()> {
        for Problem { path, position, severity, reason, outcome } in problems {
            let path = path.display();
            writeln!(self.out, "  {severity}: {path} byte {position}: {reason} ({outcome})")?;
        }
        // A long check shows its progress.
        Ok(self.out.flush()?)
    }

    fn json(&mut self, value: &Value) -> anyhow::Result<()> {
        writeln!(self.out, "{value}")?;
        Ok(self.out.flush()?)
    }

    fn finish(mut self) -> anyhow::Result<bool> {
        let clean = self.totals.clean();
        let Totals { logs, segments, batches, records, bytes, problems } = self.totals;
        if self.format == Format::Json {
            let [damage, torn, derived, leftover] = problems;
            let problems = json!({
                "damage": damage, "torn": torn, "derived": derived, "leftover": leftover,
            });
            self.json(&json!({
                "type": "summary", "logs": logs, "segments": segments, "batches": batches,
                "records": records, "bytes": bytes, "problems": problems, "clean": clean,
            }))?;
        } else if logs != 1 || !clean {
            let summary = self.totals.summary();
            writeln!(self.out, "{logs} logs, {records} records, {bytes} bytes: {summary}")?;
        }
        self.out.flush()?;
        Ok(clean)
    }
}

fn name_of(owner: Owner) -> &'static str {
    match owner {
        Owner::Running => "running",
        Owner::Clean => "clean",
        Owner::Unknown => "unknown",
    }
}

fn log_json(path: &Path, owner: Owner, found: &Verification) -> Value {
    let tail = found.being_written.as_ref();
    let tail = tail
        .map(|tail| json!({ "path": tail.path, "position": tail.position, "bytes": tail.bytes }));
    json!({
        "type": "log",
        "path": path,
        "owner": name_of(owner),
        "segments": found.segments,
        "batches": found.batches,
        "records": found.records,
        "bytes": found.bytes,
        "start_offset": found.start,
        "end_offset": found.end,
        "being_written": tail,
        "problems": found.problems.iter().map(problem_json).collect::<Vec<_>>(),
    })
}

fn problem_json(problem: &Problem) -> Value {
    let Problem { path, position, severity, reason, outcome } = problem;
    json!({
        "path": path,
        "position": position,
        "severity": severity.to_string(),
        "reason": reason,
        "outcome": outcome,
    })
}
