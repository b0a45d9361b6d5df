//! Compression: what is written, what is taken, and what it may cost.

use super::*;
use crate::format::codec::{self, MAX_INFLATED_BYTES};

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// One batch with the golden records, whose compressed bytes are `records`.
fn batch_of(codec: Compression, records: &[u8]) -> Bytes {
    let mut batch = golden()[..HEADER_LEN].to_vec();
    batch[22] |= codec.code();
    batch.extend_from_slice(records);
    seal(batch).freeze()
}

fn golden_body() -> Vec<u8> {
    golden()[HEADER_LEN..].to_vec()
}

/// Whether a leader takes the batch; what it takes, readers can read.
fn taken(batch: &Bytes) -> Result<(), FormatError> {
    let valid = ValidBatch::new(batch.clone(), usize::MAX).map(drop);
    let decoded: Result<Vec<Record>, FormatError> = decode_records(batch).collect();
    assert!(valid.is_err() || decoded.is_ok(), "{decoded:?}");
    valid
}

fn named(batch: &Bytes) -> String {
    taken(batch).expect_err("must be refused").to_string()
}

#[test]
fn the_attributes_name_the_codec() {
    let records = vec![record(Some("key"), Some(&"value ".repeat(100).leak()[..]), 0); 10];
    for (code, compression) in (1..).zip(CODECS) {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let batch = encode_batch(&records, &options).expect("encodes").freeze();
        assert_eq!(batch[21..23], [0, code]);
        assert!(batch.len() < 600, "{compression:?} made {} bytes", batch.len());
        assert_eq!(check_batch(&batch).expect("good").compression(), Ok(compression));
        assert_eq!(decode_records(&batch).filter(Result::is_ok).count(), 10);
        taken(&batch).expect("taken");
    }
}

/// Compressing is never worse than not compressing.
#[test]
fn what_does_not_shrink_stays_as_it_is() {
    for compression in CODECS {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let batch = encode_batch(&[record(None, None, 0)], &options).expect("encodes");
        assert_eq!(batch, plain(&[record(None, None, 0)]).expect("encodes"));
    }
}

/// What is kept of a compressed batch is compressed with its codec.
#[test]
fn compaction_keeps_the_codec() {
    let records: Vec<NewRecord> =
        (0..50).map(|n| record(Some("key"), Some("value value value"), n)).collect();
    for compression in CODECS {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let batch = encode_batch(&records, &options).expect("encodes").freeze();
        let mut kept: Vec<Record> =
            decode_records(&batch).collect::<Result<_, _>>().expect("decodes");
        kept.retain(|record| record.offset % 2 == 1);
        let header = check_batch(&batch).expect("good");
        let batch = encode_kept(&header, &kept, None).expect("encodes").freeze();
        assert_eq!(check_batch(&batch).expect("good").compression(), Ok(compression));
        let read: Vec<Record> = decode_records(&batch).collect::<Result<_, _>>().expect("decodes");
        assert_eq!(read, kept);
    }
}

/// A few bytes that stand for more than any batch may hold.
#[test]
fn bombs_are_refused() {
    let body = vec![0; MAX_INFLATED_BYTES + 1];
    let mut start = Vec::new();
    crate::format::varint::put_varint(&mut start, MAX_INFLATED_BYTES as i32 - 5);
    start.extend_from_slice(&[0, 0, 0, 1]); // attributes, deltas, no key
    crate::format::varint::put_varint(&mut start, MAX_INFLATED_BYTES as i32 - 14);
    let body = [start, body].concat();
    for codec in CODECS {
        let mut one = batch_of(codec, &codec::compress(codec, &body).expect("a codec")).to_vec();
        (one[26], one[60]) = (0, 1);
        let error = taken(&seal(one).freeze()).expect_err("must be refused");
        assert_eq!(error, FormatError::Inflates { limit: MAX_INFLATED_BYTES }, "{codec:?}");
    }
}

/// The largest that is allowed is read, to the byte.
#[test]
fn the_bound_is_exact() {
    for extra in [0, 1] {
        let body = vec![0; MAX_INFLATED_BYTES + extra];
        let bytes = codec::compress(Compression::Zstd, &body).expect("a codec");
        let inflated = codec::decompress(Compression::Zstd, bytes.into());
        assert_eq!(inflated.is_ok(), extra == 0);
    }
}

#[test]
fn cut_off_and_trailing_bytes_are_refused() {
    for codec in CODECS {
        let whole = codec::compress(codec, &golden_body()).expect("a codec");
        taken(&batch_of(codec, &whole)).expect("whole");
        for len in 0..whole.len() {
            named(&batch_of(codec, &whole[..len]));
        }
        let mut longer = golden_body();
        longer.push(0);
        let longer = codec::compress(codec, &longer).expect("a codec");
        let error = taken(&batch_of(codec, &longer)).expect_err("one byte more");
        assert_eq!(error, FormatError::Trailing { extra: 1 }, "{codec:?}");
    }
}

