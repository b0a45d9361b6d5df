//! The quorum, run in one process over loopback.

mod cluster;
mod members;
mod newer_records;
mod proposals;
mod quorum;
mod releases;
mod storage;
