//! One replica of one partition as a pure state machine: events and the time go
//! in, effects come out. The same code is scripted, property-tested and run in
//! production.
//!
//! Not its job: anything that touches a disk, a socket, a clock or a thread. It
//! never sees a record, only offsets and epochs.
//!
//! The rules are Kafka's (KIP-101, KIP-279, KIP-320, KIP-497, KIP-841, KIP-903,
//! KIP-966), with two differences that a pushing leader and a durable
//! acknowledgement ask for: a follower counts with what it has *acknowledged*
//! (synced, unless the topic is `durability=memory`), and it is caught up for as
//! long as nothing is appended, since nobody fetches from an idle partition.

mod deletions;
mod events;
mod follower;
mod isr;
mod leader;
mod local;
mod parked;
mod progress;
mod replica;
mod standing;
mod types;
mod waits;

pub use events::{Effect, Event};
pub use local::ReplicaConfig;
pub use replica::Replica;
pub use types::*;
