//! Writes a log into the directory given, with everything that a batch can have,
//! and prints what it holds as JSON: for `tests/kafka_reads_us.py`.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use bytes::Bytes;
use ottla_commitlog::format::{
    BatchHeader, BatchOptions, Compression, EndTxnMarker, NewRecord, Placeholder, ProducerSequence,
    Record, RecordHeader, TimestampType, TxnOutcome, ValidBatch, batch_headers, decode_records,
    encode_batch, encode_kept, encode_marker, encode_placeholder,
};
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use ottla_proto::LeaderEpoch;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const PRODUCER: ProducerSequence = ProducerSequence { id: 4711, epoch: 2, base_sequence: 0 };

const NOW: i64 = 1_800_000_000_000;

fn records(count: usize) -> Vec<NewRecord> {
    let header = |name: &'static str, value: Option<&'static str>| RecordHeader {
        name: name.into(),
        value: value.map(Bytes::from),
    };
    let mut records: Vec<NewRecord> = (0..count)
        .map(|n| NewRecord {
            key: (n % 3 != 0).then(|| "key ".repeat(n % 3 - 1).into()),
            value: (n % 4 != 1).then(|| "a line that repeats ".repeat(n % 4).into()),
            headers: Vec::new(),
            timestamp_ms: 1_700_000_000_000 + (n as i64 * 37) % 50,
        })
        .collect();
    records[0].headers = vec![
        header("h", Some("v")),
        header("h", Some("again")),
        header("null", None),
        header("", Some("")),
    ];
    records
}

fn hex(bytes: Option<&Bytes>) -> Value {
    bytes.map_or(Value::Null, |bytes| {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    })
}

/// What a reader must find in a batch.
fn expected(header: &BatchHeader, records: &[Record]) -> Value {
    let records: Vec<Value> = records
        .iter()
        .map(|record| {
            let headers: Vec<Value> = record
                .headers
                .iter()
                .map(|header| json!([hex(Some(&header.name)), hex(header.value.as_ref())]))
                .collect();
            json!({
                "offset": record.offset,
                "timestamp": record.timestamp_ms,
                "key": hex(record.key.as_ref()),
                "value": hex(record.value.as_ref()),
                "headers": headers,
            })
        })
        .collect();
    let producer = header.producer();
    json!({
        "base_offset": header.base_offset,
        "next_offset": header.next_offset(),
        "leader_epoch": header.leader_epoch.0,
        "codec": header.compression().expect("own batch") as i32,
        "timestamp_type": (header.timestamp_type() == TimestampType::LogAppendTime) as i32,
        "transactional": header.is_transactional(),
        "control": header.is_control(),
        "producer_id": producer.map_or(-1, |producer| producer.id),
        "producer_epoch": producer.map_or(-1, |producer| producer.epoch),
        "records": records,
    })
}

/// The batches that a leader is given, each with the records a reader must get.
fn batches() -> Vec<(ValidBatch, Vec<NewRecord>)> {
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    let mut batches = Vec::new();
    let mut sequence = 0;
    for compression in [None, Gzip, Snappy, Lz4, Zstd] {
        for transactional in [false, true] {
            let records = records(40);
            let producer = ProducerSequence { base_sequence: sequence, ..PRODUCER };
            let producer = transactional.then_some(producer);
            sequence += if transactional { 40 } else { 0 };
            let options = BatchOptions { compression, producer, transactional };
            let bytes = encode_batch(&records, &options).expect("encodes");
            batches.push((ValidBatch::new(bytes, 1 << 20).expect("valid"), records));
        }
    }
    let (mut stamped, mut records) = batches[2].clone();
    stamped.set_append_time(NOW);
    records.iter_mut().for_each(|record| record.timestamp_ms = NOW);
    batches.push((stamped, records));
    for kind in [TxnOutcome::Commit, TxnOutcome::Abort] {
        let marker = EndTxnMarker { kind, coordinator_epoch: 9 };
        let bytes = encode_marker(&marker, PRODUCER.id, PRODUCER.epoch, 1_700_000_000_500);
        let code = u8::from(kind == TxnOutcome::Commit);
        let record = NewRecord {
            key: Some(vec![0, 0, 0, code].into()),
            value: Some(vec![0, 0, 0, 0, 0, 9].into()),
            headers: Vec::new(),
            timestamp_ms: 1_700_000_000_500,
        };
        batches.push((ValidBatch::marker(bytes).expect("a marker"), vec![record]));
    }
    batches
}

fn placed(base: u64, records: Vec<NewRecord>) -> Vec<Record> {
    (base..)
        .zip(records)
        .map(|(offset, NewRecord { key, value, headers, timestamp_ms })| Record {
            offset,
            timestamp_ms,
            key,
            value,
            headers,
        })
        .collect()
}

/// What compaction makes of the fifth and of the sixth batch: every other record
/// with a delete horizon, and nothing.
fn compacted(index: usize, header: &BatchHeader, records: &mut Vec<Record>) -> Option<Bytes> {
    match index {
        4 => {
            records.retain(|record| record.offset % 2 == 1);
            Some(encode_kept(header, records, Some(NOW)).expect("encodes").freeze())
        }
        5 => {
            records.clear();
            Some(
                encode_placeholder(&Placeholder {
                    base_offset: header.base_offset,
                    last_offset: header.last_offset(),
                    leader_epoch: header.leader_epoch,
                    max_timestamp_ms: header.max_timestamp,
                    timestamp_type: header.timestamp_type(),
                    producer: header.producer(),
                    transactional: header.is_transactional(),
                    control: false,
                })
                .freeze(),
            )
        }
        _ => None,
    }
}

fn main() {
    let dir = std::env::args().nth(1).expect("the directory to write to");
    let shared = Shared::new(Arc::new(RealVfs));
    let open = |name: &str| {
        // One segment, though the timestamps are years apart.
        let config = LogConfig { segment_ms: u64::MAX, ..LogConfig::default() };
        Log::open(&shared, &Path::new(&dir).join(name), config, OpenMode::Recover).expect("opens").0
    };
    let (given, meant): (Vec<_>, Vec<_>) = batches().into_iter().unzip();
    let leader = open("leader");
    let end = leader.append_as_leader(given, LeaderEpoch(3), NOW).expect("appends").end_offset;
    let bytes = leader.read(0, end, 1 << 20).expect("reads");
    let follower = open("follower");
    let mut lines = Vec::new();
    for (index, (found, meant)) in batch_headers(&bytes).zip(meant).enumerate() {
        let (header, range) = found.expect("whole");
        let mut records = placed(header.base_offset, meant);
        let batch = compacted(index, &header, &mut records).unwrap_or_else(|| bytes.slice(range));
        assert!(decode_records(&batch).all(|record| record.is_ok()));
        let header = BatchHeader::parse(&batch).expect("whole");
        lines.push(expected(&header, &records));
        follower.append_as_follower(batch).expect("appends");
    }
    follower.sync().expect("syncs");
    println!("{}", Value::from(lines));
}
