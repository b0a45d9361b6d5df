//! Clusters of real processes, tried as a user would: killed, starved of
//! replicas, asked wrong things. One binary, so that it links once.

// What a run did, for whoever reads its output.
#![allow(clippy::print_stdout)]

mod access;
mod backup;
mod bad_input;
mod bench;
mod bundle;
mod codecs;
mod command_line;
mod compaction;
mod consumers;
mod coordinators;
mod disks;
mod drain;
mod elections;
mod examples;
mod figures;
mod group_edges;
mod groups;
mod growth;
mod leader_kills;
mod limits;
mod log_files;
mod many_members;
mod members;
mod min_isr;
mod nearby;
mod network;
mod old_records;
mod one_node;
mod operators;
mod plain;
mod quorum;
mod raw;
mod readers;
mod reassignment;
mod restarts;
mod scenarios;
mod settings;
mod startup;
mod traces;
mod workload;
