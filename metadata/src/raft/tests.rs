//! The quorum, run in one process over loopback.

mod cluster;
mod quorum;
mod storage;
