//! One Ottla node: reads its configuration, opens its directory, wires metadata
//! and replication to the gRPC services, and stops without losing anything.
//!
//! Not its job: deciding anything about the cluster (`ottla-metadata`), moving
//! partition data (`ottla-replication`), or parsing a command line (`ottla`).

mod changes;
pub mod config;
mod deadline;
mod ends;
mod health;
mod http;
pub mod inspect;
mod lag;
mod limits;
mod live;
mod metrics;
mod payload;
mod ports;
mod preflight;
mod producer_ids;
mod run;
mod services;
mod spans;
mod storage;
mod telemetry;

pub use preflight::check;
pub use run::{Host, run, run_on};
pub use storage::format;

/// The version that nodes report.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
