//! The producers' state of a log in use: judged before an append, fed behind
//! it, made again when the log was cut.

use super::aborted::rebuild;
use super::segment::Segment;
use super::snapshots;
use super::{Log, State};
use crate::LogError;
use crate::format::{BatchHeader, FormatError};
use crate::producers::{Judge, ProducerRefusal, Producers, Step, Verdict};
use bytes::Bytes;
use ottla_proto::Offset;
use std::io;

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Appended: its base offset.
    At(Offset),
    /// Not appended: it is in the log already, at this base offset.
    Duplicate(Offset),
    /// Not appended, and not in the log.
    Refused(ProducerRefusal),
}

impl Placement {
    /// The base offset, if the batch is in the log.
    #[must_use]
    pub fn offset(self) -> Option<Offset> {
        match self {
            Self::At(offset) | Self::Duplicate(offset) => Some(offset),
            Self::Refused(_) => None,
        }
    }
}

impl From<Verdict> for Placement {
    /// The offset of an appended batch is the caller's to know.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Append(offset) => Self::At(offset),
            Verdict::Duplicate(offset) => Self::Duplicate(offset),
            Verdict::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

/// Judges the batches of one append as they are numbered.
pub(super) struct Admission<'a> {
    judge: Judge<'a>,
    pub(super) steps: Vec<Step>,
}

impl<'a> Admission<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Self { judge: Judge::new(&state.producers), steps: Vec::new() }
    }

    /// Whether the batch, stamped with the offset it would get, is appended.
    pub(super) fn admit(
        &mut self,
        header: &BatchHeader,
        bytes: &[u8],
    ) -> Result<Placement, FormatError> {
        let copy = || Bytes::copy_from_slice(bytes);
        let Some(step) = snapshots::step_of(header, copy)? else {
            return Ok(Placement::At(header.base_offset));
        };
        let verdict = self.judge.judge(&step);
        if matches!(verdict, Verdict::Append(_)) {
            self.steps.push(step);
        }
        Ok(verdict.into())
    }
}

impl Log {
    /// Forgets producers that were silent for
    /// [`crate::PRODUCER_EXPIRATION_MS`] and have no open transaction; returns
    /// how many. `now_ms`: milliseconds since the Unix epoch.
    pub fn expire_producers(&self, now_ms: i64) -> usize {
        if !self.state.read().producers.any_expired(now_ms) {
            return 0;
        }
        self.state.write().producers.expire(now_ms)
    }

    /// Takes note of batches that were written to `segment`, while `advance`
    /// makes them visible: readers find an aborted transaction in the index
    /// before the last stable offset passes it (KAFKA-7866).
    pub(super) fn note_producers(
        &self,
        segment: &Segment,
        steps: &[Step],
        advance: impl FnOnce(&mut State),
    ) -> Result<(), LogError> {
        if !steps.iter().any(Step::is_marker) {
            let mut state = self.state.write();
            advance(&mut state);
            for step in steps {
                state.producers.apply(step);
            }
            return Ok(());
        }
        let mut index = segment.aborted.lock();
        {
            let mut state = self.state.write();
            advance(&mut state);
            for aborted in steps.iter().filter_map(|step| state.producers.apply(step)) {
                index.note(aborted);
            }
        }
        match index.flush(self.vfs()).map_err(|error| self.txn_error(segment, error)) {
            // It waits in memory; the next marker does not fit before it does.
            Err(LogError::DiskFull { path }) => {
                tracing::warn!(path = %path.display(), "no space for an aborted transaction");
                Ok(())
            }
            done => done,
        }
    }

    /// Takes the snapshot of the segment that begins at `end`, the log's. The
    /// caller syncs the directory.
    pub(super) fn take_snapshot(&self, end: Offset) {
        let (bytes, old) = {
            let state = self.state.read();
            (state.producers.encode(end), state.stray_snapshot())
        };
        let written = snapshots::write_durably(self.vfs(), &self.dir, end, &bytes);
        self.replace_snapshot(old, end, written);
    }

