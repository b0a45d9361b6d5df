//! Opening a log: finding its segments, and the state of its end.

use super::compact;
use super::epochs::Epochs;
use super::recovery::{Recovery, recover};
use super::segment::{Segment, base_of, log_path, remove_files};
use super::walk::HEADERS_CHUNK_BYTES;
use super::{EPOCHS_FILE, Log, OpenMode, START_FILE, Slot, State, Unsynced, Writer};
use crate::checkpoint::{self, CheckpointError, write_plain_atomically};
use crate::format::BatchHeader;
use crate::producers::Producers;
use crate::vfs::{Vfs, create_dir_durably};
use crate::{LogConfig, LogError, Shared};
use ottla_proto::{LeaderEpoch, Offset};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Segments on disk and what is known of them while a log is opened.
pub(super) struct Opening<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) dir: &'a Path,
    pub(super) config: LogConfig,
    pub(super) start: Offset,
    pub(super) slots: Vec<Slot>,
    pub(super) recovery: Recovery,
    /// The producers' state behind what was scanned; `None` if nothing was.
    pub(super) producers: Option<Producers>,
}

/// What the end of the log turned out to be.
pub(super) struct Tail {
    pub(super) end: Offset,
    /// Epochs of the readable batches that were scanned; `None` if none was.
    pub(super) seen: Option<Epochs>,
    pub(super) last_epoch: Option<LeaderEpoch>,
}

impl Log {
    /// Opens the log in `dir`, or creates an empty one that starts at 0.
    /// Afterwards everything in it is synced. One that never held anything is not:
    /// if it is lost, the next start makes the same again.
    ///
    /// # Errors
    /// `Io` or `DiskFull`. Bad contents are no error: they are cut or rebuilt,
    /// and [`Recovery`] says so.
    pub fn open(
        shared: &Arc<Shared>,
        dir: &Path,
        config: LogConfig,
        mode: OpenMode,
    ) -> Result<(Self, Recovery), LogError> {
        let vfs = shared.vfs();
        if let Some(slot) = blank(vfs, dir)? {
            let state = State::blank(slot);
            return Ok((Self::of(shared, dir, config, state, false), Recovery::default()));
        }
        let mut opening = Opening::find(vfs, dir, config)?;
        let tail = match mode {
            OpenMode::Clean => match opening.clean_tail() {
                Err(LogError::Corrupt { path, position, reason }) => {
                    tracing::warn!(path = %path.display(), position, reason, "not left clean");
                    recover(&mut opening)?
                }
                tail => tail?,
            },
            OpenMode::Recover => recover(&mut opening)?,
        };
        let end = opening.settle_start(tail.end)?;
        let epochs = opening.epochs(&tail, end)?;
        let (producers, snapshot) = opening.settle_producers(end)?;
        let Opening { start, slots, recovery, .. } = opening;
        recovery.report(dir);
        let state = State {
            slots,
            start,
            end,
            synced: end,
            epochs,
            producers,
            snapshot,
            generation: 0,
            unsynced: Unsynced::default(),
            clean_to: compact::read_clean(shared.vfs(), dir, end)?,
            uncleanable: false,
            offline: None,
        };
        Ok((Self::of(shared, dir, config, state, true), recovery))
    }

    fn of(
        shared: &Arc<Shared>,
        dir: &Path,
        config: LogConfig,
        state: State,
        anchored: bool,
    ) -> Self {
        let writer = Writer { epochs_stale: false, epoch_begun: false, anchored };
        Self {
            shared: Arc::clone(shared),
            dir: dir.to_owned(),
            config: RwLock::new(config),
            cleaning: Mutex::new(()),
            writer: Mutex::new(writer),
            gate: Mutex::new(()),
            shape: Mutex::new(()),
            state: RwLock::new(state),
            tail: shared.tail(),
        }
    }
}

