//! An entry of Kafka's `.txnindex`: a transaction that was aborted.

use ottla_proto::Offset;

/// Bytes of an entry: version (i16, 0), producer id, first offset, last offset,
/// last stable offset (i64 each), big-endian.
pub(crate) const ABORTED_TXN_LEN: usize = 34;

/// A transaction whose records must not be shown to readers of committed
/// transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Whose.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Offset of the marker that aborted it.
    pub last_offset: Offset,
    /// No transaction aborted later has begun below.
    pub last_stable_offset: Offset,
}

impl AbortedTxn {
    /// Whether a reader of `from..upper` meets records of it.
    #[must_use]
    pub fn touches(&self, from: Offset, upper: Offset) -> bool {
        self.last_offset >= from && self.first_offset < upper
    }

    pub(crate) fn encode(&self) -> [u8; ABORTED_TXN_LEN] {
        let mut bytes = [0; ABORTED_TXN_LEN];
        bytes[2..10].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.first_offset.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.last_offset.to_be_bytes());
        bytes[26..].copy_from_slice(&self.last_stable_offset.to_be_bytes());
        bytes
    }

    /// `None` for what cannot be an entry.
    pub(crate) fn decode(bytes: &[u8; ABORTED_TXN_LEN]) -> Option<Self> {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(number)
        };
        let entry = Self {
            producer_id: i64::try_from(number(2)).ok()?,
            first_offset: number(10),
            last_offset: number(18),
            last_stable_offset: number(26),
        };
        let possible = entry.first_offset < entry.last_offset
            && entry.last_offset < crate::MAX_OFFSET
            && entry.last_stable_offset <= entry.last_offset + 1;
        (bytes[..2] == [0, 0] && possible).then_some(entry)
    }
}