    /// At the end of the log's life: what a clean start need not walk for.
    /// `active` is the segment being written.
    pub(super) fn close_producers(&self, active: &Segment) {
        if let Err(error) = active.aborted.lock().close(self.vfs()) {
            tracing::warn!(path = %active.path.display(), %error, "aborted not written");
        }
        let (bytes, end, old) = {
            let state = self.state.read();
            let empty = state.slots.len() == 1 && state.active().size == 0;
            if empty && state.producers.is_untouched() || state.snapshot == Some(state.end) {
                return;
            }
            (state.producers.encode(state.end), state.end, state.stray_snapshot())
        };
        let written = snapshots::write(self.vfs(), &self.dir, end, &bytes);
        self.replace_snapshot(old, end, written);
    }

    /// Puts the snapshot at `end` in place of `old`, which stood by itself.
    fn replace_snapshot(&self, old: Option<Offset>, end: Offset, written: io::Result<()>) {
        if let Err(error) = &written {
            // The next unclean start walks the headers of one more segment.
            tracing::warn!(dir = %self.dir.display(), %error, "producers' state not written");
        }
        if let Some(old) = old.filter(|old| *old != end)
            && let Err(error) = snapshots::remove(self.vfs(), &self.dir, old)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "old snapshot not removed");
        }
        self.state.write().snapshot = written.is_ok().then_some(end);
    }

    /// After the log was cut in `segment`, which is the last one now.
    pub(super) fn cut_producers(&self, segment: &Segment) -> Result<(), LogError> {
        let (slots, end, gone) = {
            let mut state = self.state.write();
            let end = state.end;
            let gone = state.snapshot.take_if(|at| *at > end);
            (state.slots.clone(), end, gone)
        };
        let (untouched, seen) = {
            let producers = &self.state.read().producers;
            (producers.is_untouched(), producers.has_seen_transactions())
        };
        // Of what may come to stand there a snapshot from before would be false.
        if let Some(gone) = gone {
            self.remove_snapshots(&[gone])?;
        }
        if untouched {
            return Ok(());
        }
        let interval = self.config().index_interval_bytes;
        let restored = snapshots::state_at(self.vfs(), &self.dir, &slots, end, interval)
            .map_err(|error| self.offline(error))?;
        self.state.write().producers = restored.producers;
        if !seen {
            return Ok(());
        }
        let mut index = segment.aborted.lock();
        let cut = index.load(self.vfs()).and_then(|()| index.truncate(self.vfs(), end));
        if let Err(error) = cut {
            rebuild(self.vfs(), &self.dir, &slots, interval, &mut index, &error)
                .map_err(|error| self.offline(error))?;
        }
        Ok(())
    }

    /// Before the log begins anew: no snapshot that stands by itself, or at one
    /// of `places`, may be taken for one of what will be there.
    pub(super) fn drop_snapshots(&self, places: [Offset; 2]) -> Result<(), LogError> {
        let stray = {
            let mut state = self.state.write();
            let stray = state.stray_snapshot();
            state.snapshot.take_if(|at| Some(*at) == stray || places.contains(at));
            stray
        };
        let mut gone = places.to_vec();
        gone.extend(stray);
        self.remove_snapshots(&gone)
    }

    fn remove_snapshots(&self, offsets: &[Offset]) -> Result<(), LogError> {
        let mut removed = false;
        for at in offsets {
            removed |= snapshots::remove(self.vfs(), &self.dir, *at)
                .map_err(|error| self.offline(error))?;
        }
        if removed { self.sync_dir() } else { Ok(()) }
    }

    /// After everything was cut away, down to the start of `segment`.
    pub(super) fn clear_producers(&self, segment: &Segment) -> Result<(), LogError> {
        self.state.write().producers = Producers::default();
        let cleared = segment.aborted.lock().clear(self.vfs());
        cleared.map_err(|error| self.offline(LogError::io("remove", &segment.path, error)))
    }
}

impl State {
    /// The snapshot that stands at no segment's start.
    fn stray_snapshot(&self) -> Option<Offset> {
        self.snapshot.filter(|at| self.active().segment.base != *at)
    }
}
