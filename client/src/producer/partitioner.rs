//! Which partition a record goes to, as Kafka's clients choose it, so that
//! programs in several languages agree where a key lives, and records without one
//! are spread evenly however slow a partition is (KIP-794).

use super::ProducerRecord;
use parking_lot::Mutex;
use std::fmt;

/// Seed of the hash, fixed by Kafka's clients.
const SEED: u32 = 0x9747_b28c;

/// The partition of a key: the same for the same key and partition count, for
/// ever. `partitions` must not be 0.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka hashes the length as a 32-bit number; no record is near 4 GiB.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Chooses partitions in a program's own way.
pub trait Partitioner: fmt::Debug + Send + Sync {
    /// The partition of a record that names none, below `partitions`, or `None` to
    /// leave it to its key, if it has one.
    fn partition(&self, topic: &str, record: &ProducerRecord, partitions: u32) -> Option<u32>;
}

/// Where records without a key go: to one partition until a batch's worth of bytes
/// went there, then to another. Not by batches: a slow partition, whose batches are
/// filled up while they wait, would get more than the others.
#[derive(Debug)]
pub(super) struct Sticky {
    batch_bytes: usize,
    state: Mutex<Stuck>,
}

#[derive(Debug)]
struct Stuck {
    partition: u32,
    bytes: usize,
}

impl Sticky {
    pub(super) fn new(partition: u32, batch_bytes: usize) -> Self {
        Self { batch_bytes, state: Mutex::new(Stuck { partition, bytes: 0 }) }
    }

    /// The partition for so many bytes more.
    pub(super) fn take(&self, bytes: usize, partitions: u32) -> u32 {
        let mut stuck = self.state.lock();
        stuck.partition %= partitions;
        stuck.bytes += bytes;
        stuck.partition
    }

    /// Turns to another partition if this one has had its share. One whose batch is not
    /// full may have up to twice as much, to fill it. `waiting` gives the batches that
    /// wait in each partition: the fewer, the likelier it is chosen; `draw` draws below
    /// its argument.
    pub(super) fn turn(
        &self,
        is_filling: impl Fn(u32) -> bool,
        waiting: impl FnOnce() -> Vec<usize>,
        draw: impl FnOnce(usize) -> usize,
    ) {
        let mut stuck = self.state.lock();
        let full = stuck.bytes >= self.batch_bytes;
        if !full || (stuck.bytes < 2 * self.batch_bytes && is_filling(stuck.partition)) {
            return;
        }
        *stuck = Stuck { partition: choose(&waiting(), draw), bytes: 0 };
    }
}

/// A partition, the likelier the fewer batches wait in it.
fn choose(waiting: &[usize], draw: impl FnOnce(usize) -> usize) -> u32 {
    let most = waiting.iter().copied().max().unwrap_or(0);
    let weights = waiting.iter().map(|batches| most + 1 - batches);
    let mut left = draw(weights.clone().sum::<usize>().max(1));
    for (partition, weight) in (0..).zip(weights) {
        match left.checked_sub(weight) {
            None => return partition,
            Some(rest) => left = rest,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn every_partition_is_chosen_the_likelier_the_less_waits_in_it() {
        let waiting = [2, 0, 1];
        let chosen: Vec<u32> = (0..6).map(|drawn| choose(&waiting, |_| drawn)).collect();
        assert_eq!(chosen, [0, 1, 1, 1, 2, 2]);
        assert_eq!(choose(&[], |below| below - 1), 0);
    }

    #[test]
    fn a_partition_has_its_share_and_fills_its_batch() {
        let sticky = Sticky::new(5, 100);
        assert_eq!(sticky.take(99, 3), 2);
        let turn = |filling| sticky.turn(|_| filling, || vec![0, 0, 0], |_| 0);
        turn(false);
        assert_eq!(sticky.take(50, 3), 2, "it has had less than its share");
        turn(true);
        assert_eq!(sticky.take(50, 3), 2, "its batch is not full");
        turn(false);
        assert_eq!(sticky.take(199, 3), 0);
        turn(true);
        assert_eq!(sticky.take(1, 3), 0);
        sticky.turn(|_| true, || vec![0, 0, 0], |_| 1);
        assert_eq!(sticky.take(0, 3), 1, "twice its share is enough");
    }

    /// A negative hash loses its sign bit; it is not negated.
    #[test]
    fn the_sign_bit_is_dropped() {
        assert_eq!(partition_for_key(b"21", 7), ((-973_932_308_i32) & 0x7fff_ffff) as u32 % 7);
        assert_eq!(partition_for_key(b"", 1), 0);
    }
}
