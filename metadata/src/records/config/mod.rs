//! The options of topics (here) and of nodes (`node`): names, defaults, bounds,
//! parsing. A topic's options can have defaults that were set for the cluster.
//!
//! Only options that somebody set are stored, so that a default can change
//! without touching what was chosen. An option that this release does not know
//! is refused, not ignored: nodes that ignored it would end up with another
//! image than those that know it.

mod error;
mod fixed;
mod info;
mod node;
mod values;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use info::OptionInfo;
pub use node::{
    MAX_NODE_MEMORY_BYTES, MAX_NODE_MS, NodeDefault, NodeOption, NodeOptions, NodeValue,
    node_option, node_options,
};
pub use values::{CleanupPolicy, Durability, LogFilter, Ratio, TimestampType};

use ottla_proto::MAX_BATCH_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use values::{A_WHOLE_NUMBER, OptionValue};

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

        /// A topic's configuration: every value, and where it comes from. Serialises
        /// as the options that were set on the topic: the cluster's defaults are a
        /// fact of their own.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "TopicOptions", into = "TopicOptions")]
        pub struct TopicConfig {
            $($(#[$doc])* pub $field: $type,)*
            options: TopicOptions,
            /// The cluster's defaults.
            inherited: Arc<TopicOptions>,
        }

        /// The names of all options, in the order in which they are shown.
        pub const OPTION_NAMES: &[&str] = &[$($name),*];

        impl TopicOptions {
            fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
                match name {
                    $($name => self.$field = Some(parse($name, value)?),)*
                    _ => return Err(unknown(name)),
                }
                Ok(())
            }

            fn unset(&mut self, name: &str) -> Result<(), ConfigError> {
                match name {
                    $($name => self.$field = None,)*
                    _ => return Err(unknown(name)),
                }
                Ok(())
            }

            fn check_bounds(&self) -> Result<(), ConfigError> {
                $(within($name, self.$field, $least, $most)?;)*
                Ok(())
            }
        }

        impl TopicConfig {
            fn resolve(options: TopicOptions, inherited: Arc<TopicOptions>) -> Self {
                Self {
                    $($field: options.$field.or(inherited.$field).unwrap_or($default),)*
                    options,
                    inherited,
                }
            }

            /// Every option: name, value in force, and who set it.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, String, TopicSource)> {
                let source = |topic: bool, cluster: bool| match (topic, cluster) {
                    (true, _) => TopicSource::Topic,
                    (false, true) => TopicSource::Cluster,
                    (false, false) => TopicSource::Default,
                };
                [$((
                    $name,
                    self.$field.to_string(),
                    source(self.options.$field.is_some(), self.inherited.$field.is_some()),
                )),*].into_iter()
            }
        }

        /// Every option of topics; all of them change while topics are used.
        #[must_use]
        pub fn topic_options() -> Vec<OptionInfo> {
            vec![$(listed::<$type>($name, $default, $least, $most)),*]
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

/// Who set a topic's option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicSource {
    /// The topic has it set.
    Topic,
    /// The cluster has it set, for every topic that has not.
    Cluster,
    /// Nobody.
    Default,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::resolve(TopicOptions::default(), Arc::default())
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

    /// The same options of its own, with these defaults of the cluster. Whether
    /// the two contradict each other, [`check`](Self::check) says.
    #[must_use]
    pub fn with_defaults(&self, defaults: &Arc<TopicOptions>) -> Self {
        Self::resolve(self.options.clone(), Arc::clone(defaults))
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
        options.check_bounds()?;
        let config = Self::resolve(options, Arc::clone(&self.inherited));
        config.check()?;
        Ok(config)
    }

    /// Whether the values in force fit together.
    ///
    /// # Errors
    /// The option that contradicts another.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (least, most) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
        if least > most {
            return Err(ConfigError::BadValue {
                name: "min.compaction.lag.ms",
                value: least.to_string(),
                expected: format!("at most max.compaction.lag.ms, which is {most}"),
            });
        }
        Ok(())
    }

    /// The options that were set on the topic, as [`parse`](Self::parse) reads them.
    #[must_use]
    pub fn set_options(&self) -> BTreeMap<String, String> {
        let set = self.entries().filter(|(_, _, source)| *source == TopicSource::Topic);
        set.map(|(name, value, _)| (name.to_owned(), value)).collect()
    }

    /// The options that were set on the topic, typed.
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
        let config = Self::resolve(options, Arc::default());
        config.check()?;
        Ok(config)
    }
}

impl From<TopicConfig> for TopicOptions {
    fn from(config: TopicConfig) -> Self {
        config.options
    }
}

/// The option of topics of this name.
#[must_use]
pub fn topic_option(name: &str) -> Option<&'static str> {
    OPTION_NAMES.iter().copied().find(|known| *known == name)
}

fn unknown(name: &str) -> ConfigError {
    ConfigError::Unknown { what: "topic", name: name.to_owned(), known: OPTION_NAMES.to_vec() }
}

fn listed<T: OptionValue>(name: &'static str, default: T, least: T, most: T) -> OptionInfo {
    // What is no value of anything says what is one.
    let words = T::parse("").err().filter(|expected| *expected != A_WHOLE_NUMBER);
    OptionInfo {
        name,
        unit: info::unit(name),
        default: Some(default.to_string()),
        takes: words.map_or_else(|| format!("{least} to {most}"), str::to_owned),
        dynamic: true,
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
