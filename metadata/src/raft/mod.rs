//! The shell around records, image and controller: the metadata quorum's Raft,
//! the task of the active controller, the broker's registration and heartbeats,
//! and the handle through which the rest of a node uses all that.
//!
//! ```text
//!  callers ── Metadata ──► active (on the Raft leader) ──► openraft ──► log_store ─► commitlog
//!                 ▲             ▲ commands                     │
//!      images()   │             │                              ▼
//!                 └─────────────┼──────────────────── state_machine ─► applied (sled), snapshot
//!  other nodes ── service ──────┤ Raft's own calls, introductions
//!              ── controller_service: registrations, heartbeats, AlterPartition, calls of operators
//!  lifecycle: this node's own registration and heartbeats, to whoever is the controller
//! ```
//!
//! Not its job: deciding anything about brokers, topics and partitions, and
//! acting on the image.

mod active;
mod addresses;
mod administration;
mod applied;
mod applied_keys;
mod channel;
mod committed;
mod config;
mod control;
mod controller_client;
mod controller_service;
mod cut;
mod database;
mod evicted;
mod hand_over;
mod incompatible;
mod inner;
mod introduction;
mod joining;
mod knock;
mod lifecycle;
mod log_files;
mod log_store;
mod log_writer;
mod members;
mod metadata;
mod network;
mod options;
mod probe;
mod proposal;
mod service;
mod snapshot;
mod state_machine;
mod status;
mod streams;
mod succession;
pub(crate) mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use administration::AdminCall;
pub use controller_service::ControllerRpc;
pub use database::{
    Change, Database, DatabaseError, Databases, Entry, MemoryDatabases, SledDatabases,
};
pub use log_files::LogStoreError;
pub use metadata::{Metadata, MetadataError};
pub use options::{KEPT_ENTRIES, LogLimits, MetadataOptions, SNAPSHOT_EVERY_ENTRIES, Timings};
pub use service::RaftRpc;
pub use status::{BrokerStatus, QuorumStatus};

type MetadataRaft = openraft::Raft<types::TypeConfig, state_machine::StateMachine>;
