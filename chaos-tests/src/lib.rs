//! What Ottla is tried with: clusters of real processes that are killed, and a
//! checker that counts the records afterwards.
//!
//! Not its job: testing one part alone; that stands beside the part.

pub mod checker;
pub mod history;
mod members;
pub mod nemesis;
pub mod process;
pub mod report;
pub mod sim;
