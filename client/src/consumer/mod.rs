//! Reading: one partition ([`PartitionReader`]), or many, alone or as a member of a group
//! ([`Consumer`]).
//!
//! ```text
//!  node ─▶ PartitionReader ─▶ Shelf ─▶ Consumer::next ─▶ application
//!           one task (feed)     ▲            │ asks again: processed
//!           a partition         │            ▼
//!  coordinator ◀─▶ member task ─┘     commits task ─▶ coordinator
//!                  (Membership decides)
//! ```

mod batch;
mod begin;
mod builder;
mod commits;
#[allow(clippy::module_inception)] // what it is
mod consumer;
mod control;
mod coordinator;
mod credit;
mod feed;
mod gone;
#[cfg(test)]
mod gone_tests;
#[cfg(test)]
mod kept_tests;
mod member;
mod membership;
mod options;
mod reader;
#[cfg(test)]
mod reader_tests;
mod shared;
mod shelf;
mod slot;
mod start;
#[cfg(test)]
mod tests;
mod types;

pub use batch::ReadBatch;
pub use builder::ConsumerBuilder;
pub use consumer::Consumer;
pub use options::ConsumerOptions;
pub use reader::{PartitionReader, ReaderOptions};
pub use start::StartPosition;
pub use types::{
    ConsumedBatch, ConsumedRecord, ConsumerError, ConsumerEvent, IsolationLevel, Next, OffsetReset,
    TopicPartition,
};
