//! The options of a topic: names, defaults, bounds, parsing.
//!
//! Only options that somebody set are stored, so that a default can change
//! without touching what was chosen. An option that this release does not know
//! is refused, not ignored: nodes that ignored it would end up with another
//! image than those that know it.

mod values;

#[cfg(test)]
mod tests;

pub use values::{CleanupPolicy, Durability, Ratio, TimestampType};

use ottla_proto::MAX_BATCH_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use values::OptionValue;

/// Least `max.message.bytes`, in bytes. A batch has a header of 61 bytes; a
/// smaller bound would refuse every write.
pub const MIN_MAX_MESSAGE_BYTES: u32 = 100;

/// Largest `max.message.bytes`, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "8 MiB")]
pub const MAX_MAX_MESSAGE_BYTES: u32 = MAX_BATCH_BYTES as u32;

/// Least `segment.bytes`. Below it a log would be mostly file names.
pub const MIN_SEGMENT_BYTES: u64 = 4096;

/// Largest `segment.bytes`: index entries hold positions of 31 bits, as
/// Kafka's do.
pub const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

/// What stands for "no bound" where an option may be without one.
pub const UNLIMITED: i64 = -1;

/// Kafka's "never": the largest time or count an option takes.
const MAX_LONG: u64 = i64::MAX as u64;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Makes the option structs from one table of options: field, type, name,
/// default, least and most (both included).
macro_rules! options {
    ($(
        $(#[$doc:meta])*
        $field:ident: $type:ty = $name:literal, $default:expr, $least:expr, $most:expr;
    )*) => {
        /// The options that were set; absent means the default.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct TopicOptions {
            $(
                #[doc = concat!("`", $name, "`.")]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        /// A topic's configuration: every value, and which of them were set.
        /// Serialises as the options that were set.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "TopicOptions", into = "TopicOptions")]
        pub struct TopicConfig {
            $($(#[$doc])* pub $field: $type,)*
            options: TopicOptions,
        }

        /// The names of all options, in the order in which they are shown.
        pub const OPTION_NAMES: &[&str] = &[$($name),*];

        impl TopicOptions {
            fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
                match name {
                    $($name => self.$field = Some(parse($name, value)?),)*
                    _ => return Err(ConfigError::Unknown { name: name.to_owned() }),
                }
                Ok(())
            }

            fn unset(&mut self, name: &str) -> Result<(), ConfigError> {
                match name {
                    $($name => self.$field = None,)*
                    _ => return Err(ConfigError::Unknown { name: name.to_owned() }),
                }
                Ok(())
            }

            fn check_bounds(&self) -> Result<(), ConfigError> {
                $(within($name, self.$field, $least, $most)?;)*
                Ok(())
            }
        }

        impl TopicConfig {
            fn resolve(options: TopicOptions) -> Self {
                Self {
                    $($field: options.$field.unwrap_or($default),)*
                    options,
                }
            }

            /// Every option: name, value in force, and whether it was set.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, String, bool)> {
                [$(($name, self.$field.to_string(), self.options.$field.is_some())),*].into_iter()
            }
        }
    };
}

options! {
    /// `cleanup.policy`: what happens to old records.
    cleanup_policy: CleanupPolicy = "cleanup.policy",
        CleanupPolicy::Delete, CleanupPolicy::Delete, CleanupPolicy::CompactDelete;
    /// `delete.retention.ms`: how long compaction keeps a tombstone after it was
    /// first cleaned, in milliseconds.
    delete_retention_ms: u64 = "delete.retention.ms", DAY_MS, 0, MAX_LONG;
    /// What an acknowledgement means.
    durability: Durability = "durability", Durability::Disk, Durability::Disk, Durability::Memory;
    /// `flush.messages`: records that may stay unsynced when nobody asks for a
    /// sync. The largest value: any number.
    flush_messages: u64 = "flush.messages", MAX_LONG, 1, MAX_LONG;
    /// `flush.ms`: longest time an append may stay unsynced when nobody asks for
    /// a sync, in milliseconds. The largest value: as long as the system likes.
    flush_ms: u64 = "flush.ms", MAX_LONG, 0, MAX_LONG;
    /// `index.interval.bytes`: bytes of log for one index entry.
    index_interval_bytes: u32 = "index.interval.bytes", 4096, 0, i32::MAX.unsigned_abs();
    /// `max.compaction.lag.ms`: older records are compacted whatever the dirty
    /// ratio, in milliseconds. The largest value: the ratio alone decides.
    max_compaction_lag_ms: u64 = "max.compaction.lag.ms", MAX_LONG, 1, MAX_LONG;
    /// Largest record batch, in bytes.
    max_message_bytes: u32 = "max.message.bytes",
        1024 * 1024, MIN_MAX_MESSAGE_BYTES, MAX_MAX_MESSAGE_BYTES;
    /// `message.timestamp.type`: whose clock the records carry.
    message_timestamp_type: TimestampType = "message.timestamp.type",
        TimestampType::CreateTime, TimestampType::CreateTime, TimestampType::LogAppendTime;
    /// `min.cleanable.dirty.ratio`: share of the log that must be uncompacted
    /// before compaction is worth it.
    min_cleanable_dirty_ratio: Ratio = "min.cleanable.dirty.ratio",
        Ratio::from_permille(500), Ratio::from_permille(0), Ratio::WHOLE;
    /// `min.compaction.lag.ms`: younger records are not compacted, in
    /// milliseconds.
    min_compaction_lag_ms: u64 = "min.compaction.lag.ms", 0, 0, MAX_LONG;
    /// In-sync replicas that an acks=all write needs, before it is bounded by
    /// the number of replicas (see
    /// [`effective_min_isr`](Self::effective_min_isr)). By default 2: with three
    /// replicas one may be away, and no single disk holds the only copy.
    min_insync_replicas: u32 = "min.insync.replicas", 2, 1, u32::MAX;
    /// `retention.bytes`: the oldest segments go while the rest is still this
    /// large; [`UNLIMITED`]: they stay.
    retention_bytes: i64 = "retention.bytes", UNLIMITED, UNLIMITED, i64::MAX;
    /// `retention.ms`: age at which segments are deleted, in milliseconds;
    /// [`UNLIMITED`]: never.
    retention_ms: i64 = "retention.ms", 7 * DAY_MS.cast_signed(), UNLIMITED, i64::MAX;
    /// Size at which a segment is closed, in bytes.
    segment_bytes: u64 = "segment.bytes", 1024 * 1024 * 1024, MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES;
    /// `segment.ms`: age at which a segment is closed, in milliseconds.
    segment_ms: u64 = "segment.ms", 7 * DAY_MS, 1, MAX_LONG;
    /// `unclean.leader.election.enable`: while nobody is there who has every
    /// acknowledged record, somebody may lead who has not. What it lacks is lost.
    unclean_leader_election_enable: bool = "unclean.leader.election.enable", false, false, true;
}

/// An option that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such option.
    #[error("unknown topic option `{name}`; known are {}", OPTION_NAMES.join(", "))]
    Unknown {
        /// The option.
        name: String,
    },
    /// The option exists, the value does not fit it.
    #[error("`{value}` is not a value for {name}: expected {expected}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// The value given.
        value: String,
        /// What it takes.
        expected: String,
    },
    /// To be set and unset at once.
    #[error("{name} cannot be both set and unset")]
    SetAndUnset {
        /// The option.
        name: String,
    },
}

