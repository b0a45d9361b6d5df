//! Records that tell when one of them is missing, came twice, or is not what was written.
//!
//! The idea is that of s2's benchmark: each writer numbers its records of a partition,
//! and each record holds the hash of the one before it.
//!
//! ```text
//! 0     8      12      16   24        32        40    48
//! │ own │ mark │ writer │ run │ sequence │ due     │ link │ filler …
//! ```
//!
//! `own` is the XXH3 hash of everything behind it, `link` the `own` of the record before
//! (0 for the first); numbers are little-endian. Not CRC-32C, which protects batches: a
//! change that one checksum does not see the other should. Not its job: reading, clocks.

use anyhow::ensure;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use twox_hash::XxHash3_64;

/// Bytes of a record beside its filler.
pub(super) const HEAD_BYTES: usize = 48;

const MARK: u32 = u32::from_le_bytes(*b"OBC1");

/// Breaks that are told one by one: the others are counted.
const TOLD: usize = 20;

/// Who wrote a record: a run of a measurement, and one of its writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Author {
    pub(super) run: u64,
    pub(super) writer: u32,
}

/// The records of one writer to one partition.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    author: Author,
    next: u64,
    link: u64,
}

impl Chain {
    pub(super) fn new(author: Author) -> Self {
        Self { author, next: 0, link: 0 }
    }

    /// How many records it has.
    pub(super) fn len(&self) -> u64 {
        self.next
    }

    /// The next record, which was due so many nanoseconds after the run's start.
    pub(super) fn next(&mut self, due: u64, filler: &[u8]) -> Bytes {
        let mut value = BytesMut::with_capacity(HEAD_BYTES + filler.len());
        value.put_u64_le(0);
        value.put_u32_le(MARK);
        value.put_u32_le(self.author.writer);
        value.put_u64_le(self.author.run);
        value.put_u64_le(self.next);
        value.put_u64_le(due);
        value.put_u64_le(self.link);
        value.put_slice(filler);
        let own = XxHash3_64::oneshot(&value[8..]);
        value[..8].copy_from_slice(&own.to_le_bytes());
        (self.next, self.link) = (self.next + 1, own);
        value.freeze()
    }
}

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) author: Author,
    /// Nanoseconds after the start of its run.
    pub(super) due: u64,
    sequence: u64,
    link: u64,
    own: u64,
}

impl Head {
    /// `None` if nobody wrote a chain's record here.
    fn parse(value: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
        let (own, second, run) = (word(0)?, word(8)?, word(16)?);
        let (mark, writer) = (second as u32, (second >> 32) as u32);
        let author = Author { run, writer };
        let head = Self { author, sequence: word(24)?, due: word(32)?, link: word(40)?, own };
        (mark == MARK).then_some(head)
    }
}

/// Something is wrong with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// Records `from..to` of a writer are not where they should be.
    Lost { author: Author, from: u64, to: u64 },
    /// A record was there before, or comes after a later one.
    Repeated { author: Author, sequence: u64 },
    /// A record is not what was written, or not after what it was written after.
    Changed { author: Author, sequence: u64 },
    /// No writer of a chain wrote this. In a topic that others write to it is no break.
    Foreign,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { author, from, to } => {
                write!(f, "{} records of writer {} lost, from {from} on", to - from, author.writer)
            }
            Self::Repeated { author, sequence } => {
                write!(f, "record {sequence} of writer {} repeated, or late", author.writer)
            }
            Self::Changed { author, sequence } => {
                write!(f, "record {sequence} of writer {} changed", author.writer)
            }
            Self::Foreign => f.write_str("a record that no writer wrote"),
        }
    }
}

/// Reads the chains of one partition.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    partition: u32,
    /// Whether the first record that is there is the first that was written.
    from_start: bool,
    /// Number and link of each writer's next record. `None`: as it comes.
    expected: BTreeMap<Author, (u64, Option<u64>)>,
    pub(super) found: Found,
}

