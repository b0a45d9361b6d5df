//! Clusters of real processes, tried as a user would: killed, starved of
//! replicas, asked wrong things. One binary, so that it links once.

mod access;
mod bad_input;
mod command_line;
mod leader_kills;
mod min_isr;
mod startup;
mod workload;
