//! The options of a topic: parsing, bounds and defaults.
//!
//! Only options that somebody set are stored, so that a default can change
//! without touching what was chosen.

use ottla_proto::MAX_BATCH_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// In-sync replicas an acks=all write needs, unless the topic says otherwise:
/// with three replicas one may be away, and no single disk holds the only copy.
pub const DEFAULT_MIN_INSYNC_REPLICAS: u32 = 2;

/// Largest record batch, in bytes, unless the topic says otherwise.
pub const DEFAULT_MAX_MESSAGE_BYTES: u32 = 1024 * 1024;

/// Size at which a log segment is closed, in bytes, unless the topic says
/// otherwise.
pub const DEFAULT_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;

/// Least `max.message.bytes`, in bytes. A batch has a header of 61 bytes; a
/// smaller bound would refuse every write.
pub const MIN_MAX_MESSAGE_BYTES: u32 = 100;

/// Least `segment.bytes`. Below it a log would be mostly file names.
pub const MIN_SEGMENT_BYTES: u64 = 4096;

/// Largest `segment.bytes`: index entries hold positions of 31 bits, as
/// Kafka's do.
pub const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const DURABILITY: &str = "durability";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const SEGMENT_BYTES: &str = "segment.bytes";

/// What an acknowledged acks=all write has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Stable storage of every in-sync replica.
    #[default]
    Disk,
    /// The page cache of every in-sync replica (Kafka's meaning).
    Memory,
}

impl Durability {
    /// As in a configuration: `disk` or `memory`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// The options that were set; absent means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicOptions {
    /// `min.insync.replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_insync_replicas: Option<u32>,
    /// `durability`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// `max.message.bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message_bytes: Option<u32>,
    /// `segment.bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_bytes: Option<u64>,
}

/// A topic's configuration: every value, and which of them were set. Serialises
/// as the options that were set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TopicOptions", into = "TopicOptions")]
pub struct TopicConfig {
    /// In-sync replicas that an acks=all write needs, before it is bounded by
    /// the number of replicas (see
    /// [`effective_min_isr`](Self::effective_min_isr)).
    pub min_insync_replicas: u32,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Largest record batch, in bytes.
    pub max_message_bytes: u32,
    /// Size at which a segment is closed, in bytes.
    pub segment_bytes: u64,
    options: TopicOptions,
}

/// An option that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such option.
    #[error(
        "unknown topic option `{name}`; known are {MIN_INSYNC_REPLICAS}, {DURABILITY}, \
         {MAX_MESSAGE_BYTES} and {SEGMENT_BYTES}"
    )]
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
}

impl ConfigError {
    /// The option that is meant.
    #[must_use]
    pub fn option(&self) -> &str {
        match self {
            Self::Unknown { name } => name,
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
        let sorted: BTreeMap<String, String> = options
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
            .collect();
        let mut set = TopicOptions::default();
        for (name, value) in &sorted {
            match name.as_str() {
                MIN_INSYNC_REPLICAS => {
                    set.min_insync_replicas = Some(number(MIN_INSYNC_REPLICAS, value)?);
                }
                DURABILITY => set.durability = Some(durability(value)?),
                MAX_MESSAGE_BYTES => {
                    set.max_message_bytes = Some(number(MAX_MESSAGE_BYTES, value)?);
                }
                SEGMENT_BYTES => set.segment_bytes = Some(number(SEGMENT_BYTES, value)?),
                _ => return Err(ConfigError::Unknown { name: name.clone() }),
            }
        }
        Self::try_from(set)
    }

    /// The options that were set, as [`parse`](Self::parse) reads them.
    #[must_use]
    pub fn set_options(&self) -> BTreeMap<String, String> {
        let options = &self.options;
        [
            (MIN_INSYNC_REPLICAS, options.min_insync_replicas.map(|v| v.to_string())),
            (DURABILITY, options.durability.map(|v| v.as_str().to_owned())),
            (MAX_MESSAGE_BYTES, options.max_message_bytes.map(|v| v.to_string())),
            (SEGMENT_BYTES, options.segment_bytes.map(|v| v.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
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

    fn resolve(options: TopicOptions) -> Self {
        Self {
            min_insync_replicas: options.min_insync_replicas.unwrap_or(DEFAULT_MIN_INSYNC_REPLICAS),
            durability: options.durability.unwrap_or_default(),
            max_message_bytes: options.max_message_bytes.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES),
            segment_bytes: options.segment_bytes.unwrap_or(DEFAULT_SEGMENT_BYTES),
            options,
        }
    }
}

impl TryFrom<TopicOptions> for TopicConfig {
    type Error = ConfigError;

    fn try_from(options: TopicOptions) -> Result<Self, ConfigError> {
        let largest_batch = u32::try_from(MAX_BATCH_BYTES).unwrap_or(u32::MAX);
        within(MIN_INSYNC_REPLICAS, options.min_insync_replicas, 1, u32::MAX)?;
        within(MAX_MESSAGE_BYTES, options.max_message_bytes, MIN_MAX_MESSAGE_BYTES, largest_batch)?;
        within(SEGMENT_BYTES, options.segment_bytes, MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)?;
        Ok(Self::resolve(options))
    }
}

impl From<TopicConfig> for TopicOptions {
    fn from(config: TopicConfig) -> Self {
        config.options
    }
}

fn number<T: FromStr>(name: &'static str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::BadValue {
        name,
        value: value.to_owned(),
        expected: "a whole number".to_owned(),
    })
}

fn durability(value: &str) -> Result<Durability, ConfigError> {
    match value {
        "disk" => Ok(Durability::Disk),
        "memory" => Ok(Durability::Memory),
        _ => Err(ConfigError::BadValue {
            name: DURABILITY,
            value: value.to_owned(),
            expected: "disk or memory".to_owned(),
        }),
    }
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