/// What verifiers found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Records of chains that are as they were written.
    pub(super) good: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) changed: u64,
    /// Records that belong to no chain.
    pub(super) foreign: u64,
    /// The first breaks, with their places.
    pub(super) told: Vec<String>,
}

impl Found {
    /// Whether nothing is lost, repeated or changed.
    pub(super) fn is_intact(&self) -> bool {
        self.lost + self.repeated + self.changed == 0
    }

    /// # Errors
    /// Something is.
    pub(super) fn intact(&self) -> anyhow::Result<()> {
        let Self { lost, repeated, changed, .. } = self;
        ensure!(
            self.is_intact(),
            "{lost} records lost, {repeated} repeated, {changed} changed: {}",
            self.told.join("; ")
        );
        Ok(())
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "intact": self.is_intact(),
            "good": self.good,
            "lost": self.lost,
            "repeated": self.repeated,
            "changed": self.changed,
            "foreign": self.foreign,
            "told": self.told,
        })
    }

    pub(super) fn text(&self) -> String {
        let Self { good, lost, repeated, changed, foreign, .. } = self;
        format!(
            "{good} records good, {lost} lost, {repeated} repeated, {changed} changed; {foreign} \
             of others"
        )
    }

    pub(super) fn add(&mut self, other: Self) {
        self.good += other.good;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.changed += other.changed;
        self.foreign += other.foreign;
        self.told.extend(other.told);
        self.told.truncate(TOLD);
    }
}

impl Verifier {
    pub(super) fn new(partition: u32, from_start: bool) -> Self {
        Self { partition, from_start, expected: BTreeMap::new(), found: Found::default() }
    }

    pub(super) fn partition(&self) -> u32 {
        self.partition
    }

    /// Takes in the next record. Returns what it says, if that can be believed.
    pub(super) fn check(&mut self, offset: u64, value: &[u8]) -> Option<Head> {
        let (head, broken) = self.judge(value);
        for broken in broken {
            self.broke(&format!("offset {offset}"), &broken);
        }
        head
    }

    fn judge(&mut self, value: &[u8]) -> (Option<Head>, Vec<Break>) {
        let Some(head) = Head::parse(value) else { return (None, vec![Break::Foreign]) };
        let Head { author, sequence, .. } = head;
        if XxHash3_64::oneshot(&value[8..]) != head.own {
            // Its number may be what was changed, and its author, too. So the chain goes
            // on where it was: what comes next shows what is missing.
            return (None, vec![Break::Changed { author, sequence }]);
        }
        let first = if self.from_start { (0, Some(0)) } else { (sequence, None) };
        let (next, link) = self.expected.get(&author).copied().unwrap_or(first);
        if sequence < next {
            return (None, vec![Break::Repeated { author, sequence }]);
        }
        self.expected.insert(author, (sequence + 1, Some(head.own)));
        if sequence > next {
            return (Some(head), vec![Break::Lost { author, from: next, to: sequence }]);
        }
        if link.is_some_and(|link| link != head.link) {
            return (Some(head), vec![Break::Changed { author, sequence }]);
        }
        self.found.good += 1;
        (Some(head), Vec::new())
    }

    /// Everything was read: a writer has written so many records to this partition.
    pub(super) fn ended(&mut self, author: Author, written: u64) {
        let next = self.expected.get(&author).map_or(0, |(next, _)| *next);
        if next < written {
            self.broke("its end", &Break::Lost { author, from: next, to: written });
        }
    }

