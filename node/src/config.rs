//! The configuration of one node: a TOML file, environment variables
//! `OTTLA_<OPTION>` over it, command-line flags over both. Names, defaults and
//! bounds are those of `ottla_metadata::records::node_options`.
//!
//! Not its job: what is set in the metadata, for this node or for all, and comes
//! before this (`live`); options of topics.

mod address;
mod given;
mod options;
mod reference;
#[cfg(test)]
mod tests;

pub use address::HostPort;
pub use given::{Given, Origin};
pub use ottla_metadata::records::node_options;
pub use reference::reference;

use options::{check_bounds, default, typed};
use ottla_metadata::records::node_option;
use ottla_proto::NodeId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// How log lines are written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that one node is told. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node's number, from 1, unique in the cluster.
    pub node_id: u64,
    /// Name of the cluster: 1 to 64 of `[A-Za-z0-9_-]`, the same on every node.
    pub cluster_id: String,
    /// Where this node keeps everything: the metadata, and partitions. Formatted once,
    /// used by one process.
    pub data_dir: PathBuf,
    /// Further directories for partitions, each on a disk of its own. One that is
    /// missing or fails takes only what lies there offline.
    #[serde(default)]
    pub extra_data_dirs: Vec<PathBuf>,
    /// Address the gRPC port binds to.
    pub listen: SocketAddr,
    /// Address that clients and other nodes are told. Default: `listen`, which
    /// then must not be a wildcard.
    pub advertise: Option<HostPort>,
    /// Address of the HTTP port (`/livez`, `/readyz`, `/metrics`).
    pub http_listen: SocketAddr,
    /// Where spans of traced writes are sent: an OTLP collector, `http://HOST:PORT`.
    pub otlp_endpoint: Option<String>,
    /// Failure domain of this node; replicas are spread over racks.
    pub rack: Option<String>,
    /// The voters that a new cluster begins with, the same on each of them: id to
    /// address. A node that is not among them joins the cluster that they are.
    pub voters: BTreeMap<String, HostPort>,
    /// Shape of log lines.
    pub log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter.
    pub log_level: String,
    /// Formats a blank data directory by itself and lets a voter that lost its
    /// disk come back blank. Never for data that matters.
    pub dev: bool,
    /// A follower that has not caught up for so long leaves the ISR.
    pub replica_lag_max_ms: u64,
    /// How often this node tells the controller that it lives.
    pub heartbeat_interval_ms: u64,
    /// Silence after which the controller fences a node.
    pub session_timeout_ms: u64,
    /// Shortest time without a Raft leader before a voter stands for election.
    pub election_timeout_min_ms: u64,
    /// Longest such time; each election draws one between the two.
    pub election_timeout_max_ms: u64,
    /// Interval of the Raft leader's heartbeats.
    pub raft_heartbeat_ms: u64,
    /// Bytes of produce requests this node holds at once; more are throttled.
    pub max_in_flight_produce_bytes: u32,
    /// Bytes of requests, and of answers, that this node holds for one connection.
    pub max_connection_bytes: u32,
    /// Connections to the gRPC port.
    pub max_connections: u32,
    /// Requests and streams that one connection has open.
    pub max_requests_per_connection: u32,
    /// How often the logs are looked at for records that are too old or too many.
    pub log_retention_check_ms: u64,
    /// How often the logs are looked at for records to compact.
    pub log_cleaner_backoff_ms: u64,
    /// Bytes a second that compaction reads and writes at most.
    pub log_cleaner_bytes_per_second: u64,
    /// Memory for the keys of the compaction that runs; held only meanwhile.
    pub log_cleaner_key_map_bytes: u32,
    /// Bytes a second that this node sends at most to followers that are behind and
    /// not in sync, all together. 0: no limit; those in sync go first anyway.
    pub catch_up_bytes_per_second: u64,
    /// The same for followers that a reassignment adds.
    pub reassignment_bytes_per_second: u64,
    /// How often the logs are looked at for `flush.ms` and `flush.messages`.
    pub log_flush_check_ms: u64,
    /// Free bytes of a disk below which somebody should look; at most 15 % of it. 0: never.
    pub disk_alert_free_bytes: u64,
    /// Free bytes of a disk below which clients' writes to it are refused; at most 5 % of
    /// it. 0: until it is full.
    pub disk_refuse_free_bytes: u64,
    /// Memory for what was appended last: reads of it need no disk. 0: none.
    pub hot_tail_bytes: u32,
    /// How long a stopping node tries to hand its leaderships over.
    pub shutdown_timeout_ms: u64,
    /// Every option that has a value, as text, and who gave it.
    #[serde(skip)]
    pub given: BTreeMap<&'static str, Given>,
}

/// Longest cluster id, in characters.
pub const MAX_CLUSTER_ID_LEN: usize = 64;

