//! Partition replication: who leads, who follows, what is committed.

pub mod core;