impl State {
    /// Of a log that never held anything.
    fn blank(slot: Slot) -> Self {
        Self {
            slots: vec![slot],
            start: 0,
            end: 0,
            synced: 0,
            epochs: Epochs::default(),
            producers: Producers::default(),
            snapshot: None,
            generation: 0,
            unsynced: Unsynced::default(),
            clean_to: 0,
            uncleanable: false,
            offline: None,
        }
    }
}

/// The only segment of a log that never held anything, made if there is no log at
/// all; `None` for any other log. Such a log has nothing but that segment in its
/// directory: before the first record, and before anything else that is kept, comes
/// the checkpoint of epochs, which stays. So nothing has to be durable or looked for
/// here, however many logs a node begins with.
fn blank(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Slot>, LogError> {
    let there = match vfs.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dir(vfs, dir).map_err(|error| LogError::io("create", dir, error))?;
            Vec::new()
        }
        Err(error) => return Err(LogError::io("list", dir, error)),
    };
    let segment = match &there[..] {
        [] => Segment::create(vfs, dir, 0)?,
        [name] if base_of(name, "log") == Some(0) => {
            let path = log_path(dir, 0);
            let file = vfs.open(&path).map_err(|error| LogError::io("open", &path, error))?;
            let segment = Segment::of_file(dir, 0, file);
            if segment.file_len()? > 0 {
                return Ok(None);
            }
            segment
        }
        _ => return Ok(None),
    };
    Ok(Some(Slot { segment: Arc::new(segment), size: 0 }))
}

/// Creates the directory of a log. Its name is made durable before anything that has
/// to last is put into it.
fn create_dir(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    match vfs.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dir_durably(vfs, parent_of(dir))?;
            vfs.create_dir(dir)
        }
        created => created,
    }
}

/// Where the name of a directory is.
pub(super) fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Base offsets of the segments in a directory, in order.
pub(super) fn segment_bases(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let names = vfs.list(dir).map_err(|error| LogError::io("list", dir, error))?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| base_of(name, "log")).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// The log start offset on record; `None` if there is none that can be read.
pub(super) fn read_start(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Offset>, LogError> {
    let path = dir.join(START_FILE);
    match checkpoint::read(vfs, &path) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok())),
        Err(error @ CheckpointError::Garbage { .. }) => {
            tracing::warn!(%error, "using the first segment's offset as log start");
            Ok(None)
        }
        Err(CheckpointError::Io { path, source }) => Err(LogError::io("read", &path, source)),
    }
}

/// The epochs on record; `None` if there are none that can be read.
pub(super) fn read_epochs(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Epochs>, LogError> {
    match checkpoint::read_plain(vfs, &dir.join(EPOCHS_FILE)) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| Epochs::decode(&bytes))),
        Err(CheckpointError::Garbage { .. }) => Ok(None),
        Err(CheckpointError::Io { path, source }) => Err(LogError::io("read", &path, source)),
    }
}

impl<'a> Opening<'a> {
    fn find(vfs: &'a dyn Vfs, dir: &'a Path, config: LogConfig) -> Result<Self, LogError> {
        compact::settle(vfs, dir)?;
        let bases = segment_bases(vfs, dir)?;
        let recorded = read_start(vfs, dir)?;
        let start = recorded.max(bases.first().copied()).unwrap_or(0);
        let recovery = Recovery::default();
        let mut this =
            Self { vfs, dir, config, start, slots: Vec::new(), recovery, producers: None };
        // Deleted once already, as far as the log start offset says.
        let first = bases.partition_point(|base| *base <= start).saturating_sub(1);
        for base in &bases[..first] {
            this.remove(*base)?;
        }
        for base in &bases[first..] {
            let segment = Segment::open(vfs, dir, *base, false)?;
            let size = segment.file_len()?;
            this.slots.push(Slot { segment: Arc::new(segment), size });
        }
        Ok(this)
    }

    pub(super) fn remove(&self, base: Offset) -> Result<(), LogError> {
        remove_files(self.vfs, self.dir, base)?;
        self.sync_dir()
    }

