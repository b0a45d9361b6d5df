//! [`Producers`] to bytes and back. Bounded: the bytes may be garbage.
//!
//! Big-endian: version (u8, 1); the log end offset it was taken at (u64); 1 if a
//! transaction has ever been seen (u8); the number of ended transactions (u32),
//! each first offset and marker (u64); the number of producers (u32), each id
//! (i64), epoch (i16), coordinator epoch (i32), last timestamp (i64), first
//! offset of the open transaction or -1 (i64), number of batches (u8, at most
//! 5), each first and last sequence (i32), first and last offset (u64),
//! timestamp (i64). Kafka's snapshots keep one batch per producer, so that its
//! duplicate window shrinks at a restart; these keep all.

use super::producer::Producer;
use super::transactions::{Ended, Transactions};
use super::window::{Sequenced, WINDOW, Window};
use super::{MAX_PRODUCERS, Producers};
use bytes::{Buf, BufMut};
use ottla_proto::Offset;
use std::collections::BTreeMap;
use thiserror::Error;

const VERSION: u8 = 1;
/// Bytes of a producer without its batches.
const PRODUCER_LEN: usize = 31;

/// Why bytes are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SnapshotError {
    /// Of a version that is not known here.
    #[error("version {0}, expected {VERSION}")]
    Version(u8),
    /// Taken at another offset than its name says.
    #[error("taken at offset {0}")]
    Offset(Offset),
    /// Too short or too long, or numbers that contradict each other.
    #[error("malformed")]
    Malformed,
}

use SnapshotError::Malformed;

impl Producers {
    /// What [`Producers::decode`] reads; `at` is the log end offset.
    pub(crate) fn encode(&self, at: Offset) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.known.len() * (PRODUCER_LEN + 32));
        out.put_u8(VERSION);
        out.put_u64(at);
        out.put_u8(self.transactions.seen().into());
        let ended = self.transactions.ended();
        out.put_u32(ended.len() as u32); // bounded
        for Ended { first, marker } in ended {
            out.put_u64(*first);
            out.put_u64(*marker);
        }
        out.put_u32(self.known.len() as u32); // bounded
        for (id, producer) in &self.known {
            out.put_i64(*id);
            put_producer(&mut out, producer);
        }
        out
    }

    /// Reads the snapshot that was taken at `at`.
    pub(crate) fn decode(mut bytes: &[u8], at: Offset) -> Result<Self, SnapshotError> {
        let bytes = &mut bytes;
        let version = bytes.try_get_u8().map_err(|_| Malformed)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let taken_at = bytes.try_get_u64().map_err(|_| Malformed)?;
        if taken_at != at {
            return Err(SnapshotError::Offset(taken_at));
        }
        let seen = match bytes.try_get_u8() {
            Ok(flag @ 0..=1) => flag == 1,
            _ => return Err(Malformed),
        };
        let ended = decode_ended(bytes, at)?;
        let count = bytes.try_get_u32().map_err(|_| Malformed)?;
        let mut known = BTreeMap::new();
        // Each takes bytes, so that a false count ends with them.
        for _ in 0..count {
            let id = bytes.try_get_i64().map_err(|_| Malformed)?;
            if id < 0 || known.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(Malformed);
            }
            known.insert(id, decode_producer(bytes, at)?);
        }
        let open = known.iter().filter_map(|(id, known)| Some((known.open_since?, *id)));
        let transactions = Transactions::restored(open, ended, seen);
        // One more than the bound: while every one has its transaction open.
        let possible = known.len() <= MAX_PRODUCERS || transactions.open() >= MAX_PRODUCERS;
        let transactional = transactions.open() > 0 || !transactions.ended().is_empty();
        let whole = bytes.is_empty() && possible && (seen || !transactional);
        whole.then_some(Self { known, transactions }).ok_or(Malformed)
    }
}

fn put_producer(out: &mut Vec<u8>, producer: &Producer) {
    out.put_i16(producer.epoch);
    out.put_i32(producer.coordinator_epoch);
    out.put_i64(producer.last_timestamp);
    out.put_i64(producer.open_since.map_or(-1, |first| first as i64)); // below 2^63
    let batches = producer.window.batches();
    out.put_u8(batches.len() as u8); // at most WINDOW
    for batch in batches {
        out.put_i32(batch.first_sequence);
        out.put_i32(batch.last_sequence);
        out.put_u64(batch.first_offset);
        out.put_u64(batch.last_offset);
        out.put_i64(batch.timestamp);
    }
}

fn decode_ended(bytes: &mut &[u8], at: Offset) -> Result<Vec<Ended>, SnapshotError> {
    let count = bytes.try_get_u32().map_err(|_| Malformed)?;
    let mut ended: Vec<Ended> = Vec::new();
    for _ in 0..count {
        let first = bytes.try_get_u64().map_err(|_| Malformed)?;
        let marker = bytes.try_get_u64().map_err(|_| Malformed)?;
        let follows = ended.last().is_none_or(|last| last.first < first && last.marker < marker);
        if !follows || first >= marker || marker >= at {
            return Err(Malformed);
        }
        ended.push(Ended { first, marker });
    }
    Ok(ended)
}

fn decode_producer(bytes: &mut &[u8], at: Offset) -> Result<Producer, SnapshotError> {
    if bytes.len() < PRODUCER_LEN - 8 {
        return Err(Malformed);
    }
    let mut producer = Producer::new(bytes.get_i16());
    producer.coordinator_epoch = bytes.get_i32();
    producer.last_timestamp = bytes.get_i64();
    producer.open_since = match bytes.get_i64() {
        -1 => None,
        first => Some(u64::try_from(first).ok().filter(|first| *first < at).ok_or(Malformed)?),
    };
    let count = usize::from(bytes.get_u8());
    if count > WINDOW {
        return Err(Malformed);
    }
    for _ in 0..count {
        producer.window.push(decode_batch(bytes, at, &producer.window)?);
    }
    Ok(producer)
}

fn decode_batch(
    bytes: &mut &[u8],
    at: Offset,
    before: &Window,
) -> Result<Sequenced, SnapshotError> {
    if bytes.len() < 32 {
        return Err(Malformed);
    }
    let batch = Sequenced {
        first_sequence: bytes.get_i32(),
        last_sequence: bytes.get_i32(),
        first_offset: bytes.get_u64(),
        last_offset: bytes.get_u64(),
        timestamp: bytes.get_i64(),
    };
    let follows = before.last().is_none_or(|last| last.last_offset < batch.first_offset);
    let possible = batch.first_sequence >= 0
        && batch.last_sequence >= 0
        && batch.first_offset <= batch.last_offset
        && batch.last_offset < at;
    (possible && follows).then_some(batch).ok_or(Malformed)
}
