//! Partition replication: who leads, who follows, what is committed.
//!
//! [`core`] decides, purely. The rest drives it: [`Replicas`] turns metadata into
//! local partitions, each partition is one task that owns its replica and orders
//! the operations on its log, and one stream for each pair of a following and a
//! leading node carries the records and the acknowledgements.
//!
//! Not its job: deciding about leaders and ISRs (the controller's, in
//! `ottla-metadata`), and the bytes on disk (`ottla-commitlog`'s).

mod alter;
mod api;
mod budget;
mod cluster;
pub mod core;
mod disks;
mod env;
mod flow;
mod hold;
mod leaving;
mod link;
mod log_config;
mod maintenance;
mod manager;
mod offline;
mod opening;
mod options;
mod partition;
mod replicas;
mod room;
mod serve;
mod watermarks;
mod wire;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod shell_tests;

pub use crate::core::{Acks, ReplicaStatus, RoleKind};
pub use api::{
    Fetched, ListedOffset, OffsetPosition, ProduceTicket, Produced, Reading, ReplicaCounts,
    SentBytes,
};
pub use cluster::Cluster;
pub use disks::DiskStatus;
pub use env::leader_in;
pub use opening::OpeningProgress;
pub use options::{Limits, ReplicasError, ReplicasOptions};
pub use partition::LocalPartition;
pub use replicas::Replicas;
pub use room::{Levels, Room};
pub use serve::ReplicationRpc;
