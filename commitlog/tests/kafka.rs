//! The batches are Kafka's: what others write is read here, and the other way
//! round. `kafka_reads_us.py` beside this file does the latter with a Python
//! client on a whole segment.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use ottla_commitlog::format::{
    BatchOptions, Compression, EndTxnMarker, NewRecord, ProducerSequence, Record, RecordHeader,
    TxnOutcome, ValidBatch, check_batch, decode_records, encode_batch, encode_marker,
};
use std::path::Path;

const CODECS: [(Compression, theirs::Compression, &str); 5] = [
    (Compression::None, theirs::Compression::None, "none"),
    (Compression::Gzip, theirs::Compression::Gzip, "gzip"),
    (Compression::Snappy, theirs::Compression::Snappy, "snappy"),
    (Compression::Lz4, theirs::Compression::Lz4, "lz4"),
    (Compression::Zstd, theirs::Compression::Zstd, "zstd"),
];

const PRODUCER: ProducerSequence = ProducerSequence { id: 4711, epoch: 2, base_sequence: 77 };

fn header(name: &'static str, value: Option<&'static str>) -> RecordHeader {
    RecordHeader { name: name.into(), value: value.map(Bytes::from) }
}

/// The records of `fixtures/make.py`.
fn records() -> Vec<NewRecord> {
    let record = |timestamp_ms: i64, key: Option<&'static str>, value: Option<&'static str>| {
        let (key, value) = (key.map(Bytes::from), value.map(Bytes::from));
        NewRecord {
            key,
            value,
            headers: Vec::new(),
            timestamp_ms: 1_700_000_000_000 + timestamp_ms,
        }
    };
    let mut records = vec![
        record(0, Some("key"), Some("value")),
        record(100, None, Some("")),
        record(50, Some(""), None),
        record(0, None, None),
    ];
    records[0].headers = vec![
        header("h", Some("v")),
        header("h", Some("again")),
        header("null", None),
        header("", Some("")),
    ];
    records.extend((0..64).map(|n| NewRecord {
        key: Some(format!("k{n}").into()),
        value: Some("a line that repeats ".repeat(n).into()),
        headers: Vec::new(),
        timestamp_ms: 1_700_000_001_000 + n as i64,
    }));
    records
}

fn decode(batch: &Bytes) -> Vec<NewRecord> {
    let decoded: Vec<Record> = decode_records(batch).collect::<Result<_, _>>().expect("decodes");
    (0..)
        .zip(decoded)
        .map(|(offset, record)| {
            assert_eq!(record.offset, offset);
            let Record { key, value, headers, timestamp_ms, .. } = record;
            NewRecord { key, value, headers, timestamp_ms }
        })
        .collect()
}

/// A leader takes the batch, and a reader gets its records.
fn read(batch: &Bytes) -> Vec<NewRecord> {
    ValidBatch::new(batch.clone(), 1 << 20).expect("a leader takes it");
    decode(batch)
}

