//! Timestamps of a segment: which is the first, which the largest, and where to
//! look for one. The time index answers, once its batches agreed.
//!
//! Not its job: records. A batch is as old as its largest timestamp says.

use super::index::TimeEntry;
use super::segment::Segment;
use super::walk::{LOOKUP_CHUNK_BYTES, Walker};
use crate::LogError;
use crate::vfs::Vfs;
use ottla_proto::Offset;

impl Segment {
    /// Largest timestamp of the first batch; `None` for an empty segment.
    pub(super) fn first_timestamp(&self, size: u64) -> Result<Option<i64>, LogError> {
        if size == 0 {
            return Ok(None);
        }
        let known = self.index.lock().first_timestamp();
        if known.is_some() {
            return Ok(known);
        }
        let first = self.walk(0, size, LOOKUP_CHUNK_BYTES).peek()?;
        if let Some(header) = &first {
            self.index.lock().set_first_timestamp(header.max_timestamp);
        }
        Ok(first.map(|header| header.max_timestamp))
    }

    /// Largest timestamp of the segment's batches, ms; `None` if none has any.
    /// Found out once, from the end of the time index, then remembered.
    pub(super) fn largest_timestamp(
        &self,
        vfs: &dyn Vfs,
        size: u64,
        interval: u32,
    ) -> Result<Option<i64>, LogError> {
        let (known, last) = {
            let mut index = self.index.lock();
            (index.largest(), index.last_time(vfs))
        };
        if let Some(known) = known {
            return Ok(known.map(|entry| entry.timestamp));
        }
        if let Ok(Some(last)) = last
            && self.agrees(vfs, last, size, interval)?
            && !self.ends_later(vfs, last.timestamp, size, interval)?
        {
            self.index.lock().believe_largest(last);
            return Ok(Some(last.timestamp));
        }
        let mut index = self.index.lock();
        if index.largest().is_none() {
            self.rebuild(vfs, &mut index, size, interval)?;
        }
        Ok(index.largest().flatten().map(|entry| entry.timestamp))
    }

    /// Whether one of the last batches, from the last entry of the offset index on,
    /// has a larger timestamp: then the time index lacks its end. Where timestamps
    /// ascend that finds every lack.
    fn ends_later(
        &self,
        vfs: &dyn Vfs,
        timestamp: i64,
        size: u64,
        interval: u32,
    ) -> Result<bool, LogError> {
        let look = || {
            let mut walker = self.walk_near(vfs, Offset::MAX, size, interval)?;
            while let Some((header, _)) = walker.next_header()? {
                if header.max_timestamp > timestamp {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        match look() {
            // Whoever reads what is damaged is told.
            Err(LogError::Corrupt { .. }) => Ok(false),
            found => found,
        }
    }

    /// A walk that begins behind everything older than `timestamp`, and not
    /// before the batch that holds `start`.
    pub(super) fn walk_near_timestamp(
        &self,
        vfs: &dyn Vfs,
        timestamp: i64,
        start: Offset,
        size: u64,
        interval: u32,
    ) -> Result<Walker<'_>, LogError> {
        let found = self.index.lock().floor_time(vfs, timestamp);
        let entry = match found {
            Ok(None) => None,
            Ok(Some(entry)) if self.agrees(vfs, entry, size, interval)? => Some(entry),
            _ => {
                let mut index = self.index.lock();
                self.rebuild(vfs, &mut index, size, interval)?;
                index.floor_time(vfs, timestamp).ok().flatten()
            }
        };
        let behind = entry.map_or(self.base, |entry| self.base + u64::from(entry.relative) + 1);
        self.walk_near(vfs, behind.max(start), size, interval)
    }

    /// Whether the batch that an entry of the time index points to agrees.
    pub(super) fn agrees(
        &self,
        vfs: &dyn Vfs,
        entry: TimeEntry,
        size: u64,
        interval: u32,
    ) -> Result<bool, LogError> {
        let last = self.base + u64::from(entry.relative);
        let found = self.locate(vfs, last, size, interval)?;
        Ok(found.is_some_and(|(header, _)| {
            header.last_offset() == last && header.max_timestamp == entry.timestamp
        }))
    }
}
