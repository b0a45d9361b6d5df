//! The quorum, run in one process over loopback.

mod applied;
mod cluster;
mod large_decisions;
mod members;
mod newer_records;
mod proposals;
mod quorum;
mod releases;
mod storage;
