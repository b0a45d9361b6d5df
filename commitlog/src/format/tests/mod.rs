//! The layout against bytes made by hand, and the parser against anything.

mod codecs;
mod nodes;

use super::*;
use bytes::{BufMut, BytesMut};
use ottla_proto::LeaderEpoch;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

fn record(key: Option<&'static str>, value: Option<&'static str>, timestamp_ms: i64) -> NewRecord {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    NewRecord { key: key.map(bytes), value: value.map(bytes), headers: Vec::new(), timestamp_ms }
}

fn plain(records: &[NewRecord]) -> Result<BytesMut, FormatError> {
    encode_batch(records, &BatchOptions::default())
}

/// Puts the length and the CRC of what was built by hand in their places.
fn seal(mut batch: Vec<u8>) -> BytesMut {
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    BytesMut::from(&batch[..])
}

/// A batch of two records, every byte written out from Kafka's published layout.
fn golden() -> Vec<u8> {
    let mut batch = Vec::new();
    batch.extend_from_slice(&[0; 8]); // base offset
    batch.extend_from_slice(&[0, 0, 0, 82]); // batch length: 49 + 33
    batch.extend_from_slice(&[0; 4]); // partition leader epoch
    batch.push(2); // magic
    batch.extend_from_slice(&[0; 4]); // CRC, below
    batch.extend_from_slice(&[0, 0]); // attributes
    batch.extend_from_slice(&[0, 0, 0, 1]); // last offset delta
    batch.extend_from_slice(&[0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00]); // base: 1_700_000_000_000
    batch.extend_from_slice(&[0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x64]); // max: 100 ms later
    batch.extend_from_slice(&[0xff; 8]); // producer id
    batch.extend_from_slice(&[0xff; 2]); // producer epoch
    batch.extend_from_slice(&[0xff; 4]); // base sequence
    batch.extend_from_slice(&[0, 0, 0, 2]); // records
    // Lengths are zig-zag: 17 is 34 (0x22), 14 is 28 (0x1c), 100 is 200 (0xc8 0x01), -1 is 1.
    batch.extend_from_slice(&[0x22, 0, 0, 0]); // length 17, attributes, deltas 0 and 0
    batch.extend_from_slice(b"\x02k\x06one"); // key "k", value "one"
    batch.extend_from_slice(b"\x04\x02h\x02v\x02x\x01"); // 2 headers: h = "v", x = null
    batch.extend_from_slice(&[0x1c, 0, 0xc8, 0x01, 0x02]); // length 14, timestamp +100, offset +1
    batch.push(0x01); // key null
    batch.extend_from_slice(b"\x0esecond!\x00"); // value of 7 bytes, no headers
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn golden_records() -> Vec<NewRecord> {
    let mut first = record(Some("k"), Some("one"), 1_700_000_000_000);
    first.headers = vec![
        RecordHeader { name: Bytes::from_static(b"h"), value: Some(Bytes::from_static(b"v")) },
        RecordHeader { name: Bytes::from_static(b"x"), value: None },
    ];
    vec![first, record(None, Some("second!"), 1_700_000_000_100)]
}

#[test]
fn kafkas_layout_to_the_byte() {
    let encoded = encode_batch(&golden_records(), &BatchOptions::default()).expect("encodes");
    assert_eq!(&encoded[..], &golden()[..]);
    let decoded: Vec<Record> =
        decode_records(&Bytes::from(golden())).collect::<Result<_, _>>().expect("decodes");
    assert_eq!(decoded.len(), 2);
    for (record, new) in decoded.iter().zip(golden_records()) {
        assert_eq!((&record.key, &record.value), (&new.key, &new.value));
        assert_eq!((&record.headers, record.timestamp_ms), (&new.headers, new.timestamp_ms));
    }
}

/// The CRC is the Castagnoli one: a check value from RFC 3720.
#[test]
fn crc_is_castagnoli() {
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
}

#[test]
fn stamping_leaves_the_crc_valid() {
    let mut batch = ValidBatch::new(BytesMut::from(&golden()[..]), LIMIT).expect("valid");
    batch.stamp(1 << 40, LeaderEpoch(7));
    let header = check_batch(batch.as_bytes()).expect("still valid");
    assert_eq!((header.base_offset, header.leader_epoch), (1 << 40, LeaderEpoch(7)));
    assert_eq!(header, *batch.header());
    assert_eq!((header.last_offset(), header.next_offset()), ((1 << 40) + 1, (1 << 40) + 2));
}

/// Kafka's clients know no leader epoch and say -1: nothing is wrong with that.
#[test]
fn a_batch_of_no_epoch_is_valid() {
    let mut of_kafka = golden();
    of_kafka[12..16].fill(0xff);
    assert!(check_batch(&of_kafka).is_err(), "in a log it has one");
    let mut batch = ValidBatch::new(BytesMut::from(&of_kafka[..]), LIMIT).expect("valid");
    assert_eq!(batch.header().leader_epoch, LeaderEpoch(0));
    batch.stamp(3, LeaderEpoch(7));
    let header = check_batch(batch.as_bytes()).expect("still valid");
    assert_eq!((header.base_offset, header.leader_epoch), (3, LeaderEpoch(7)));
    of_kafka[15] = 0xfe;
    let refused = ValidBatch::new(BytesMut::from(&of_kafka[..]), LIMIT).expect_err("no epoch");
    assert_eq!(refused, FormatError::Field { field: "leader epoch", value: -2 });
    assert!(ValidBatch::new(BytesMut::from(&[0xff; 16][..]), LIMIT).is_err());
}

/// Every rule of a valid batch has a batch that breaks only it.
#[test]
fn refusals_are_named() {
    let refuse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut batch = golden();
        change(&mut batch);
        ValidBatch::new(seal(batch), LIMIT).expect_err("must be refused")
    };
    use FormatError as E;
    for (bits, what) in [
        (8, E::Reserved(Reserved::LogAppendTime)),
        (64, E::Reserved(Reserved::DeleteHorizon)),
        (5, E::Field { field: "compression", value: 5 }),
        (128, E::Field { field: "attributes", value: 128 }),
        (16, E::Field { field: "producer id", value: -1 }),
        (32, E::Field { field: "producer id", value: -1 }),
    ] {
        assert_eq!(refuse(&|b| b[22] = bits), what);
    }
    assert_eq!(refuse(&|b| b[21] = 0x80), E::Field { field: "attributes", value: 0x8000 });
    let control = |b: &mut Vec<u8>| {
        b[22] = 32;
        b[43..57].fill(0); // producer 0, epoch 0, sequence 0
    };
    assert_eq!(refuse(&control), E::Reserved(Reserved::Control));
    assert_eq!(refuse(&|b| b[50] = 0xfe), E::Field { field: "producer id", value: -2 });
    assert_eq!(refuse(&|b| b[43..51].fill(0)), E::Field { field: "producer epoch", value: -1 });
    assert_eq!(refuse(&|b| b[43..53].fill(0)), E::Field { field: "base sequence", value: -1 });
    let placeholder = |b: &mut Vec<u8>| {
        b.truncate(HEADER_LEN);
        b[57..].fill(0);
    };
    assert_eq!(refuse(&placeholder), E::NoRecords);
    assert_eq!(refuse(&|b| b[60] = 0), E::Field { field: "batch length", value: 82 });
    assert_eq!(refuse(&|b| b[60] = 3), E::Field { field: "record count", value: 3 });
    assert_eq!(refuse(&|b| b[26] = 4), E::Field { field: "last offset delta", value: 4 });
    assert_eq!(refuse(&|b| b[57] = 0x80), E::Field { field: "record count", value: -2147483646 });
    assert_eq!(refuse(&|b| b[0] = 0x80), E::Field { field: "base offset", value: i64::MIN });
    assert!(matches!(refuse(&|b| b[27] = 0x80), E::Field { field: "timestamp", .. }));
    assert!(matches!(refuse(&|b| b[42] += 1), E::MaxTimestamp { .. }));
    assert_eq!(refuse(&|b| b[64] = 2), E::OffsetDelta { index: 0, delta: 1 });
    assert_eq!(refuse(&|b| b[83] = 0), E::OffsetDelta { index: 1, delta: 0 });
    assert!(matches!(refuse(&|b| b[61] = 0x24), E::RecordLength { index: 0 }));
    assert!(matches!(refuse(&|b| b[61] = 0x01), E::Field { field: "record length", .. }));
    assert!(matches!(refuse(&|b| b.push(0)), E::Trailing { extra: 1 }));
    assert!(matches!(refuse(&|b| b.truncate(90)), E::Truncated { .. }));
    // The count says one record, the bytes hold two.
    let one = refuse(&|b| {
        b[26] = 0;
        b[60] = 1;
        b[42] = 0;
    });
    assert!(matches!(one, E::Trailing { .. }), "{one:?}");

    let mut two = golden();
    two.extend(golden());
    let error = ValidBatch::new(BytesMut::from(&two[..]), LIMIT).expect_err("two batches");
    assert_eq!(error, E::Trailing { extra: golden().len() });
    let error = ValidBatch::new(BytesMut::from(&golden()[..]), 93).expect_err("too large");
    assert_eq!(error, E::TooLarge { size: 94, limit: 93 });
    let mut wrong = golden();
    wrong[92] ^= 1;
    let error = ValidBatch::new(BytesMut::from(&wrong[..]), LIMIT).expect_err("wrong CRC");
    assert!(matches!(error, E::Crc { .. }));
}