/// Largest quorum: more voters make every metadata write slower and the
/// cluster no safer.
pub const MAX_VOTERS: usize = 5;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{origin}: {message}")]
    Parse {
        /// The file, or the configuration as a whole.
        origin: String,
        /// What the parser says.
        message: String,
    },
    /// A value that makes no sense.
    #[error("configuration option `{option}`: {message}")]
    Invalid {
        /// The option.
        option: &'static str,
        /// What is wrong and what was expected.
        message: String,
    },
}

impl NodeConfig {
    /// Reads the configuration: `file`, under the process's `OTTLA_*`
    /// variables, under `flags` (option name and value).
    ///
    /// # Errors
    /// [`ConfigError`], naming the option or the place in the file.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut table = match file {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        let mut origins = BTreeMap::new();
        for option in node_options() {
            if table.contains_key(option.name) {
                origins.insert(option.name, Origin::File);
            } else if let Some(value) = default(option) {
                origins.insert(option.name, Origin::Default);
                table.insert(option.name.to_owned(), value);
            }
            if let Ok(text) = std::env::var(format!("OTTLA_{}", option.name.to_uppercase())) {
                origins.insert(option.name, Origin::Environment);
                table.insert(option.name.to_owned(), typed(option, &text)?);
            }
        }
        for (name, text) in flags {
            let option = node_option(name).ok_or_else(|| ConfigError::Parse {
                origin: "command line".to_owned(),
                message: format!("unknown option `{name}`"),
            })?;
            origins.insert(option.name, Origin::Flag);
            table.insert(name.to_owned(), typed(option, text)?);
        }
        check_bounds(&table)?;
        let given = given::shown(&table, &origins);
        let origin = file.map_or_else(|| "configuration".to_owned(), |f| f.display().to_string());
        let config: Self = table.try_into().map_err(|error: toml::de::Error| {
            ConfigError::Parse { origin, message: error.message().to_owned() }
        })?;
        let config = Self { given, ..config };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |option, message: String| Err(ConfigError::Invalid { option, message });
        let id = &self.cluster_id;
        let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if id.is_empty() || id.len() > MAX_CLUSTER_ID_LEN || !plain {
            return invalid(
                "cluster_id",
                format!("`{id}` is not 1 to {MAX_CLUSTER_ID_LEN} characters of [A-Za-z0-9_-]"),
            );
        }
        if self.advertise.is_none() && self.listen.ip().is_unspecified() {
            return invalid(
                "advertise",
                format!("needed because `listen` is the wildcard {}", self.listen),
            );
        }
        let advertised = self.advertised();
        if advertised.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return invalid("advertise", format!("nobody can connect to {advertised}"));
        }
        let voters = self.voter_addresses()?;
        if voters.is_empty() || voters.len() > MAX_VOTERS {
            return invalid("voters", format!("1 to {MAX_VOTERS} voters, not {}", voters.len()));
        }
        self.check_timings()
    }

    fn check_timings(&self) -> Result<(), ConfigError> {
        let invalid = |option, message: &str| {
            Err(ConfigError::Invalid { option, message: message.to_owned() })
        };
        if self.session_timeout_ms < 2 * self.heartbeat_interval_ms {
            return invalid("session_timeout_ms", "must be at least two heartbeat intervals");
        }
        if self.election_timeout_min_ms <= self.raft_heartbeat_ms {
            return invalid("election_timeout_min_ms", "must be above raft_heartbeat_ms");
        }
        if self.election_timeout_max_ms <= self.election_timeout_min_ms {
            return invalid("election_timeout_max_ms", "must be above election_timeout_min_ms");
        }
        Ok(())
    }

    /// All data directories, the one with the metadata first.
    #[must_use]
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        std::iter::once(&self.data_dir).chain(&self.extra_data_dirs).cloned().collect()
    }

    /// What clients and other nodes are told.
    #[must_use]
    pub fn advertised(&self) -> HostPort {
        self.advertise.clone().unwrap_or_else(|| HostPort {
            host: self.listen.ip().to_string(),
            port: self.listen.port(),
        })
    }

    /// The quorum's voters by id.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] where a key is not a node id.
    pub fn voter_addresses(&self) -> Result<BTreeMap<NodeId, HostPort>, ConfigError> {
        let parse = |(id, address): (&String, &HostPort)| match id.parse() {
            Ok(id) if id > 0 => Ok((NodeId(id), address.clone())),
            _ => Err(ConfigError::Invalid {
                option: "voters",
                message: format!("`{id}` is not a node id"),
            }),
        };
        self.voters.iter().map(parse).collect()
    }
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|error: toml::de::Error| ConfigError::Parse {
        origin: path.display().to_string(),
        message: error.to_string(),
    })
}
