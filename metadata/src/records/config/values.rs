//! The types of option values: how each is written and stored.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a value is written in a configuration. `Display` writes what
/// [`parse`](Self::parse) reads.
pub(super) trait OptionValue: Sized + fmt::Display {
    /// # Errors
    /// What is expected instead.
    fn parse(text: &str) -> Result<Self, &'static str>;
}

/// What numbers expect.
pub(super) const A_WHOLE_NUMBER: &str = "a whole number";

macro_rules! whole_numbers {
    ($($type:ty),*) => {
        $(impl OptionValue for $type {
            fn parse(text: &str) -> Result<Self, &'static str> {
                text.parse().map_err(|_| A_WHOLE_NUMBER)
            }
        })*
    };
}

whole_numbers!(u32, u64, i64);

impl OptionValue for bool {
    fn parse(text: &str) -> Result<Self, &'static str> {
        text.parse().map_err(|_| "true or false")
    }
}

/// Words, each with the value it stands for.
macro_rules! words {
    ($type:ident, $expected:literal, $($value:ident = $word:literal),*) => {
        impl $type {
            /// As in a configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word),*
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl OptionValue for $type {
            fn parse(text: &str) -> Result<Self, &'static str> {
                match text {
                    $($word => Ok(Self::$value),)*
                    _ => Err($expected),
                }
            }
        }
    };
}

/// What an acknowledged acks=all write has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Stable storage of every in-sync replica.
    #[default]
    Disk,
    /// The page cache of every in-sync replica (Kafka's meaning).
    Memory,
}

words!(Durability, "disk or memory", Disk = "disk", Memory = "memory");

/// Whose clock a topic's records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Hash, Serialize, Deserialize)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The leader's, at the append.
    LogAppendTime,
}

words!(
    TimestampType,
    "CreateTime or LogAppendTime",
    CreateTime = "CreateTime",
    LogAppendTime = "LogAppendTime"
);

/// What happens to old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Hash, Serialize, Deserialize)]
pub enum CleanupPolicy {
    /// They are deleted by age and size.
    #[default]
    #[serde(rename = "delete")]
    Delete,
    /// Only the newest of each key is kept.
    #[serde(rename = "compact")]
    Compact,
    /// Both.
    #[serde(rename = "compact,delete")]
    CompactDelete,
}

impl CleanupPolicy {
    /// As in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }

    /// Retention by time and size applies.
    #[must_use]
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactDelete)
    }

    /// Only the newest record of a key is kept.
    #[must_use]
    pub fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactDelete)
    }
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl OptionValue for CleanupPolicy {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "delete" => Ok(Self::Delete),
            "compact" => Ok(Self::Compact),
            "compact,delete" | "delete,compact" => Ok(Self::CompactDelete),
            _ => Err("delete, compact, or both with a comma"),
        }
    }
}

/// A share, from 0 to 1, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratio(u16);

impl Ratio {
    /// All of it.
    pub const WHOLE: Self = Self(1000);

    /// So many thousandths; at most a thousand.
    #[must_use]
    pub const fn from_permille(permille: u16) -> Self {
        Self(permille)
    }

    /// In thousandths.
    #[must_use]
    pub const fn permille(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:03}", self.0 % 1000);
        match digits.trim_end_matches('0') {
            "" => write!(f, "{}", self.0 / 1000),
            part => write!(f, "{}.{part}", self.0 / 1000),
        }
    }
}

impl OptionValue for Ratio {
    /// Thousandths are as fine as it gets: more decimals would be stored as
    /// something else than what was written.
    fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "0 to 1, with at most three decimals";
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() != 1 || part.len() > 3 || !digits(whole) || !digits(part) {
            return Err(EXPECTED);
        }
        let permille = format!("{whole}{part:0<3}").parse().map_err(|_| EXPECTED)?;
        if permille > 1000 { Err(EXPECTED) } else { Ok(Self(permille)) }
    }
}

/// Which log lines a node writes: a level, or targets with levels, with commas
/// between them. A part of what tracing understands as a filter: the part that
/// needs no more than this to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// What can be written.
    pub const EXPECTED: &str = "error, warn, info, debug, trace or off, or such for single \
                                targets, as in info,ottla_replication=debug";

    /// Longest filter, in bytes: dozens of targets.
    pub const MAX_BYTES: usize = 1024;

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl OptionValue for LogFilter {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let named = |target: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
            !target.is_empty() && target.bytes().all(letter)
        };
        let directive = |part: &str| match part.split_once('=') {
            Some((target, level)) => named(target) && LEVELS.contains(&level),
            None => LEVELS.contains(&part),
        };
        if text.len() <= Self::MAX_BYTES && text.split(',').all(directive) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Self::EXPECTED)
        }
    }
}
