//! Feature levels: which records a cluster may hold (Kafka's metadata.version,
//! KIP-584).
//!
//! A release reads every level up to its newest one, and a cluster writes only what
//! its *finalised* level allows. So nodes are upgraded one by one while the level
//! stays, and once all of them have the new release an operator raises it. There is
//! no way back: what a level allows may be in the log from then on.
//!
//! Not its job: who may raise it, and when (`controller::features`).

use super::RECORD_VERSION;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The newest record version that each level allows; the first level is 1. A new
/// record version belongs to a new line, unless no release has the last line yet.
const NEWEST_VERSIONS: [u8; 2] = [6, 9];

/// What the records of a cluster may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureLevel(pub u16);

impl FeatureLevel {
    /// The first. In force where no fact says otherwise.
    pub const FIRST: Self = Self(1);

    /// The newest that this release knows.
    #[expect(clippy::cast_possible_truncation, reason = "a handful")]
    pub const NEWEST: Self = Self(NEWEST_VERSIONS.len() as u16);

    /// The first level that allows a record version.
    pub(super) fn of_version(version: u8) -> Self {
        let levels = (Self::FIRST.0..).zip(NEWEST_VERSIONS);
        let allows = levels.map(|(level, newest)| (Self(level), newest));
        allows.into_iter().find(|(_, newest)| *newest >= version).map_or(Self::NEWEST, |(at, _)| at)
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// Every version belongs to a level.
const _: () = assert!(NEWEST_VERSIONS[NEWEST_VERSIONS.len() - 1] == RECORD_VERSION);

/// The levels that a release supports. A node that registered before there were
/// levels supports the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLevels {
    /// The oldest.
    pub min: FeatureLevel,
    /// The newest.
    pub max: FeatureLevel,
}

impl FeatureLevels {
    /// Those of this release.
    pub const SUPPORTED: Self = Self { min: FeatureLevel::FIRST, max: FeatureLevel::NEWEST };

    /// Whether a release can be part of a cluster of this level.
    #[must_use]
    pub fn contains(&self, level: FeatureLevel) -> bool {
        (self.min..=self.max).contains(&level)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
    pub(super) fn are_first(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for FeatureLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The cluster may hold from now on what this level allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLevelFinalised {
    /// Higher than before.
    pub level: FeatureLevel,
}
