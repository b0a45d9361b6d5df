//! Options that cannot be taken.

/// An option that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such option.
    #[error("unknown {what} option `{name}`; known are {}", known.join(", "))]
    Unknown {
        /// Of what: `topic`, `node`, `cluster`.
        what: &'static str,
        /// The option.
        name: String,
        /// Those that there are.
        known: Vec<&'static str>,
    },
    /// An option of nodes that running nodes do not look at again.
    #[error(
        "{name} cannot change while a node runs: set it in the node's configuration file (or its \
         environment, or as a flag) and restart the node"
    )]
    NeedsRestart {
        /// The option.
        name: &'static str,
    },
    /// An option of topics, for one node.
    #[error(
        "{name} is an option of topics: set it on a topic (`ottla topic alter`), or on the cluster \
         as the default of all topics"
    )]
    OfTopics {
        /// The option.
        name: &'static str,
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
            Self::Unknown { name, .. } | Self::SetAndUnset { name } => name,
            Self::NeedsRestart { name } | Self::OfTopics { name } | Self::BadValue { name, .. } => {
                name
            }
        }
    }
}
