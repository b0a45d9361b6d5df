//! The quorum, run in one process over loopback.

mod cluster;
mod members;
mod proposals;
mod quorum;
mod storage;
