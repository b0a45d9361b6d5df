//! What only nodes write: markers, append time, placeholders, what compaction
//! left of a batch.

use super::*;
use ottla_proto::MAX_BATCH_BYTES;

const PRODUCER: ProducerSequence = ProducerSequence { id: 7, epoch: 3, base_sequence: 40 };

fn decode(batch: &Bytes) -> Vec<Record> {
    decode_records(batch).collect::<Result<_, _>>().expect("decodes")
}

fn header(batch: &[u8]) -> BatchHeader {
    check_batch(batch).expect("a good batch")
}

/// Four records at offsets 100 to 103.
fn stored(compression: Compression) -> Bytes {
    let records: Vec<NewRecord> =
        (0..4).map(|n| record(Some("key"), Some("value"), 1000 + n)).collect();
    let options = BatchOptions { compression, producer: Some(PRODUCER), transactional: true };
    let mut batch =
        ValidBatch::new(encode_batch(&records, &options).expect("encodes"), LIMIT).expect("valid");
    batch.stamp(100, LeaderEpoch(5));
    Bytes::copy_from_slice(batch.as_bytes())
}

/// Every byte of a commit marker, from Kafka's published layout.
#[test]
fn kafkas_marker_to_the_byte() {
    let marker = EndTxnMarker { kind: TxnOutcome::Commit, coordinator_epoch: 9 };
    let batch = encode_marker(&marker, 7, 3, 1000).freeze();
    assert_eq!(batch[21..23], [0, 0x30]); // transactional, control
    assert_eq!(batch[43..51], 7i64.to_be_bytes());
    assert_eq!(batch[51..53], 3i16.to_be_bytes());
    assert_eq!(batch[53..57], (-1i32).to_be_bytes());
    // Length 16, attributes, deltas, key of 4, version, commit, value of 6, version, epoch, headers.
    let record = [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 9, 0];
    assert_eq!(batch[HEADER_LEN..], record);
    assert_eq!(decode_marker(&batch), Ok(marker));
    let valid = ValidBatch::marker(batch.clone()).expect("a marker");
    assert_eq!(valid.as_bytes(), &batch);
    assert!(matches!(ValidBatch::new(batch, LIMIT), Err(FormatError::Reserved(Reserved::Control))));
    let abort = EndTxnMarker { kind: TxnOutcome::Abort, coordinator_epoch: 0 };
    assert_eq!(decode_marker(&encode_marker(&abort, 0, 0, 0).freeze()), Ok(abort));
}

#[test]
fn what_is_no_marker_is_refused() {
    let good =
        encode_marker(&EndTxnMarker { kind: TxnOutcome::Abort, coordinator_epoch: 9 }, 7, 3, 1000);
    let refuse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut batch = good.to_vec();
        change(&mut batch);
        let batch = seal(batch).freeze();
        let error = ValidBatch::marker(batch.clone()).expect_err("must be refused");
        (error, decode_marker(&batch))
    };
    // Bytes 66 to 69 are the key, 71 to 76 the value.
    for change in [(69, 2), (66, 0x80), (71, 0x80), (73, 0x80)] {
        let (error, decoded) = refuse(&|batch| batch[change.0] = change.1);
        assert!(matches!(error, FormatError::NotMarker(_)), "{change:?}: {error}");
        assert_eq!(decoded, Err(error));
    }
    let data = decode_marker(&stored(Compression::None));
    assert_eq!(data, Err(FormatError::NotMarker("the batch is not a control batch")));
    let (error, _) = refuse(&|batch| batch[22] = 0x20);
    assert_eq!(error, FormatError::NotMarker("the batch is not transactional"));
    let (error, _) = refuse(&|batch| {
        batch[61] = 30; // a record of 15 bytes, its value of 5
        batch[70] = 10;
        batch.remove(76);
    });
    assert_eq!(error, FormatError::NotMarker("the record is too short"));
    let (error, _) = refuse(&|batch| {
        batch.truncate(HEADER_LEN);
        batch[60] = 0;
    });
    assert_eq!(error, FormatError::NotMarker("the batch has no record"));
    // Fields that a later version adds are passed over.
    let mut later = good.to_vec();
    later[61] += 2;
    later[70] += 2;
    later[72] = 1;
    later.insert(77, 0xee);
    assert!(decode_marker(&seal(later).freeze()).is_ok());
}

/// All records of an append-time batch have the time of the append.
#[test]
fn append_time_is_that_of_all_records() {
    let mut batch = ValidBatch::new(BytesMut::from(&golden()[..]), LIMIT).expect("valid");
    batch.set_append_time(1_800_000_000_000);
    let bytes = Bytes::copy_from_slice(batch.as_bytes());
    assert_eq!(header(&bytes), *batch.header());
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(bytes[HEADER_LEN..], golden()[HEADER_LEN..]);
    assert!(decode(&bytes).iter().all(|record| record.timestamp_ms == 1_800_000_000_000));
}

