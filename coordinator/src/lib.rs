//! Coordinators: state that clients share, kept in internal topics, decided by whoever
//! leads the partition that it belongs to.
//!
//! [`groups`] decides (pure); [`Coordinator`] finds out which partitions of
//! `__consumer_offsets` this node leads, reads what stands there, writes what is
//! decided, and answers once that is committed. Not its job: gRPC, and creating the
//! topic.

mod coordinator;
pub mod groups;
mod load;
mod node_members;
mod shard;
mod write;

pub use coordinator::{Coordinator, Refusal};
pub use shard::{Answer, Request};
