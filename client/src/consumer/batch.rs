//! What one answer brings: checked, and cut to what was asked for.

use crate::ClientError;
use bytes::Bytes;
use ottla_commitlog::format::{FormatError, Record, batch_headers, decode_records};

/// Committed records of one partition, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// The partition.
    pub partition: u32,
    /// The records. May be empty, when an answer only told how far the log is
    /// committed.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next_offset: u64,
    /// Records below it are committed.
    pub high_watermark: u64,
    /// The first offset that is still there.
    pub log_start_offset: u64,
}

/// An answer to a fetch, or a message of a consume stream.
pub(super) struct Answer {
    pub(super) batches: Bytes,
    pub(super) next_offset: u64,
    pub(super) high_watermark: u64,
    pub(super) log_start_offset: u64,
}

/// How much an answer took of the reader's credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Credit {
    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

impl Answer {
    /// The records from `position` on and below `until`. Batches are handed
    /// out whole, so the first may begin before what was asked for.
    pub(super) fn read(
        self,
        partition: u32,
        position: u64,
        until: Option<u64>,
    ) -> Result<(ReadBatch, Credit), ClientError> {
        if self.next_offset < position {
            return Err(ClientError::UnexpectedAnswer(format!(
                "asked for offset {position}, sent on to {}",
                self.next_offset
            )));
        }
        let mut credit = Credit { records: 0, bytes: self.batches.len() as u64 };
        let mut records = Vec::new();
        let mut expected = None;
        let unreadable = |error: FormatError| ClientError::UnexpectedAnswer(error.to_string());
        for found in batch_headers(&self.batches) {
            let (header, range) = found.map_err(unreadable)?;
            credit.records += u64::from(header.record_count);
            if header.is_control() {
                // Markers of transactions: no record that anybody wrote.
                continue;
            }
            for record in decode_records(&self.batches.slice(range)) {
                let record = record.map_err(unreadable)?;
                if expected.is_some_and(|expected| record.offset < expected)
                    || record.offset >= self.next_offset
                {
                    return Err(ClientError::UnexpectedAnswer(format!(
                        "record {} out of order, before {}",
                        record.offset, self.next_offset
                    )));
                }
                expected = Some(record.offset + 1);
                if record.offset >= position && until.is_none_or(|until| record.offset < until) {
                    records.push(record);
                }
            }
        }
        let batch = ReadBatch {
            partition,
            records,
            next_offset: self.next_offset,
            high_watermark: self.high_watermark,
            log_start_offset: self.log_start_offset,
        };
        Ok((batch, credit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::batch_at;
    use bytes::BytesMut;
    use ottla_commitlog::format::{
        EndTxnMarker, Placeholder, TimestampType, TxnOutcome, encode_marker, encode_placeholder,
    };
    use ottla_proto::LeaderEpoch;

    fn answer(batches: Vec<Bytes>, next_offset: u64) -> Answer {
        let batches = Bytes::from(batches.concat());
        Answer { batches, next_offset, high_watermark: next_offset, log_start_offset: 0 }
    }

    fn offsets(batch: &ReadBatch) -> Vec<u64> {
        batch.records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn whole_batches_are_cut_to_what_was_asked_for() {
        let batches = vec![batch_at(10, &["a", "b", "c"]), batch_at(13, &["d", "e"])];
        let (batch, credit) = answer(batches, 15).read(0, 11, Some(14)).expect("good");
        assert_eq!(offsets(&batch), [11, 12, 13]);
        assert_eq!(credit.records, 5, "credit is for what was sent, not for what is kept");
    }

    /// Compaction leaves placeholders, and the end of a transaction a marker:
    /// reading goes on behind them, and they take credit as the node counts it.
    #[test]
    fn placeholders_and_markers_are_passed_over() {
        let marker = EndTxnMarker { kind: TxnOutcome::Commit, coordinator_epoch: 1 };
        let mut marker = BytesMut::from(&encode_marker(&marker, 7, 0, 0)[..]);
        marker[..8].copy_from_slice(&20_u64.to_be_bytes());
        let gone = encode_placeholder(&Placeholder {
            base_offset: 10,
            last_offset: 19,
            leader_epoch: LeaderEpoch(0),
            max_timestamp_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            producer: None,
            transactional: false,
            control: false,
        });
        let batches = vec![gone.freeze(), marker.freeze()];
        let (batch, credit) = answer(batches.clone(), 21).read(0, 12, None).expect("good");
        assert_eq!((offsets(&batch), batch.next_offset), (vec![], 21));
        assert_eq!(credit.records, 1);
        let batches = [batches, vec![batch_at(21, &["a"])]].concat();
        let (batch, credit) = answer(batches, 22).read(0, 12, None).expect("good");
        assert_eq!((offsets(&batch), credit.records), (vec![21], 2));
    }

    #[test]
    fn going_back_or_out_of_order_is_an_error() {
        assert!(answer(vec![], 9).read(0, 10, None).is_err());
        let swapped = vec![batch_at(2, &["c"]), batch_at(0, &["a", "b"])];
        assert!(answer(swapped, 3).read(0, 0, None).is_err());
        assert!(answer(vec![batch_at(0, &["a", "b"])], 1).read(0, 0, None).is_err());
    }

    #[test]
    fn bytes_that_are_no_batch_are_an_error() {
        let mut bytes = batch_at(0, &["a"]).to_vec();
        bytes.truncate(bytes.len() - 1);
        assert!(answer(vec![bytes.into()], 1).read(0, 0, None).is_err());
    }
}
