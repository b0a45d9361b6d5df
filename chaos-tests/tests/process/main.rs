//! Clusters of real processes, tried as a user would: killed, starved of
//! replicas, asked wrong things. One binary, so that it links once.

// What a run did, for whoever reads its output.
#![allow(clippy::print_stdout)]

mod access;
mod bad_input;
mod command_line;
mod leader_kills;
mod min_isr;
mod startup;
mod workload;
