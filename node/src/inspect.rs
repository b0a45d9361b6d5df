//! Logs and data directories seen from outside, for whoever has a node's files
//! and no node: what the command line needs of the log engine, and no more.

pub use ottla_commitlog::format::{
    BatchHeader, EndTxnMarker, Record, RecordHeader, TimestampType, TxnOutcome, decode_marker,
    decode_records,
};
pub use ottla_commitlog::inspect::{
    AbortedEntry, BeingWritten, FileKind, Item, Owner, Problem, Severity, Shown, Target,
    TargetError, Verification, dump_file, dump_log, logs, verify, verify_data_dir, verify_segment,
};
pub use ottla_commitlog::vfs::RealVfs;