    pub(super) fn sync_dir(&self) -> Result<(), LogError> {
        self.vfs.sync_dir(self.dir).map_err(|error| LogError::io("sync", self.dir, error))
    }

    /// The end of a log that was left clean: from the last index entry, a walk
    /// over the few headers behind it.
    fn clean_tail(&mut self) -> Result<Tail, LogError> {
        let Some(slot) = self.slots.last() else {
            return Ok(Tail { end: self.start, seen: None, last_epoch: None });
        };
        let interval = self.config.index_interval_bytes;
        let header = slot.segment.tail(self.vfs, self.start, slot.size, interval)?;
        let end = header.map_or(slot.segment.base, |header| header.next_offset());
        let readable = header.filter(|header| header.last_offset() >= self.start);
        let last_epoch = readable.map(|header| header.leader_epoch);
        Ok(Tail { end, seen: None, last_epoch })
    }

    /// Makes log start, log end and segments agree; returns the log end offset.
    fn settle_start(&mut self, end: Offset) -> Result<Offset, LogError> {
        if end < self.start {
            // A reset got as far as recording its start.
            while let Some(slot) = self.slots.pop() {
                self.remove(slot.segment.base)?;
            }
            self.producers = None;
        }
        let end = end.max(self.start);
        if self.slots.is_empty() {
            let segment = Segment::create(self.vfs, self.dir, end)?;
            self.sync_dir()?;
            self.slots.push(Slot { segment: Arc::new(segment), size: 0 });
        }
        Ok(end)
    }

    /// The epochs on record if they fit the log, else those found by a walk
    /// over every header. What is not backed by the log is dropped.
    fn epochs(&mut self, tail: &Tail, end: Offset) -> Result<Epochs, LogError> {
        let recorded = read_epochs(self.vfs, self.dir)?;
        let empty = self.slots.iter().all(|slot| slot.size == 0);
        let fits = |epochs: &Epochs| {
            let from_the_start = tail.end <= self.start || epochs.covers(self.start);
            from_the_start
                && match &tail.seen {
                    Some(seen) => epochs.agree_with(seen, tail.end),
                    None => tail.last_epoch.is_none_or(|last| {
                        // Later ones may have begun, but have no records.
                        let (known, next) = epochs.end_of(last).unzip();
                        known == Some(last) && next.flatten().is_none_or(|next| next >= tail.end)
                    }),
                }
        };
        let believed = recorded.clone().or_else(|| empty.then(Epochs::default)).filter(fits);
        let mut epochs = match believed {
            Some(epochs) => epochs,
            None => {
                self.recovery.epochs_rebuilt = true;
                self.walk_epochs()?
            }
        };
        epochs.truncate_beyond(end);
        epochs.raise_start(self.start);
        if recorded.as_ref() != Some(&epochs) && !(recorded.is_none() && epochs.last().is_none()) {
            let path = self.dir.join(EPOCHS_FILE);
            write_plain_atomically(self.vfs, &path, epochs.encode().as_bytes())
                .map_err(|error| LogError::io("write", &path, error))?;
        }
        Ok(epochs)
    }

    /// Takes note of a batch's epoch, unless all of it is below the log start.
    pub(super) fn note_epoch(&self, epochs: &mut Epochs, header: &BatchHeader) {
        if header.last_offset() >= self.start && epochs.last() < Some(header.leader_epoch) {
            epochs.assign(header.leader_epoch, header.base_offset.max(self.start));
        }
    }

    fn walk_epochs(&self) -> Result<Epochs, LogError> {
        let mut epochs = Epochs::default();
        for slot in &self.slots {
            let mut walker = slot.segment.walk(0, slot.size, HEADERS_CHUNK_BYTES);
            loop {
                match walker.next_header() {
                    Ok(Some((header, _))) => self.note_epoch(&mut epochs, &header),
                    Ok(None) => break,
                    // The epochs are no reason not to start.
                    Err(LogError::Corrupt { path, position, reason }) => {
                        let path = path.display();
                        tracing::error!(%path, position, reason, "epochs not all known");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(epochs)
    }
}
