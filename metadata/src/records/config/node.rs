//! The options of a node: the one table of their names, defaults and bounds.
//!
//! Those that a running node follows can also be set in the metadata, for one
//! node or for all of them ([`NodeOptions`]); the others only in the node's own
//! configuration, which is read at its start.
//!
//! Not its job: reading that configuration, and carrying anything out.

use super::info::{OptionInfo, unit};
use super::values::{LogFilter, OptionValue};
use super::{ConfigError, MAX_LONG};
use ottla_commitlog::{DEFAULT_HOT_TAIL_BYTES, DEFAULT_KEY_MAP_BYTES, MAX_APPEND_BYTES};
use ottla_proto::MAX_BATCH_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an option of a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeValue {
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Least and most, both included.
    Number(u64, u64),
    /// The same, or 0 for no limit.
    Limit(u64, u64),
    /// `true` or `false`.
    Flag,
    /// `one,two`
    List,
    /// `1=host:port,2=host:port`
    Voters,
    /// Levels of log lines, see [`LogFilter`].
    LogFilter,
}

/// The value of an option that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeDefault {
    /// There is none: the option is required, or may be absent.
    None,
    /// A number.
    Number(u64),
    /// A text.
    Text(&'static str),
    /// `true` or `false`.
    Flag(bool),
}

/// An option of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeOption {
    /// Its name.
    pub name: &'static str,
    /// As it stands in the table: lines that each begin with a space, or one without.
    pub(super) doc: &'static str,
    /// What it takes.
    pub value: NodeValue,
    /// Where nobody set it.
    pub default: NodeDefault,
    /// Whether a running node follows it, and the metadata can hold it.
    pub dynamic: bool,
}

/// Longest time, in milliseconds, that an interval or a patience may take: a
/// year. What is longer was mistyped.
pub const MAX_NODE_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Most bytes that a node can be told to keep in memory for one purpose: 4 GiB.
pub const MAX_NODE_MEMORY_BYTES: u64 = u32::MAX as u64;

pub(super) const MS: NodeValue = NodeValue::Number(1, MAX_NODE_MS);
const MEMORY: NodeValue = NodeValue::Number(1, MAX_NODE_MEMORY_BYTES);

/// One largest batch must fit, or it could never be written. What waits for a
/// partition is appended in one write, so that one write bounds it.
const IN_FLIGHT: NodeValue = NodeValue::Number(MAX_BATCH_BYTES as u64, MAX_APPEND_BYTES as u64);

/// Slowest limit of copies to followers, in bytes a second: what takes hours for a
/// gigabyte. Below, the largest batches would take minutes each.
const COPY_SPEED: NodeValue = NodeValue::Limit(64 * 1024, MAX_LONG);

/// What a disk can be told to have left, in bytes: as much as a number holds in a file.
const DISK_ROOM: NodeValue = NodeValue::Number(0, MAX_LONG);

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Makes [`NodeOptions`] and its part of the table: field, type, what it takes,
/// default.
macro_rules! dynamic_options {
    ($(
        $(#[doc = $doc:literal])*
        $field:ident: $type:ty = $value:expr, $default:expr;
    )*) => {
        /// Options of nodes as set in the metadata; absent: not there. In records
        /// they are name and value, as people write them.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
        pub struct NodeOptions {
            $($(#[doc = $doc])* pub $field: Option<$type>,)*
        }

        const DYNAMIC: &[NodeOption] = &[$(NodeOption {
            name: stringify!($field),
            doc: concat!($($doc),*),
            value: $value,
            default: $default,
            dynamic: true,
        }),*];

        impl NodeOptions {
            /// # Errors
            /// The option is unknown or needs a restart, or its bounds forbid the value.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
                let option = dynamic(name)?;
                match name {
                    $(stringify!($field) => self.$field = Some(option.parse(value)?),)*
                    _ => unreachable!("dynamic options are the fields"),
                }
                Ok(())
            }

            /// # Errors
            /// The option is unknown or needs a restart.
            pub fn unset(&mut self, name: &str) -> Result<(), ConfigError> {
                dynamic(name)?;
                match name {
                    $(stringify!($field) => self.$field = None,)*
                    _ => unreachable!("dynamic options are the fields"),
                }
                Ok(())
            }

            /// The value of an option, if it is set.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $(stringify!($field) => self.$field.as_ref().map(ToString::to_string),)*
                    _ => None,
                }
            }

            /// These options, and where they are not set those.
            #[must_use]
            pub fn or(&self, defaults: &Self) -> Self {
                Self { $($field: self.$field.clone().or_else(|| defaults.$field.clone()),)* }
            }
        }
    };
}

