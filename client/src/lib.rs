//! The Rust client of Ottla: [`Client`] connects, [`Producer`] writes,
//! [`Consumer`] reads, alone or in a group, [`PartitionReader`] one partition, [`Admin`]
//! administers. All of them follow a partition's leader wherever it goes.
//!
//! Not its job: anything a node decides. The client knows the protocol and the
//! record batch format, nothing of the inside of a cluster.

mod admin;
mod backoff;
mod channel;
mod client;
mod consumer;
mod endpoint;
mod error;
mod groups;
mod leader;
mod metadata;
pub mod processing;
mod producer;
mod reassign;
mod settings;
#[cfg(test)]
mod testing;
mod watch;

pub use admin::{Admin, Elected, Election, Grown, NewTopic, Probe, TopicChange, TopicDescription};
pub use client::{Client, ClientOptions};
pub use consumer::{
    ConsumedBatch, ConsumedRecord, Consumer, ConsumerBuilder, ConsumerError, ConsumerEvent,
    ConsumerOptions, IsolationLevel, Next, OffsetReset, PartitionReader, ReadBatch, ReaderOptions,
    StartPosition, TopicPartition,
};
pub use endpoint::HostPort;
pub use error::ClientError;
pub use groups::Lag;
pub use ottla_commitlog::format::{Compression, Record, RecordHeader};
pub use ottla_proto::v1;
pub use ottla_trace::{ExportError, Exporter, Tracer};
pub use producer::{
    Acks, Delivered, Delivery, Partitioner, Producer, ProducerOptions, ProducerRecord,
    ProducerStats, TopicProducer, TrySendError, TrySendReason, partition_for_key,
};
pub use reassign::Reassigned;
pub use settings::ConfigChange;