    fn broke(&mut self, place: &str, broken: &Break) {
        match broken {
            Break::Lost { from, to, .. } => self.found.lost += to - from,
            Break::Repeated { .. } => self.found.repeated += 1,
            Break::Changed { .. } => self.found.changed += 1,
            Break::Foreign => {
                self.found.foreign += 1;
                return;
            }
        }
        if self.found.told.len() < TOLD {
            self.found.told.push(format!("partition {}, {place}: {broken}", self.partition));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHOR: Author = Author { run: 7, writer: 1 };

    fn written(records: u64) -> Vec<Bytes> {
        let mut chain = Chain::new(AUTHOR);
        (0..records).map(|due| chain.next(due, &[b'x'; 100])).collect()
    }

    fn read(values: &[Bytes], of: u64) -> Found {
        let mut verifier = Verifier::new(3, true);
        for (offset, value) in (0..).zip(values) {
            verifier.check(offset, value);
        }
        verifier.ended(AUTHOR, of);
        verifier.found
    }

    fn counts(found: &Found) -> (u64, u64, u64, u64) {
        (found.good, found.lost, found.repeated, found.changed)
    }

    #[test]
    fn what_was_written_is_good() {
        let mut verifier = Verifier::new(0, true);
        let head = verifier.check(0, &written(1)[0]).expect("good");
        assert_eq!((head.author, head.due, head.sequence), (AUTHOR, 0, 0));
        let found = read(&written(50), 50);
        assert_eq!(counts(&found), (50, 0, 0, 0));
        assert!(found.is_intact());
    }

    #[test]
    fn what_is_missing_is_named_also_at_both_ends() {
        let all = written(10);
        let gap = read(&[&all[..4], &all[7..]].concat(), 10);
        assert_eq!(counts(&gap), (6, 3, 0, 0));
        assert_eq!(gap.told, ["partition 3, offset 4: 3 records of writer 1 lost, from 4 on"]);
        assert_eq!(counts(&read(&all[2..], 10)), (7, 2, 0, 0));
        assert_eq!(counts(&read(&all[..9], 10)), (9, 1, 0, 0));
        assert_eq!(counts(&read(&[], 10)), (0, 10, 0, 0));
    }

    #[test]
    fn what_comes_twice_or_late_is_named() {
        let all = written(4);
        let twice = read(&[all.clone(), vec![all[3].clone()]].concat(), 4);
        assert_eq!(counts(&twice), (4, 0, 1, 0));
        let swapped = [&all[..1], &all[2..3], &all[1..2], &all[3..]].concat();
        assert_eq!(counts(&read(&swapped, 4)), (2, 1, 1, 0));
    }

    /// Wherever a bit is flipped it is seen. Where the mark itself is hit the record looks
    /// like somebody else's, and one is missing.
    #[test]
    fn a_flipped_bit_is_seen_wherever_it_is() {
        let all = written(3);
        for bit in 0..all[1].len() * 8 {
            let mut values = all.clone();
            let mut hurt = values[1].to_vec();
            hurt[bit / 8] ^= 1 << (bit % 8);
            values[1] = hurt.into();
            let found = read(&values, 3);
            assert!(!found.is_intact(), "bit {bit}: {found:?}");
            assert_eq!((found.changed + found.foreign, found.lost), (1, 1), "bit {bit}");
        }
    }

    /// A record that is whole, but belongs to another history of the same writer.
    #[test]
    fn a_record_of_another_history_is_seen() {
        let mut values = written(3);
        let mut other = Chain::new(AUTHOR);
        let others: Vec<Bytes> = (0..3).map(|due| other.next(due, b"other")).collect();
        values[1] = others[1].clone();
        assert_eq!(counts(&read(&values, 3)), (1, 0, 0, 2));
    }

    #[test]
    fn from_the_middle_the_first_is_as_it_comes() {
        let mut verifier = Verifier::new(0, false);
        for (offset, value) in (5..).zip(&written(10)[5..]) {
            assert!(verifier.check(offset, value).is_some());
        }
        assert_eq!(counts(&verifier.found), (5, 0, 0, 0));
    }

    #[test]
    fn others_records_are_counted_and_no_break() {
        let values = [Bytes::from_static(b"hello"), Bytes::from(vec![0; 500])];
        let found = read(&values, 0);
        assert!(found.is_intact());
        assert_eq!((found.foreign, found.good), (2, 0));
    }

    #[test]
    fn few_breaks_are_told_of_many() {
        let all: Vec<Bytes> = written(200).into_iter().step_by(2).collect();
        let mut found = read(&all, 200);
        assert_eq!((found.lost, found.told.len()), (100, TOLD));
        found.add(found.clone());
        assert_eq!((found.lost, found.told.len()), (200, TOLD));
    }
}
