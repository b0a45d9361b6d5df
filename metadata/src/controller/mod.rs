//! The controller: takes commands, decides against an image, and answers with
//! the records that make the decision a fact.
//!
//! Not its job: writing the records to the quorum's log, streams, timers. The
//! task that does those holds one [`Controller`] while it is the active one and
//! hands in the time.

mod command;

pub use command::{
    AlterPartition, Command, CreateTopic, Heartbeat, PartitionAlteration, PartitionOutcome,
    PartitionState, PlannedTopic, RegisterBroker, Reply,
};