fn fixture(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.batch"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

#[test]
fn what_kafka_python_writes_is_read() {
    for (compression, _, name) in CODECS {
        let batch = fixture(name);
        assert_eq!(check_batch(&batch).expect("good").compression(), Ok(compression));
        assert_eq!(read(&batch), records(), "{name}");
    }
    assert_eq!(read(&fixture("snappy-bare")), records());
    let batch = fixture("transactional");
    let header = check_batch(&batch).expect("good");
    let sequence = ProducerSequence { base_sequence: 2_147_483_600, ..PRODUCER };
    assert_eq!((header.producer(), header.is_transactional()), (Some(sequence), true));
    assert_eq!(read(&batch), records());
}

/// The same records give the same bytes, where no compressor has a say.
#[test]
fn the_bytes_are_kafka_pythons() {
    let plain = encode_batch(&records(), &BatchOptions::default()).expect("encodes");
    assert_eq!(plain, fixture("none"));
    let options = BatchOptions {
        producer: Some(ProducerSequence { base_sequence: 2_147_483_600, ..PRODUCER }),
        transactional: true,
        ..BatchOptions::default()
    };
    assert_eq!(encode_batch(&records(), &options).expect("encodes"), fixture("transactional"));
}

/// `kafka-protocol` keeps headers in a map: one of each name.
fn without_repeated_headers() -> Vec<NewRecord> {
    let mut records = records();
    records[0].headers.remove(0);
    records
}

fn to_theirs(
    (offset, record): (i64, &NewRecord),
    producer: Option<ProducerSequence>,
) -> theirs::Record {
    let name = |name: &Bytes| StrBytes::try_from(name.clone()).expect("UTF-8");
    theirs::Record {
        transactional: producer.is_some(),
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: producer.map_or(-1, |producer| producer.id),
        producer_epoch: producer.map_or(-1, |producer| producer.epoch),
        timestamp_type: theirs::TimestampType::Creation,
        offset,
        // Records of one batch count on, with a producer or without.
        sequence: producer.map_or(-1, |producer| producer.base_sequence) + offset as i32,
        timestamp: record.timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record
            .headers
            .iter()
            .map(|header| (name(&header.name), header.value.clone()))
            .collect::<IndexMap<_, _>>(),
    }
}

#[test]
fn what_kafka_protocol_writes_is_read() {
    let records = without_repeated_headers();
    for (compression, theirs, name) in CODECS {
        for producer in [None, Some(PRODUCER)] {
            let set: Vec<theirs::Record> =
                (0..).zip(&records).map(|record| to_theirs(record, producer)).collect();
            let options = theirs::RecordEncodeOptions { version: 2, compression: theirs };
            let mut batch = BytesMut::new();
            theirs::RecordBatchEncoder::encode(&mut batch, &set, &options).expect("encodes");
            let batch = batch.freeze();
            let header = check_batch(&batch).expect("good");
            assert_eq!(header.compression(), Ok(compression));
            assert_eq!(
                (header.producer(), header.is_transactional()),
                (producer, producer.is_some())
            );
            assert_eq!(read(&batch), records, "{name}");
        }
    }
}

#[test]
fn kafka_protocol_reads_what_is_written_here() {
    let records = without_repeated_headers();
    for (compression, theirs, name) in CODECS {
        for producer in [None, Some(PRODUCER)] {
            let options = BatchOptions { compression, producer, transactional: producer.is_some() };
            let mut batch = encode_batch(&records, &options).expect("encodes").freeze();
            let set = theirs::RecordBatchDecoder::decode(&mut batch)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!(set.compression, theirs, "{name}");
            let expected: Vec<theirs::Record> =
                (0..).zip(&records).map(|record| to_theirs(record, producer)).collect();
            assert_eq!(set.records.len(), expected.len());
            for (read, expected) in set.records.iter().zip(&expected) {
                assert_eq!(read.headers, expected.headers);
                assert_eq!((&read.key, &read.value), (&expected.key, &expected.value));
                assert_eq!((read.offset, read.timestamp), (expected.offset, expected.timestamp));
                assert_eq!(read.producer_id, expected.producer_id);
                assert_eq!(read.producer_epoch, expected.producer_epoch);
                assert_eq!(read.transactional, producer.is_some());
            }
        }
    }
}

#[test]
fn kafka_protocol_reads_markers() {
    for (kind, code) in [(TxnOutcome::Abort, 0), (TxnOutcome::Commit, 1)] {
        let marker = EndTxnMarker { kind, coordinator_epoch: 9 };
        let mut batch = encode_marker(&marker, 4711, 2, 1000).freeze();
        let set = theirs::RecordBatchDecoder::decode(&mut batch).expect("decodes");
        let [record] = &set.records[..] else { panic!("one record") };
        assert!(record.control && record.transactional);
        assert_eq!((record.producer_id, record.producer_epoch), (4711, 2));
        assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, code][..]));
        assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 9][..]));
    }
}
