//! How large a proposal may be: what one entry of the metadata log takes.

use super::log_files::MAX_ENTRY_BYTES;
use crate::records::MetadataRecord;

/// Encoded bytes that one proposal may have: what a log entry may, less its
/// envelope. What one command decides beyond that is written in several, or refused
/// (`Command::may_be_split`).
pub(crate) const PROPOSAL_BYTES: usize = MAX_ENTRY_BYTES - 64 * 1024;

/// Bytes before a record in a proposal, at most.
const LENGTH_BYTES: usize = 5;

/// What records take in a proposal.
pub(super) fn encoded_bytes(records: &[MetadataRecord]) -> usize {
    records.iter().map(|record| record.encode().len() + LENGTH_BYTES).sum()
}

/// More bytes than nearly any record has.
pub(super) const MAX_RECORD_BYTES: usize = 800;

/// Whether one entry of so many bytes takes them.
pub(super) fn fits(records: &[MetadataRecord], bytes: usize) -> bool {
    encoded_bytes(records) <= bytes
}

/// The same records in as few parts, in their order, as fit an entry of so many bytes
/// each.
pub(super) fn parts(records: Vec<MetadataRecord>, bytes: usize) -> Vec<Vec<MetadataRecord>> {
    let mut parts: Vec<Vec<MetadataRecord>> = Vec::new();
    let mut room = 0;
    for record in records {
        let size = encoded_bytes(std::slice::from_ref(&record));
        match parts.last_mut().filter(|_| size <= room) {
            Some(part) => part.push(record),
            None => {
                parts.push(vec![record]);
                room = bytes;
            }
        }
        room = room.saturating_sub(size);
    }
    parts
}
