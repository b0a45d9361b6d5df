//! Metadata of another release: what this one must not guess at.
//!
//! A node that meets a fact it cannot read has no image any more that it could go
//! on with. It stops, and leaves everything on its disk as it is: a release that
//! reads the fact goes on from there.

use crate::image::Image;
use crate::records::{DecodeError, FeatureLevel, FeatureLevels, MetadataRecord};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;

/// Why this release cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Incompatible {
    /// A record that only another release reads.
    #[error("{place}: {error}")]
    Record {
        /// Where it is.
        place: String,
        /// What the decoder said.
        error: DecodeError,
    },
    /// The cluster has moved on.
    #[error(
        "{place}: the cluster is at feature level {finalised}, and this release supports \
         {supported}"
    )]
    Level {
        /// Where that is said.
        place: String,
        /// The cluster's.
        finalised: FeatureLevel,
        /// This release's.
        supported: FeatureLevels,
    },
}

impl Incompatible {
    /// If that is what an error is about.
    pub(crate) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().cloned()
    }

    /// Whether a release may hold this image.
    pub(crate) fn check(image: &Image, supported: FeatureLevels, place: &str) -> Result<(), Self> {
        let finalised = image.feature_level;
        if supported.contains(finalised) {
            return Ok(());
        }
        Err(Self::Level { place: place.to_owned(), finalised, supported })
    }
}

impl From<Incompatible> for io::Error {
    fn from(incompatible: Incompatible) -> Self {
        Self::new(io::ErrorKind::Unsupported, incompatible)
    }
}

/// A record as it travels and rests in entries and snapshots. One of a version
/// that this release does not read is kept as it is: whether it counts is known
/// when its entry is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every fact is a known one")]
pub(crate) enum Fact {
    Known(MetadataRecord),
    Unknown { version: u8, bytes: Vec<u8> },
}

impl Fact {
    /// The record, if this release reads it.
    pub(crate) fn read(&self, place: &dyn fmt::Display) -> Result<&MetadataRecord, Incompatible> {
        match self {
            Self::Known(record) => Ok(record),
            Self::Unknown { version, .. } => {
                let error = DecodeError::UnknownVersion { found: *version };
                Err(Incompatible::Record { place: place.to_string(), error })
            }
        }
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(record) => serializer.serialize_bytes(&record.encode()),
            Self::Unknown { bytes, .. } => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Fact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(FactVisitor)
    }
}

struct FactVisitor;

impl Visitor<'_> for FactVisitor {
    type Value = Fact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a metadata record")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Fact, E> {
        match MetadataRecord::decode(bytes) {
            Ok(record) => Ok(Fact::Known(record)),
            Err(DecodeError::UnknownVersion { found }) => {
                Ok(Fact::Unknown { version: found, bytes: bytes.to_vec() })
            }
            Err(error) => Err(E::custom(error)),
        }
    }
}
