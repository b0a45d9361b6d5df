//! One look at a log: the walk over everything in its directory.

use super::files::FileKind;
use super::indexes::Indexes;
use super::problem::{Problems, Severity};
use super::scan::{Found, Scan, check_records};
use super::verify::{BeingWritten, Owner, Verification};
use crate::LogError;
use crate::checkpoint;
use crate::format::BatchHeader;
use crate::log::CLEANER_FILE;
use crate::log::epochs::Epochs;
use crate::log::segment::log_path;
use crate::log::snapshots;
use crate::log::{EPOCHS_FILE, MAX_SEGMENT_BYTES, START_FILE};
use crate::vfs::{Vfs, VfsFile};
use bytes::Bytes;
use ottla_proto::{LeaderEpoch, Offset};
use std::path::Path;

const CUT: &str = "an unclean start cuts the log here";
const READS_FAIL: &str = "reads of this place fail; a start does not look here";
const ONLY_CHECKED: &str = "a start that checks the log cuts it here; until then reads of it fail";
const REBUILT: &str = "made again from the batches at the next start";
const SPARE: &str = "only used where the newer ones cannot be; goes with its segment";

/// One look at a log.
pub(super) struct Look<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    owner: Owner,
    found: Verification,
    problems: Problems,
    epochs: Epochs,
    last_epoch: Option<LeaderEpoch>,
    /// The offset that follows; `None` where damage makes that unknowable.
    next: Option<Offset>,
    /// Offset behind the last good batch.
    batches_end: Option<Offset>,
}

impl<'a> Look<'a> {
    pub(super) fn new(vfs: &'a dyn Vfs, dir: &'a Path, owner: Owner) -> Self {
        Self {
            vfs,
            dir,
            owner,
            found: Verification::default(),
            problems: Problems::default(),
            epochs: Epochs::default(),
            last_epoch: None,
            next: None,
            batches_end: None,
        }
    }

    /// Whether no record is missing so far.
    fn intact(&self) -> bool {
        self.problems.0.iter().all(|problem| problem.severity != Severity::Damage)
    }

    pub(super) fn all(mut self) -> Result<Verification, LogError> {
        let (names, bases) = self.list()?;
        self.check_names(&names, &bases);
        let recorded = self.read_start();
        self.found.start = recorded.max(bases.first().copied()).unwrap_or(0);
        self.found.end = self.found.start;
        self.next = bases.first().copied();
        for (index, base) in bases.iter().enumerate() {
            let next_base = bases.get(index + 1).copied();
            self.segment(*base, next_base)?;
        }
        self.check_start(recorded, &bases);
        self.check_epochs();
        self.check_cleaner();
        self.found.problems = self.problems.0;
        Ok(self.found)
    }

    /// One segment and nothing else.
    pub(super) fn segment_at(mut self, base: Offset) -> Result<Verification, LogError> {
        let (_, bases) = self.list()?;
        // Complaints about it are not about the segment.
        self.found.start = self.read_start().unwrap_or(0);
        self.problems = Problems::default();
        let next_base = bases.iter().copied().find(|other| *other > base);
        self.segment(base, next_base)?;
        let end = self.batches_end.unwrap_or(base);
        (self.found.start, self.found.end) = (base.max(self.found.start.min(end)), end);
        self.found.problems = self.problems.0;
        Ok(self.found)
    }

    /// Every name, and the segments' bases, in order.
    fn list(&self) -> Result<(Vec<String>, Vec<Offset>), LogError> {
        let mut names =
            self.vfs.list(self.dir).map_err(|error| LogError::io("list", self.dir, error))?;
        names.sort_unstable();
        let bases = names
            .iter()
            .filter_map(|name| match FileKind::of(name) {
                FileKind::Segment(base) => Some(base),
                _ => None,
            })
            .collect();
        Ok((names, bases))
    }

    fn check_names(&mut self, names: &[String], bases: &[Offset]) {
        let stray = |name: &str| match FileKind::of(name) {
            FileKind::Unknown => Some(("not a file of a log", "left alone")),
            FileKind::Leftover if name.ends_with(".swap") => {
                Some(("a compaction was interrupted", "the next start finishes it"))
            }
            FileKind::Leftover => Some(("left by an interrupted change", "removed or replaced")),
            kind => kind
                .segment()
                .filter(|base| !bases.contains(base))
                .map(|_| ("there is no such segment", "never used")),
        };
        // What a running process is about to rename or remove is no leftover.
        let busy =
            |name: &str| self.owner == Owner::Running && FileKind::of(name) == FileKind::Leftover;
        let newest = names.iter().filter_map(|name| snapshot_at(name)).max();
        for name in names.iter().filter(|name| !busy(name)) {
            if let Some((reason, outcome)) = stray(name) {
                let path = self.dir.join(name);
                self.problems.add(&path, 0, Severity::Leftover, reason, outcome);
            }
            if let Some(at) = snapshot_at(name)
                && let Err(reason) = snapshots::read(self.vfs, self.dir, at)
            {
                let outcome = if Some(at) == newest { REBUILT } else { SPARE };
                self.problems.add(&self.dir.join(name), 0, Severity::Derived, reason, outcome);
            }
        }
    }

