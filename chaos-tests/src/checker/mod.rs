//! Judges what happened to unique values: what each writer was told, against
//! what is in the log afterwards.
//!
//! A subset of Jepsen's Kafka checker: lost writes, inconsistent offsets,
//! duplicates, writes that were refused and are there all the same. Knows
//! nothing of how the history was made.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What a writer was told about one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged at this offset.
    Acknowledged(u64),
    /// Certainly not written.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// One write of a value that is unique in the whole history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The partition it was sent to.
    pub partition: u32,
    /// The value.
    pub value: String,
    /// What the writer was told.
    pub outcome: Outcome,
}

/// What a reader saw of one partition: values by offset, in the order read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Who read, for the report: a consumer, or a replica's files.
    pub reader: String,
    /// The partition.
    pub partition: u32,
    /// Offset and value, in the order they were handed out.
    pub records: Vec<(u64, String)>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Acknowledged, and not in a final reading.
    LostWrite {
        /// The reader that does not see it.
        reader: String,
        /// The partition.
        partition: u32,
        /// The offset it was acknowledged at.
        offset: u64,
        /// The value.
        value: String,
    },
    /// Two values claim one offset.
    InconsistentOffset {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
        /// The values, sorted.
        values: Vec<String>,
    },
    /// One value at several offsets.
    Duplicate {
        /// The partition of the first.
        partition: u32,
        /// The value.
        value: String,
        /// Where it is.
        offsets: Vec<u64>,
    },
    /// The writer was told that it is not written, and it is.
    FailedWriteVisible {
        /// The partition.
        partition: u32,
        /// The value.
        value: String,
    },
    /// Read, and never written by anybody.
    Invented {
        /// The partition.
        partition: u32,
        /// The value.
        value: String,
    },
    /// A reader was handed offsets out of order or with a gap.
    OutOfOrder {
        /// The reader.
        reader: String,
        /// The partition.
        partition: u32,
        /// The offset that should have been next.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Finds every anomaly in a history of writes and the final readings of every
/// partition. Each reading must be of a whole partition, from its start.
#[must_use]
pub fn check(writes: &[Write], readings: &[Reading]) -> Vec<Anomaly> {
    let mut found = order(readings);
    found.extend(offsets(writes, readings));
    found.extend(values(writes, readings));
    found.extend(lost(writes, readings));
    found.sort();
    found.dedup();
    found
}

fn order(readings: &[Reading]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for reading in readings {
        for pair in reading.records.windows(2) {
            let (expected, offset) = (pair[0].0 + 1, pair[1].0);
            if offset != expected {
                found.push(Anomaly::OutOfOrder {
                    reader: reading.reader.clone(),
                    partition: reading.partition,
                    expected,
                    found: offset,
                });
            }
        }
    }
    found
}

/// At each offset one value, whoever says so: writers and every reader.
fn offsets(writes: &[Write], readings: &[Reading]) -> Vec<Anomaly> {
    let mut log: BTreeMap<(u32, u64), Vec<&str>> = BTreeMap::new();
    let read = readings.iter().flat_map(|reading| {
        reading.records.iter().map(|(offset, value)| ((reading.partition, *offset), value))
    });
    let acknowledged = writes.iter().filter_map(|write| match write.outcome {
        Outcome::Acknowledged(offset) => Some(((write.partition, offset), &write.value)),
        _ => None,
    });
    for (place, value) in read.chain(acknowledged) {
        let values = log.entry(place).or_default();
        if !values.contains(&value.as_str()) {
            values.push(value);
        }
    }
    log.into_iter()
        .filter(|(_, values)| values.len() > 1)
        .map(|((partition, offset), mut values)| {
            values.sort_unstable();
            let values = values.into_iter().map(str::to_owned).collect();
            Anomaly::InconsistentOffset { partition, offset, values }
        })
        .collect()
}

/// Each value once, and only values that somebody may have written.
fn values(writes: &[Write], readings: &[Reading]) -> Vec<Anomaly> {
    let written: HashMap<&str, &Write> =
        writes.iter().map(|write| (write.value.as_str(), write)).collect();
    let mut places: HashMap<&str, Vec<(u32, u64)>> = HashMap::new();
    for reading in readings {
        for (offset, value) in &reading.records {
            let places = places.entry(value).or_default();
            if !places.contains(&(reading.partition, *offset)) {
                places.push((reading.partition, *offset));
            }
        }
    }
    let mut found = Vec::new();
    for (value, mut places) in places {
        places.sort_unstable();
        let (partition, _) = places[0];
        match written.get(value).map(|write| write.outcome) {
            None => found.push(Anomaly::Invented { partition, value: value.to_owned() }),
            Some(Outcome::Failed) => {
                found.push(Anomaly::FailedWriteVisible { partition, value: value.to_owned() });
            }
            Some(Outcome::Acknowledged(_) | Outcome::Unknown) => {}
        }
        if places.len() > 1 {
            let offsets = places.into_iter().map(|(_, offset)| offset).collect();
            found.push(Anomaly::Duplicate { partition, value: value.to_owned(), offsets });
        }
    }
    found
}

/// Every acknowledged value is at its offset for every reader.
fn lost(writes: &[Write], readings: &[Reading]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for reading in readings {
        let seen: HashMap<u64, &str> =
            reading.records.iter().map(|(offset, value)| (*offset, value.as_str())).collect();
        for write in writes.iter().filter(|write| write.partition == reading.partition) {
            let Outcome::Acknowledged(offset) = write.outcome else { continue };
            if seen.get(&offset) != Some(&write.value.as_str()) {
                found.push(Anomaly::LostWrite {
                    reader: reading.reader.clone(),
                    partition: write.partition,
                    offset,
                    value: write.value.clone(),
                });
            }
        }
    }
    found
}
