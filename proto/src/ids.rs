//! Id newtypes. Two numbers that must not be mixed up do not share a type;
//! offsets are counted with all the time and stay a plain `u64`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Position of a record in a partition's log, from 0.
pub type Offset = u64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A node of the cluster, chosen by the operator, from 1.
    NodeId(u64)
}
number! {
    /// Generation of a partition's leadership. Stamped into every record batch.
    LeaderEpoch(u32)
}
number! {
    /// Version of a partition's metadata record: +1 on every change.
    PartitionEpoch(u32)
}
number! {
    /// One registration of a broker: the metadata offset of its record.
    BrokerEpoch(u64)
}
number! {
    /// Number of metadata records applied: the version of an image.
    MetadataOffset(u64)
}

impl LeaderEpoch {
    /// The epoch of the next leadership.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^32 leaderships of one partition"))
    }
}

impl PartitionEpoch {
    /// The version after one more change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^32 changes of one partition"))
    }
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new random one.
            #[must_use]
            pub fn random() -> Self {
                Self(uuid::Uuid::new_v4())
            }

            /// From its 16 bytes on the wire; `None` for any other length.
            #[must_use]
            pub fn from_wire(bytes: &[u8]) -> Option<Self> {
                uuid::Uuid::from_slice(bytes).ok().map(Self)
            }

            /// The 16 bytes that go on the wire.
            #[must_use]
            pub fn to_wire(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid! {
    /// A topic, for ever: deleting and re-creating a name gives a new id.
    TopicId
}
uuid! {
    /// One run of a node's process.
    IncarnationId
}
uuid! {
    /// One request of an operator, however often it is sent.
    RequestId
}
uuid! {
    /// A data directory since it was formatted.
    DirectoryId
}

/// A partition, wherever it is hosted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic's id.
    pub topic: TopicId,
    /// Index within the topic, from 0.
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