#[test]
fn encoding_refuses_what_no_batch_can_hold() {
    assert_eq!(plain(&[]), Err(FormatError::NoRecords));
    let negative = plain(&[record(None, None, -1)]);
    assert_eq!(negative, Err(FormatError::Field { field: "timestamp", value: -1 }));
    let header = RecordHeader { name: Bytes::new(), value: None };
    let many =
        NewRecord { headers: vec![header; MAX_HEADERS_PER_RECORD + 1], ..record(None, None, 0) };
    assert!(matches!(plain(&[many]), Err(FormatError::Field { .. })));
}

/// A count of headers that the bytes cannot hold asks for no memory.
#[test]
fn counts_are_not_trusted() {
    let mut body = Vec::new();
    body.extend_from_slice(&[0, 0, 0, 0x01, 0x01]); // attributes, deltas, no key, no value
    super::varint::put_varint(&mut body, i32::MAX); // headers
    let mut batch = golden()[..HEADER_LEN].to_vec();
    super::varint::put_varint(&mut batch, body.len() as i32);
    batch.extend(body);
    batch[26] = 0;
    batch[60] = 1;
    batch[42] = 0;
    let error = ValidBatch::new(seal(batch), LIMIT).expect_err("absurd");
    assert!(matches!(error, FormatError::Field { field: "header count", .. }));
}