/// librdkafka writes snappy without framing, and Kafka reads it.
#[test]
fn snappy_without_framing_is_taken() {
    let bare = snap::raw::Encoder::new().compress_vec(&golden_body()).expect("compresses");
    taken(&batch_of(Compression::Snappy, &bare)).expect("taken");
}

#[test]
fn snappys_framing() {
    let framed = codec::compress(Compression::Snappy, &golden_body()).expect("a codec");
    assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let length = u32::from_be_bytes([framed[16], framed[17], framed[18], framed[19]]);
    assert_eq!(length as usize, framed.len() - 20);

    // Two streams in a row are one, as for snappy-java.
    let body = golden_body();
    let halves = [&body[..9], &body[9..]]
        .map(|half| codec::compress(Compression::Snappy, half).expect("a codec"));
    taken(&batch_of(Compression::Snappy, &halves.concat())).expect("taken");

    let change = |at: usize, to: u8| {
        let mut bytes = framed.clone();
        bytes[at] = to;
        named(&batch_of(Compression::Snappy, &bytes))
    };
    assert!(change(11, 0).contains("version"));
    assert!(change(16, 1).contains("a block is cut off"));
    // A block that states far more than it can hold.
    let absurd = [&framed[..16], &[0, 0, 0, 5, 0xff, 0xff, 0xff, 0x1f, 0][..]].concat();
    assert!(named(&batch_of(Compression::Snappy, &absurd)).contains("states"));
}

/// What Kafka's LZ4 reader refuses, though others take it.
#[test]
fn lz4_as_kafka_takes_it() {
    use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
    use std::io::Write;
    let frame = |info: FrameInfo| {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&golden_body()).expect("compresses");
        encoder.finish().expect("compresses")
    };
    let batch = |bytes: &[u8]| batch_of(Compression::Lz4, bytes);
    let linked = frame(FrameInfo::new().block_mode(BlockMode::Linked));
    assert!(named(&batch(&linked)).contains("depend on each other"));
    let size = Some(golden_body().len() as u64);
    let full = FrameInfo::new().content_size(size).block_checksums(true).content_checksum(true);
    let full = frame(full);
    taken(&batch(&full)).expect("every checksum and the size");

    let plain = codec::compress(Compression::Lz4, &golden_body()).expect("a codec");
    assert_eq!(plain[..6], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40], "64 KiB, independent, no sums");
    assert!(named(&batch(&plain[..plain.len() - 4])).contains("no end mark"));
    assert!(named(&batch(&[&plain[..], &plain[..]].concat())).contains("behind the end mark"));
    assert!(named(&batch(&[&full[..], &[0]].concat())).contains("behind the end mark"));
    let change = |at: usize, to: u8| {
        let mut bytes = plain.clone();
        bytes[at] = to;
        named(&batch(&bytes))
    };
    assert!(change(0, 5).contains("not a frame"));
    assert!(change(4, 0x61).contains("a dictionary"));
    assert!(change(6, 0).contains("hecksum"), "the header's checksum");
    let mut sum = full.clone();
    *sum.last_mut().expect("not empty") ^= 1;
    assert!(named(&batch(&sum)).contains("hecksum"), "the content's checksum");
}

/// A batch of nothing but headers could ask for 32 times its size in memory.
#[test]
fn headers_are_bounded_over_the_whole_batch() {
    let header = RecordHeader { name: Bytes::new(), value: None };
    let records = |count: usize| {
        let headers = vec![header.clone(); MAX_HEADERS_PER_RECORD];
        vec![NewRecord { headers, ..NewRecord::default() }; count]
    };
    let most = MAX_HEADERS_PER_BATCH / MAX_HEADERS_PER_RECORD;
    let batch = plain(&records(most)).expect("encodes");
    ValidBatch::new(batch, usize::MAX).expect("the most");
    let batch = plain(&records(most + 1)).expect("encodes");
    let error = ValidBatch::new(batch, usize::MAX).expect_err("too many");
    assert!(matches!(error, FormatError::Field { field: "header count", .. }));
}

proptest! {
    /// Compressed bytes of any kind: an error or records, no panic, and
    /// what leaders take readers can read.
    #[test]
    fn damaged_streams_are_survived(
        codec in prop::sample::select(CODECS.to_vec()),
        repeat in 1..200usize,
        junk in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let body = golden_body().repeat(repeat);
        let mut bytes = codec::compress(codec, &body).expect("a codec");
        for (at, byte) in junk {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = taken(&batch_of(codec, &bytes));
    }

    #[test]
    fn codecs_round_trip(
        codec in prop::sample::select(CODECS.to_vec()),
        words in prop::collection::vec((bytes(30), 0..2000usize), 0..20),
    ) {
        let body: Vec<u8> = words.iter().flat_map(|(word, n)| word.repeat(*n)).collect();
        let compressed = codec::compress(codec, &body).expect("a codec");
        if !(body.is_empty() && codec == Compression::Snappy) {
            let read = codec::decompress(codec, compressed.into()).expect("own bytes");
            prop_assert_eq!(read, body);
        }
    }
}
