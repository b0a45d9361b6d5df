//! How large a proposal may be: what one entry of the metadata log takes.

use super::log_files::MAX_ENTRY_BYTES;
use crate::records::MetadataRecord;

/// Encoded bytes that one proposal may have: what a log entry may, less its
/// envelope. A single command beyond that is refused.
pub(super) const PROPOSAL_BYTES: usize = MAX_ENTRY_BYTES - 64 * 1024;

/// Bytes before a record in a proposal, at most.
const LENGTH_BYTES: usize = 5;

/// What records take in a proposal.
pub(super) fn encoded_bytes(records: &[MetadataRecord]) -> usize {
    records.iter().map(|record| record.encode().len() + LENGTH_BYTES).sum()
}

/// Whether one entry takes them.
pub(super) fn fits(records: &[MetadataRecord]) -> bool {
    encoded_bytes(records) <= PROPOSAL_BYTES
}
