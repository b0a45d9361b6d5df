//! Ottla's metadata: the facts that make up a cluster, the image they add up
//! to, and the controller that decides which facts come next.
//!
//! `records`, `image` and `controller` are pure: time, ids and seeds come in
//! with the event, and records go out. `raft` is the shell around them: the
//! quorum, the task of the active controller, and the handle [`Metadata`].

pub mod controller;
pub mod image;
pub mod raft;
pub mod records;

pub use raft::{
    AdminCall, BrokerStatus, Change, Database, DatabaseError, Databases, Entry, LogLimits,
    MemoryDatabases, Metadata, MetadataError, MetadataOptions, QuorumStatus, SledDatabases,
    Timings,
};