#[test]
fn varints_at_their_limits() {
    use super::varint::{Cursor, Input, put_varint, put_varlong, varlong_len};
    for value in [0, 1, -1, 63, 64, -64, -65, i32::MAX, i32::MIN] {
        let mut out = BytesMut::new();
        put_varint(&mut out, value);
        assert_eq!(out.len(), varlong_len(value.into()));
        assert_eq!(Cursor::new(&out).varint(), Ok(value));
    }
    for value in [0, i64::MAX, i64::MIN, i64::from(i32::MAX) + 1] {
        let mut out = BytesMut::new();
        put_varlong(&mut out, value);
        assert_eq!(out.len(), varlong_len(value));
        assert_eq!(Cursor::new(&out).varlong(), Ok(value));
    }
    let mut long = BytesMut::new();
    put_varlong(&mut long, i64::from(i32::MAX) + 1);
    assert_eq!(Cursor::new(&long).varint(), Err(FormatError::Varint));
    assert_eq!(Cursor::new(&[0xff; 11]).varlong(), Err(FormatError::Varint));
    assert!(Cursor::new(&[0x80]).varint().is_err());
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn new_record() -> impl Strategy<Value = NewRecord> {
    let optional = || prop::option::of(bytes(40));
    let header = (bytes(8), optional()).prop_map(|(name, value)| RecordHeader { name, value });
    let timestamp = prop_oneof![0..1000i64, 0..=i64::MAX];
    (optional(), optional(), prop::collection::vec(header, 0..3), timestamp).prop_map(
        |(key, value, headers, timestamp_ms)| NewRecord { key, value, headers, timestamp_ms },
    )
}

fn compression() -> impl Strategy<Value = Compression> {
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    prop::sample::select(vec![None, Gzip, Snappy, Lz4, Zstd])
}

fn options() -> impl Strategy<Value = BatchOptions> {
    let producer = (0..=i64::MAX, 0..=i16::MAX, 0..=i32::MAX)
        .prop_map(|(id, epoch, base_sequence)| ProducerSequence { id, epoch, base_sequence });
    (compression(), prop::option::of(producer), any::<bool>()).prop_map(
        |(compression, producer, transactional)| BatchOptions {
            compression,
            producer,
            transactional: transactional && producer.is_some(),
        },
    )
}

fn batches() -> impl Strategy<Value = Vec<Vec<NewRecord>>> {
    prop::collection::vec(prop::collection::vec(new_record(), 1..6), 1..4)
}

proptest! {
    #[test]
    fn round_trip(batches in batches(), options in options()) {
        let mut all = BytesMut::new();
        let mut next = 0;
        for records in &batches {
            let encoded = encode_batch(records, &options).expect("encodes");
            prop_assert!(encoded.len() <= encoded_len_bound(records));
            let mut valid = ValidBatch::new(encoded, LIMIT).expect("own batches are valid");
            prop_assert_eq!(valid.header().producer(), options.producer);
            prop_assert_eq!(valid.header().is_transactional(), options.transactional);
            let keyed = records.iter().all(|record| record.key.is_some());
            prop_assert_eq!(valid.every_record_has_a_key(), keyed);
            valid.stamp(next, LeaderEpoch(1));
            next = valid.header().next_offset();
            all.put_slice(valid.as_bytes());
        }
        let all = all.freeze();
        prop_assert_eq!(batch_headers(&all).filter(Result::is_ok).count(), batches.len());
        let decoded: Vec<Record> = decode_records(&all).collect::<Result<_, _>>().expect("decodes");
        let flat: Vec<NewRecord> = batches.concat();
        prop_assert_eq!(decoded.len(), flat.len());
        for ((index, record), new) in (0..).zip(decoded).zip(flat) {
            let Record { offset, timestamp_ms, key, value, headers } = record;
            prop_assert_eq!(offset, index);
            prop_assert_eq!(NewRecord { key, value, headers, timestamp_ms }, new);
        }
    }

    /// Nothing covered by the CRC, and none of the lengths, can change unseen.
    #[test]
    fn a_changed_byte_is_refused(
        records in prop::collection::vec(new_record(), 1..6),
        options in options(),
        at in any::<prop::sample::Index>(),
        xor in 1..=255u8,
    ) {
        let mut batch = encode_batch(&records, &options).expect("encodes");
        let at = at.index(batch.len());
        batch[at] ^= xor;
        let stamped_anew = at < 8 || (12..16).contains(&at);
        let taken = ValidBatch::new(batch.clone(), LIMIT);
        if !stamped_anew {
            prop_assert!(taken.is_err());
            prop_assert!(decode_records(&batch.freeze()).any(|record| record.is_err()));
        }
    }

    #[test]
    fn truncated_input_is_refused(
        records in prop::collection::vec(new_record(), 1..6),
        at in any::<prop::sample::Index>(),
    ) {
        let batch = plain(&records).expect("encodes").freeze();
        let cut = batch.slice(..at.index(batch.len()));
        prop_assert!(ValidBatch::new(cut.clone(), LIMIT).is_err());
        prop_assert!(cut.is_empty() || decode_records(&cut).any(|record| record.is_err()));
        prop_assert!(cut.is_empty() || batch_headers(&cut).any(|header| header.is_err()));
    }

    /// Records of any bytes under a right CRC: an error or records, no panic,
    /// and what is taken as valid decodes to what its header says.
    #[test]
    fn any_bytes_are_survived(
        records in prop::collection::vec(new_record(), 1..3),
        options in options(),
        junk in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut batch = encode_batch(&records, &options).expect("encodes").to_vec();
        for (at, byte) in junk {
            let at = at.index(batch.len());
            batch[at] = byte;
        }
        let batch = seal(batch).freeze();
        let decoded: Result<Vec<Record>, FormatError> = decode_records(&batch).collect();
        if let Ok(valid) = ValidBatch::new(batch, LIMIT) {
            let decoded = decoded.expect("a valid batch decodes");
            prop_assert_eq!(decoded.len(), valid.header().record_count as usize);
        }
    }

    #[test]
    fn noise_is_survived(noise in bytes(300)) {
        let _ = ValidBatch::new(noise.clone(), LIMIT);
        let _ = decode_records(&noise).count();
        prop_assert!(batch_headers(&noise).count() <= noise.len());
    }
}
