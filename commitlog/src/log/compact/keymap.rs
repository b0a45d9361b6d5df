//! Which offset is the latest of each key, in bounded memory.
//!
//! A key is known by 128 bits of SipHash-2-4 under a key drawn at start. Two
//! keys with one hash would cost a record, so the hash must not be guessable:
//! whoever writes the keys cannot look for a collision without the hash's key,
//! and by chance a map of 10^8 keys meets one in 10^22 compactions. (Kafka takes
//! MD5, for which collisions can be made.)

use ottla_proto::Offset;
use siphasher::sip128::SipHasher24;

/// Memory for the map of a node's compactions that suits most: Kafka's
/// `log.cleaner.dedupe.buffer.size`, good for 5 million keys in one go. More keys
/// take several goes.
pub const DEFAULT_KEY_MAP_BYTES: usize = 128 * 1024 * 1024;

/// Bytes of an entry: the hash and the offset.
const ENTRY_BYTES: usize = 24;

/// Least number of entries: one go always makes some progress.
const MIN_ENTRIES: usize = 16;

/// Hash (two words), and the offset plus 1; 0 there is a free entry.
type Entry = [u64; 3];

/// What compaction needs beside the log: bounded memory, used by one log after
/// the other. It is held only while a compaction runs.
pub struct Cleaner {
    budget_bytes: usize,
    hasher: SipHasher24,
    entries: Vec<Entry>,
    used: usize,
    most_bytes: usize,
}

/// The hash of a key.
#[derive(Clone, Copy)]
struct Hash(u64, u64);

impl Cleaner {
    /// With at most `budget_bytes` for the keys of one compaction, and at least
    /// 384.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        let hasher = SipHasher24::new_with_keys(rand::random(), rand::random());
        Self { budget_bytes, hasher, entries: Vec::new(), used: 0, most_bytes: 0 }
    }

    /// Most bytes that the keys of one compaction took so far.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// Makes room for `expected` keys, as far as the budget goes.
    pub(super) fn begin(&mut self, expected: u64) {
        // Free entries keep the search short: nine tenths are used, as in Kafka.
        let wanted = usize::try_from(expected.saturating_add(expected / 9)).unwrap_or(usize::MAX);
        let most = (self.budget_bytes / ENTRY_BYTES).max(MIN_ENTRIES);
        self.entries = vec![[0; 3]; wanted.saturating_add(1).clamp(MIN_ENTRIES, most)];
        self.used = 0;
        self.most_bytes = self.most_bytes.max(self.entries.len() * ENTRY_BYTES);
    }

    /// Gives the memory back.
    pub(super) fn end(&mut self) {
        self.entries = Vec::new();
    }

    /// Notes that `key` is at `offset`, which is above all noted for it before.
    /// False if the map is full and the key is not in it.
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let slot = self.slot_of(hash);
        if self.entries[slot][2] == 0 {
            if self.used >= self.entries.len() * 9 / 10 {
                return false;
            }
            self.used += 1;
        }
        self.entries[slot] = [hash.0, hash.1, offset + 1];
        true
    }

    /// The latest offset noted for `key`.
    pub(super) fn latest(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slot_of(self.hash(key));
        self.entries[slot][2].checked_sub(1)
    }

    fn hash(&self, key: &[u8]) -> Hash {
        let hash = self.hasher.hash(key);
        Hash(hash.h1, hash.h2)
    }

    /// The entry of `hash`, or the free one where it belongs. There always is a
    /// free one.
    fn slot_of(&self, hash: Hash) -> usize {
        let len = self.entries.len();
        let mut slot = ((u128::from(hash.0) * len as u128) >> 64) as usize;
        loop {
            let [first, second, offset] = self.entries[slot];
            if offset == 0 || (first, second) == (hash.0, hash.1) {
                return slot;
            }
            slot = if slot + 1 == len { 0 } else { slot + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut cleaner = Cleaner::new(24 * 1000);
        cleaner.begin(u64::MAX);
        let noted = (0..2000u64).take_while(|n| cleaner.note(&n.to_be_bytes(), *n)).count();
        assert_eq!((noted, cleaner.most_bytes()), (900, 24_000));
        // Full, but what is known can be moved.
        assert!(cleaner.note(&7u64.to_be_bytes(), 5000));
        assert_eq!(cleaner.latest(&7u64.to_be_bytes()), Some(5000));
        assert_eq!(cleaner.latest(&900u64.to_be_bytes()), None);
        cleaner.end();
        assert_eq!(cleaner.entries.capacity(), 0);
        // No more than the work needs.
        cleaner.begin(90);
        assert_eq!(cleaner.entries.len(), 101);
    }

    #[test]
    fn hashes_cannot_be_known_before() {
        let (one, other) = (Cleaner::new(0), Cleaner::new(0));
        assert_ne!(one.hash(b"key").0, other.hash(b"key").0);
    }

    proptest! {
        #[test]
        fn it_is_a_map(keys in prop::collection::vec((0..50u8, 0..3usize), 1..200)) {
            let (mut cleaner, mut model) = (Cleaner::new(1 << 20), HashMap::new());
            cleaner.begin(200);
            for (offset, (byte, len)) in (0..).zip(&keys) {
                let key = vec![*byte; *len];
                prop_assert!(cleaner.note(&key, offset));
                model.insert(key, offset);
            }
            for byte in 0..60u8 {
                let key = vec![byte; 2];
                prop_assert_eq!(cleaner.latest(&key), model.get(&key).copied());
            }
        }
    }
}
