//! Group commit.

use super::Log;
use super::segment::Segment;
use crate::LogError;
use ottla_proto::Offset;

impl Log {
    /// Makes everything appended before the call durable, and returns the
    /// offset below which all is. Appends go on meanwhile. Callers share: those
    /// who come while an fdatasync runs are all served by the next one.
    ///
    /// # Errors
    /// `Io` when the fdatasync fails: what was not synced before may be lost,
    /// and the log is offline from then on (a failed fdatasync is not retried,
    /// its pages may be gone). `Offline` afterwards.
    pub fn sync(&self) -> Result<Offset, LogError> {
        let (wanted, generation) = {
            let state = self.state.read();
            state.check_online()?;
            if state.synced == state.end {
                return Ok(state.synced);
            }
            (state.end, state.generation)
        };
        let _gate = self.gate.lock();
        let (segment, end) = {
            let state = self.state.read();
            state.check_online()?;
            // Served by whoever held the gate, unless a truncation made the
            // offsets mean something else.
            let served = state.generation == generation && state.synced >= wanted;
            if served || state.synced == state.end {
                return Ok(state.synced);
            }
            // Earlier segments were synced when they were finished.
            (state.active().segment.clone(), state.end)
        };
        self.sync_file(&segment)?;
        if let Err(error) = segment.index.lock().flush_if_due(&*self.vfs) {
            tracing::warn!(path = %segment.path.display(), %error, "index not written");
        }
        let mut state = self.state.write();
        assert!(state.synced <= end && end <= state.end, "the gate keeps truncations out");
        state.synced = end;
        Ok(end)
    }

    /// The caller holds the gate. Any failure is final.
    pub(super) fn sync_file(&self, segment: &Segment) -> Result<(), LogError> {
        segment.file.sync_data().map_err(|source| {
            let (operation, path) = ("fdatasync", segment.path.clone());
            self.offline(LogError::Io { operation, path, source })
        })
    }
}