impl ConfigError {
    /// The option that is meant.
    #[must_use]
    pub fn option(&self) -> &str {
        match self {
            Self::Unknown { name } | Self::SetAndUnset { name } => name,
            Self::BadValue { name, .. } => name,
        }
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::resolve(TopicOptions::default())
    }
}

impl TopicConfig {
    /// Reads options by name.
    ///
    /// # Errors
    /// The first option, by name, that is unknown or has a value it cannot
    /// take.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let set = options
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
            .collect();
        Self::default().altered(&set, &BTreeSet::new())
    }

    /// This configuration with some options set and some back at their
    /// defaults. Unsetting what is not set changes nothing.
    ///
    /// # Errors
    /// The first option, by name, that is unknown, has a value it cannot take,
    /// or is to be both set and unset.
    pub fn altered(
        &self,
        set: &BTreeMap<String, String>,
        unset: &BTreeSet<String>,
    ) -> Result<Self, ConfigError> {
        let mut options = self.options.clone();
        for name in unset {
            if set.contains_key(name) {
                return Err(ConfigError::SetAndUnset { name: name.clone() });
            }
            options.unset(name)?;
        }
        for (name, value) in set {
            options.set(name, value)?;
        }
        Self::try_from(options)
    }

    /// The options that were set, as [`parse`](Self::parse) reads them.
    #[must_use]
    pub fn set_options(&self) -> BTreeMap<String, String> {
        let set = self.entries().filter(|(_, _, set)| *set);
        set.map(|(name, value, _)| (name.to_owned(), value)).collect()
    }

    /// The options that were set, typed.
    #[must_use]
    pub fn options(&self) -> &TopicOptions {
        &self.options
    }

    /// In-sync replicas that an acks=all write really needs in a partition of
    /// so many replicas: a topic of one replica needs one.
    #[must_use]
    pub fn effective_min_isr(&self, replicas: usize) -> usize {
        usize::try_from(self.min_insync_replicas).unwrap_or(usize::MAX).min(replicas)
    }
}

impl TryFrom<TopicOptions> for TopicConfig {
    type Error = ConfigError;

    fn try_from(options: TopicOptions) -> Result<Self, ConfigError> {
        options.check_bounds()?;
        let config = Self::resolve(options);
        let (least, most) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
        if least > most {
            return Err(ConfigError::BadValue {
                name: "min.compaction.lag.ms",
                value: least.to_string(),
                expected: format!("at most max.compaction.lag.ms, which is {most}"),
            });
        }
        Ok(config)
    }
}

impl From<TopicConfig> for TopicOptions {
    fn from(config: TopicConfig) -> Self {
        config.options
    }
}

fn parse<T: OptionValue>(name: &'static str, value: &str) -> Result<T, ConfigError> {
    T::parse(value).map_err(|expected| ConfigError::BadValue {
        name,
        value: value.to_owned(),
        expected: expected.to_owned(),
    })
}

fn within<T: PartialOrd + Display>(
    name: &'static str,
    value: Option<T>,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    match value {
        Some(value) if value < least || value > most => Err(ConfigError::BadValue {
            name,
            value: value.to_string(),
            expected: format!("{least} to {most}"),
        }),
        _ => Ok(()),
    }
}