    /// The log start offset on record.
    fn read_start(&mut self) -> Option<Offset> {
        let path = self.dir.join(START_FILE);
        let outcome = "the log starts at its first segment: deleted records may come back";
        let reason = match checkpoint::read(self.vfs, &path) {
            Ok(None) => return None,
            Ok(Some(bytes)) => match std::str::from_utf8(&bytes).map(str::parse) {
                Ok(Ok(start)) => return Some(start),
                _ => "does not hold an offset".to_owned(),
            },
            Err(error) => error.reason(),
        };
        self.problems.add(&path, 0, Severity::Derived, reason, outcome);
        None
    }

    /// One segment; `next_base` is where the one behind it begins.
    fn segment(&mut self, base: Offset, next_base: Option<Offset>) -> Result<(), LogError> {
        let path = log_path(self.dir, base);
        let open = |operation| {
            let path = path.clone();
            move |error| LogError::io(operation, &path, error)
        };
        let file = self.vfs.open_read_only(&path).map_err(open("open"))?;
        let size = file.len().map_err(open("stat"))?;
        self.found.segments += 1;
        self.found.bytes += size;
        if size > MAX_SEGMENT_BYTES {
            let reason = format!("{size} bytes, a segment has at most {MAX_SEGMENT_BYTES}");
            self.damage(&path, 0, reason, next_base);
        }
        if next_base.is_some_and(|next| next <= self.found.start) && size > 0 {
            let (reason, outcome) =
                ("all of it is below the log start", "removed by the next start");
            if self.owner != Owner::Running {
                self.problems.add(&path, 0, Severity::Leftover, reason, outcome);
            }
        }
        self.follows(&path, 0, base, next_base);
        self.next = Some(base);
        let finished = next_base.is_some();
        let mut indexes = Indexes::open(self.vfs, &path, base, finished, &mut self.problems);
        self.walk(Segment { path: &path, file: &*file, size, base, next_base }, &mut indexes)
    }