dynamic_options! {
    /// Bytes a second that the node sends at most to followers that are behind and
    /// not in sync, all together. 0: no limit; those in sync go first anyway.
    catch_up_bytes_per_second: u64 = COPY_SPEED, NodeDefault::Number(0);
    /// Free bytes of a data directory's disk below which somebody should look: the node's
    /// log, `ottla cluster disk` and `/metrics` say so. At most 15 % of the disk count. 0:
    /// never.
    disk_alert_free_bytes: u64 = DISK_ROOM, NodeDefault::Number(20 * GIB);
    /// Free bytes below which clients' writes to this disk are refused (DISK_FULL) until
    /// there is a quarter more; below half of it, copies of other leaders' records too. At
    /// most 5 % of the disk count. 0: until it is full.
    disk_refuse_free_bytes: u64 = DISK_ROOM, NodeDefault::Number(GIB);
    /// Memory for what was appended last: reads of it need no disk. 0: none.
    hot_tail_bytes: u64 = NodeValue::Number(0, MAX_NODE_MEMORY_BYTES),
        NodeDefault::Number(DEFAULT_HOT_TAIL_BYTES as u64);
    /// How often the logs are looked at for records to compact.
    log_cleaner_backoff_ms: u64 = MS, NodeDefault::Number(15_000);
    /// Bytes a second that compaction reads and writes at most.
    log_cleaner_bytes_per_second: u64 =
        NodeValue::Number(1, MAX_LONG), NodeDefault::Number(64 * MIB);
    /// Memory for the keys of the compaction that runs.
    log_cleaner_key_map_bytes: u64 = MEMORY, NodeDefault::Number(DEFAULT_KEY_MAP_BYTES as u64);
    /// How often the logs are looked at for `flush.ms` and `flush.messages`.
    log_flush_check_ms: u64 = MS, NodeDefault::Number(1_000);
    /// Which log lines are written.
    log_level: LogFilter = NodeValue::LogFilter, NodeDefault::Text("info");
    /// How often the logs are looked at for records that are too old or too many.
    log_retention_check_ms: u64 = MS, NodeDefault::Number(300_000);
    /// Bytes of produce requests that the node holds at once; more are throttled.
    max_in_flight_produce_bytes: u64 = IN_FLIGHT, NodeDefault::Number(64 * MIB);
    /// Bytes a second that the node sends at most to followers that a reassignment
    /// adds. 0: no limit.
    reassignment_bytes_per_second: u64 = COPY_SPEED, NodeDefault::Number(0);
    /// A follower that has not caught up for so long leaves the ISR.
    replica_lag_max_ms: u64 = MS, NodeDefault::Number(10_000);
    /// How long the node, when it stops, tries to hand its leaderships over. Below
    /// the ten seconds that container engines grant; a hand-over takes
    /// milliseconds.
    shutdown_timeout_ms: u64 = NodeValue::Number(0, MAX_NODE_MS), NodeDefault::Number(8_000);
}

/// Every option of a node; those that change while it runs come first.
pub fn node_options() -> impl Iterator<Item = &'static NodeOption> {
    DYNAMIC.iter().chain(super::fixed::FIXED)
}

/// The option of this name.
#[must_use]
pub fn node_option(name: &str) -> Option<&'static NodeOption> {
    node_options().find(|option| option.name == name)
}

/// Names of the options that the metadata can hold for nodes.
pub(super) fn dynamic_names() -> impl Iterator<Item = &'static str> {
    DYNAMIC.iter().map(|option| option.name)
}

fn dynamic(name: &str) -> Result<&'static NodeOption, ConfigError> {
    match node_option(name) {
        Some(option) if option.dynamic => Ok(option),
        Some(option) => Err(ConfigError::NeedsRestart { name: option.name }),
        None => {
            let known = dynamic_names().collect();
            Err(ConfigError::Unknown { what: "node", name: name.to_owned(), known })
        }
    }
}

impl NodeOption {
    /// What it is for, in a sentence or two for people.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.doc.trim_start()
    }

    /// What there is to know of it.
    #[must_use]
    pub fn info(&self) -> OptionInfo {
        let default = match self.default {
            NodeDefault::None => None,
            NodeDefault::Number(number) => Some(number.to_string()),
            NodeDefault::Text(text) => Some(text.to_owned()),
            NodeDefault::Flag(flag) => Some(flag.to_string()),
        };
        let (name, takes, dynamic) = (self.name, self.takes(), self.dynamic);
        OptionInfo { name, unit: unit(name), default, takes, dynamic }
    }

    /// The values that it takes.
    fn takes(&self) -> String {
        match self.value {
            NodeValue::Text => "text".to_owned(),
            NodeValue::Word(words) => words.join(" or "),
            NodeValue::Number(least, most) => format!("{least} to {most}"),
            NodeValue::Limit(least, most) => format!("0 (no limit) or {least} to {most}"),
            NodeValue::Flag => "true or false".to_owned(),
            NodeValue::List => "values with commas between them".to_owned(),
            NodeValue::Voters => "ID=HOST:PORT[,…]".to_owned(),
            NodeValue::LogFilter => LogFilter::EXPECTED.to_owned(),
        }
    }

    /// Whether a number is within its bounds.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] with the bounds.
    pub fn check_bounds(&self, number: u64) -> Result<(), ConfigError> {
        let fits = match self.value {
            NodeValue::Number(least, most) => (least..=most).contains(&number),
            NodeValue::Limit(least, most) => number == 0 || (least..=most).contains(&number),
            _ => true,
        };
        if fits { Ok(()) } else { Err(self.bad(&number.to_string(), self.takes())) }
    }

    fn bad(&self, value: &str, expected: String) -> ConfigError {
        ConfigError::BadValue { name: self.name, value: value.to_owned(), expected }
    }

    fn parse<T: OptionValue>(&self, text: &str) -> Result<T, ConfigError> {
        let value = T::parse(text).map_err(|expected| self.bad(text, expected.to_owned()))?;
        if let NodeValue::Number(..) | NodeValue::Limit(..) = self.value {
            // A number that is not one was refused already.
            self.check_bounds(text.parse().unwrap_or(u64::MAX))?;
        }
        Ok(value)
    }
}

impl NodeOptions {
    /// What is set, by name.
    #[must_use]
    pub fn set_options(&self) -> BTreeMap<String, String> {
        let set = dynamic_names().filter_map(|name| Some((name.to_owned(), self.get(name)?)));
        set.collect()
    }

    /// Nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl TryFrom<BTreeMap<String, String>> for NodeOptions {
    type Error = ConfigError;

    fn try_from(options: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut parsed = Self::default();
        for (name, value) in options {
            parsed.set(&name, &value)?;
        }
        Ok(parsed)
    }
}

impl From<NodeOptions> for BTreeMap<String, String> {
    fn from(options: NodeOptions) -> Self {
        options.set_options()
    }
}