/// As Kafka's `DefaultRecordBatch.writeEmptyHeader`.
#[test]
fn a_placeholder_has_a_place_and_nothing_else() {
    let placeholder = Placeholder {
        base_offset: 100,
        last_offset: 103,
        leader_epoch: LeaderEpoch(5),
        max_timestamp_ms: 1003,
        timestamp_type: TimestampType::CreateTime,
        producer: Some(PRODUCER),
        transactional: true,
        control: false,
    };
    let bytes = encode_placeholder(&placeholder).freeze();
    let header = header(&bytes);
    assert!(header.is_placeholder());
    assert_eq!((bytes.len(), header.base_offset, header.next_offset()), (HEADER_LEN, 100, 104));
    assert_eq!((header.base_timestamp, header.max_timestamp), (-1, 1003));
    assert_eq!((header.leader_epoch, header.producer()), (LeaderEpoch(5), Some(PRODUCER)));
    assert!(header.is_transactional() && !header.is_control());
    assert_eq!(decode(&bytes), []);

    let plain = Placeholder {
        last_offset: 100 + i32::MAX as u64,
        producer: None,
        transactional: false,
        timestamp_type: TimestampType::LogAppendTime,
        ..placeholder
    };
    let run = check_batch(&encode_placeholder(&plain)).expect("a good batch");
    assert_eq!((run.producer(), run.timestamp_type()), (None, TimestampType::LogAppendTime));
    let both = [bytes, stored(Compression::None), encode_placeholder(&plain).freeze()].concat();
    assert_eq!(decode(&both.into()).len(), 4, "placeholders yield nothing");
}

#[test]
fn what_is_kept_stays_where_it_was() {
    let original = stored(Compression::None);
    let before = header(&original);
    let mut records = decode(&original);
    records.retain(|record| record.offset == 101 || record.offset == 102);
    let kept = encode_kept(&before, &records, None).expect("encodes").freeze();
    assert_eq!(decode(&kept), records);
    let after = header(&kept);
    let expected = BatchHeader {
        batch_length: after.batch_length,
        crc: after.crc,
        base_timestamp: 1001,
        max_timestamp: 1002,
        record_count: 2,
        ..before
    };
    assert_eq!(after, expected);

    // The horizon takes the place of the base timestamp, and stays.
    let marked = encode_kept(&before, &records, Some(5_000_000)).expect("encodes").freeze();
    assert_eq!(header(&marked).delete_horizon_ms(), Some(5_000_000));
    assert_eq!((decode(&marked), header(&marked).max_timestamp), (records.clone(), 1002));
    let again = encode_kept(&header(&marked), &records[1..], None).expect("encodes").freeze();
    assert_eq!(header(&again).delete_horizon_ms(), Some(5_000_000));
    assert_eq!(decode(&again), records[1..]);
}

#[test]
fn append_time_outlives_the_newest_record() {
    let mut batch = ValidBatch::new(BytesMut::from(&golden()[..]), LIMIT).expect("valid");
    batch.set_append_time(1_800_000_000_000);
    let records = decode(&Bytes::copy_from_slice(batch.as_bytes()));
    let kept = encode_kept(batch.header(), &records[..1], None).expect("encodes").freeze();
    assert_eq!(header(&kept).max_timestamp, 1_800_000_000_000);
    assert_eq!(decode(&kept), records[..1]);
}

#[test]
fn only_records_of_the_batch_are_kept() {
    let original = stored(Compression::None);
    let records = decode(&original);
    let keep = |records: &[Record]| encode_kept(&header(&original), records, None);
    assert_eq!(keep(&[]), Err(FormatError::NoRecords));
    let swapped = [records[1].clone(), records[0].clone()];
    assert!(matches!(keep(&swapped), Err(FormatError::OffsetDelta { index: 1, .. })));
    let foreign = Record { offset: 104, ..records[0].clone() };
    assert!(matches!(keep(&[foreign]), Err(FormatError::OffsetDelta { index: 0, .. })));
    let large = Record { value: Some(vec![1; MAX_BATCH_BYTES].into()), ..records[0].clone() };
    assert!(matches!(keep(&[large]), Err(FormatError::TooLarge { .. })));
}

/// Gaps are compaction's right; going back and going beyond the end are not.
#[test]
fn stored_records_may_have_gaps() {
    let mut gap = golden();
    gap[26] = 9; // last offset delta
    gap[83] = 8 * 2; // the second record's delta
    let offsets = |batch: Vec<u8>| {
        decode_records(&seal(batch).freeze())
            .map(|record| record.map(|record| record.offset))
            .collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(offsets(gap.clone()), Ok(vec![0, 8]));
    gap[83] = 10 * 2;
    assert_eq!(offsets(gap.clone()), Err(FormatError::OffsetDelta { index: 1, delta: 10 }));
    gap[83] = 0;
    assert_eq!(offsets(gap), Err(FormatError::OffsetDelta { index: 1, delta: 0 }));
}

#[test]
fn keys_are_looked_for() {
    let valid = |records: &[NewRecord]| {
        let encoded = encode_batch(records, &BatchOptions::default()).expect("encodes");
        ValidBatch::new(encoded, LIMIT).expect("valid").every_record_has_a_key()
    };
    assert!(valid(&[record(Some(""), None, 0), record(Some("k"), None, 0)]));
    assert!(!valid(&[record(Some("k"), None, 0), record(None, Some("v"), 0)]));
}

#[test]
fn producers_are_whole_or_refused() {
    let encode = |producer, transactional| {
        let options = BatchOptions { producer, transactional, ..BatchOptions::default() };
        encode_batch(&golden_records(), &options)
    };
    let batch = ValidBatch::new(encode(Some(PRODUCER), true).expect("encodes"), LIMIT);
    let header = *batch.expect("valid").header();
    assert_eq!((header.producer(), header.is_transactional()), (Some(PRODUCER), true));
    for broken in [
        ProducerSequence { id: -1, ..PRODUCER },
        ProducerSequence { epoch: -1, ..PRODUCER },
        ProducerSequence { base_sequence: -1, ..PRODUCER },
    ] {
        assert!(matches!(encode(Some(broken), false), Err(FormatError::Field { .. })));
    }
    assert!(matches!(encode(None, true), Err(FormatError::Field { .. })));
}