    fn walk(&mut self, segment: Segment<'_>, indexes: &mut Indexes) -> Result<(), LogError> {
        let Segment { path, file, size, next_base, .. } = segment;
        let mut scan = Scan::new(path, file, size);
        loop {
            match scan.next() {
                Ok(None) => break,
                Ok(Some(Found::Batch { header, position, bytes })) => {
                    if self.batch(&segment, &header, position, &bytes) {
                        indexes.batch(&header, position, &mut self.problems);
                    } else {
                        indexes.skip(position);
                    }
                }
                Ok(Some(Found::Bad { header, position, torn, reason })) => {
                    indexes.skip(position);
                    let goes_on = header.is_some() || resume(&mut scan, indexes)?;
                    let tail = !goes_on || scan.at_end();
                    self.bad(&segment, position, reason, tail, torn);
                    self.next = header.map(|header| header.next_offset());
                    if !goes_on {
                        return Ok(());
                    }
                }
                Err(LogError::Io { source, .. }) => {
                    let reason = format!("cannot be read: {source}");
                    self.damage(path, scan.position(), reason, next_base);
                    self.next = None;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if self.owner != Owner::Running || next_base.is_some() {
            indexes.end(&mut self.problems);
        }
        Ok(())
    }

    /// A place without a good batch; `tail`: nothing good stands behind it.
    fn bad(
        &mut self,
        segment: &Segment<'_>,
        position: u64,
        reason: String,
        tail: bool,
        torn: bool,
    ) {
        let last = segment.next_base.is_none();
        match self.owner {
            Owner::Running if last && tail && torn => {
                let (path, bytes) = (segment.path.to_owned(), segment.size - position);
                self.found.being_written = Some(BeingWritten { path, position, bytes });
            }
            Owner::Unknown if last && tail => {
                self.problems.add(segment.path, position, Severity::Torn, reason, CUT);
            }
            _ => self.damage(segment.path, position, reason, segment.next_base),
        }
    }

    /// A batch that is true to its CRC. Returns whether its offsets, which no
    /// CRC covers, can be believed.
    fn batch(
        &mut self,
        segment: &Segment<'_>,
        header: &BatchHeader,
        position: u64,
        bytes: &Bytes,
    ) -> bool {
        let Segment { path, base, next_base, .. } = *segment;
        let follows = self.follows(path, position, header.base_offset, next_base);
        if header.last_offset() - base.min(header.base_offset) > i32::MAX as u64 {
            let reason = format!("offset {} is too far from {base}", header.last_offset());
            self.damage(path, position, reason, next_base);
        }
        if let Err(reason) = check_records(header, bytes) {
            self.damage(path, position, reason, next_base);
        }
        self.epoch(segment, header, position);
        // An offset that is false by itself does not make what follows false.
        let continued = self.next.map(|next| next + u64::from(header.last_offset_delta) + 1);
        self.next = match continued {
            Some(next) if next != header.next_offset() => None,
            _ => Some(header.next_offset()),
        };
        self.found.batches += 1;
        self.found.records += u64::from(header.record_count);
        self.found.end = self.found.end.max(header.next_offset());
        self.batches_end = self.batches_end.max(Some(header.next_offset()));
        follows
    }

    fn epoch(&mut self, segment: &Segment<'_>, header: &BatchHeader, position: u64) {
        // Epochs of what is deleted are forgotten, and bind nobody.
        if header.last_offset() < self.found.start {
            return;
        }
        let epoch = header.leader_epoch;
        if self.last_epoch > Some(epoch) {
            let reason = format!("leader epoch {epoch} goes back");
            self.damage(segment.path, position, reason, segment.next_base);
        } else if self.epochs.last() < Some(epoch) {
            self.epochs.assign(epoch, header.base_offset.max(self.found.start));
        }
        self.last_epoch = Some(epoch);
    }

    /// Complains where `base` does not continue what came before. Below the log
    /// start batches may be missing: the log was truncated within one that the
    /// log start had cut in two, and went on at the log start.
    fn follows(
        &mut self,
        path: &Path,
        position: u64,
        base: Offset,
        next_base: Option<Offset>,
    ) -> bool {
        let Some(next) = self.next else { return true };
        let follows = base == next || (next..=self.found.start).contains(&base);
        if !follows {
            let reason = format!("offset {base} where {next} follows");
            self.damage(path, position, reason, next_base);
        }
        follows
    }

    fn damage(&mut self, path: &Path, position: u64, reason: String, next_base: Option<Offset>) {
        let outcome = if next_base.is_none() { ONLY_CHECKED } else { READS_FAIL };
        self.problems.add(path, position, Severity::Damage, reason, outcome);
    }

    fn check_start(&mut self, recorded: Option<Offset>, bases: &[Offset]) {
        let end = self.batches_end.max(bases.last().copied());
        if let (Some(start), Some(end)) = (recorded, end)
            && start > end
            && self.intact()
        {
            let reason = format!("{start} is beyond the end of the batches, {end}");
            let outcome = "the log becomes empty there: a reset was under way";
            let path = self.dir.join(START_FILE);
            self.problems.add(&path, 0, Severity::Derived, reason, outcome);
        }
    }

    fn check_cleaner(&mut self) {
        let path = self.dir.join(CLEANER_FILE);
        if let Err(error) = checkpoint::read(self.vfs, &path) {
            let outcome = "the whole log counts as not compacted";
            self.problems.add(&path, 0, Severity::Derived, error.reason(), outcome);
        }
    }

    fn check_epochs(&mut self) {
        if !self.intact() {
            return; // then the batches do not say what it should hold
        }
        let path = self.dir.join(EPOCHS_FILE);
        let reason = match checkpoint::read_plain(self.vfs, &path) {
            Ok(None) if self.epochs.last().is_none() => return,
            Ok(None) => "missing".to_owned(),
            Ok(Some(bytes)) => match Epochs::decode(&bytes) {
                None => "is garbage".to_owned(),
                Some(recorded) if recorded.agree_with(&self.epochs, self.found.end) => return,
                Some(_) => "does not agree with the batches".to_owned(),
            },
            Err(error) => error.reason(),
        };
        self.problems.add(&path, 0, Severity::Derived, reason, REBUILT);
    }
}

fn snapshot_at(name: &str) -> Option<Offset> {
    match FileKind::of(name) {
        FileKind::Snapshot(at) => Some(at),
        _ => None,
    }
}

/// Finds the next good batch behind a bad place through the index.
fn resume(scan: &mut Scan<'_>, indexes: &mut Indexes) -> Result<bool, LogError> {
    while let Some((position, last_offset)) = indexes.next_batch() {
        if scan.resume(position, last_offset)? {
            return Ok(true);
        }
        indexes.skip(position);
    }
    Ok(false)
}

/// The segment that is being looked at.
struct Segment<'a> {
    path: &'a Path,
    file: &'a dyn VfsFile,
    size: u64,
    base: Offset,
    /// Where the one behind it begins; `None` for the last.
    next_base: Option<Offset>,
}
