//! What clients did and were told, and what was done to the nodes meanwhile: the only
//! thing that the checker judges.
//!
//! A plain format, one JSON object a line (docs/history-format.md), so that anybody's
//! run can be judged. Not its job: whether any of it is right (`checker`).

mod read;
mod recorder;
mod write;

pub use read::{HistoryError, MAX_LINE_BYTES, read};
pub use recorder::{Recorder, nanos};
pub use write::write;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the format that is written and read.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// What is known of the whole run. At most once, as the first line.
    Run(Run),
    /// An operation of a client, once it has ended.
    Op(Operation),
    /// Something is done to the nodes.
    Fault(Fault),
    /// It is over.
    FaultEnd(FaultEnd),
    /// Nothing is wrong any more and nobody writes: what is polled after this line is the
    /// final reading. At most once.
    Final(Final),
}

/// What is known of a run, and what its records are promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Of the format: [`FORMAT`].
    pub format: u32,
    /// For whoever reads the report.
    pub name: String,
    /// Offsets have no holes: neither transactions nor compaction. An offset that was
    /// skipped is then a skip, although nobody ever saw a record there.
    #[serde(default)]
    pub no_gaps: bool,
    /// Nothing is removed: every final reader of a key must see everything that was
    /// acknowledged for it.
    #[serde(default)]
    pub all_kept: bool,
    /// Sends of one process are in the log in the order in which they were started, also
    /// where several were outstanding.
    #[serde(default)]
    pub ordered_sends: bool,
}

impl Default for Run {
    /// Nothing is promised beyond what holds for every log.
    fn default() -> Self {
        let name = "a run without a name".to_owned();
        Self { format: FORMAT, name, no_gaps: false, all_kept: false, ordered_sends: false }
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done. Of a send: acknowledged with the promise that it is not lost, which
    /// is `acks=all`.
    Ok,
    /// It was certainly not done.
    Fail,
    /// Nobody knows.
    Info,
}

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Whose: a producer, a consumer, one life of a client.
    pub process: String,
    /// Nanoseconds since the start of the run.
    pub start: u64,
    /// Nanoseconds since the start of the run.
    pub end: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The error's text, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was called, with what came back.
    pub call: Call,
    /// Keys that came or went in a rebalance while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebalanced: Vec<String>,
}

/// Offset and value, in the order handed out.
pub type Records = Vec<(u64, String)>;

/// What a client may call. A key is a topic and partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Writes one value.
    Send(Send),
    /// Reads what is next, of every key.
    Poll(BTreeMap<String, Records>),
    /// Several of both, all or nothing.
    Txn(Vec<Step>),
    /// Reads these keys from now on, and no others. Keys that were read before go on
    /// where they were.
    Assign(Vec<String>),
    /// The same, with a group that shares the keys out.
    Subscribe(Vec<String>),
    /// Goes on elsewhere in a key.
    Seek {
        /// The key.
        key: String,
        /// Where it goes on.
        offset: u64,
    },
    /// The client is gone; whoever acts under its name afterwards is a new one.
    Crash,
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// As the operation.
    Send(Send),
    /// As the operation.
    Poll(BTreeMap<String, Records>),
}

/// A value that is written to a key once in a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Where it is, if that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Something is done to the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// By which its end is found.
    pub id: u64,
    /// Nanoseconds since the start of the run.
    pub at: u64,
    /// The kind, such as `kill`.
    pub name: String,
    /// To whom, and how.
    #[serde(default)]
    pub detail: String,
}

/// A fault is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEnd {
    /// Of the fault.
    pub id: u64,
    /// Nanoseconds since the start of the run.
    pub at: u64,
}

/// The final reading begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Final {
    /// Nanoseconds since the start of the run.
    pub at: u64,
}

impl Operation {
    /// Everything it sent.
    pub fn sends(&self) -> impl Iterator<Item = &Send> {
        let (one, steps): (_, &[Step]) = match &self.call {
            Call::Send(send) => (Some(send), &[]),
            Call::Txn(steps) => (None, steps),
            _ => (None, &[]),
        };
        one.into_iter().chain(steps.iter().filter_map(|step| match step {
            Step::Send(send) => Some(send),
            Step::Poll(_) => None,
        }))
    }

    /// Everything it read, key by key.
    pub fn polls(&self) -> impl Iterator<Item = (&String, &Records)> {
        let (one, steps): (_, &[Step]) = match &self.call {
            Call::Poll(records) => (Some(records), &[]),
            Call::Txn(steps) => (None, steps),
            _ => (None, &[]),
        };
        let steps = steps.iter().filter_map(|step| match step {
            Step::Send(_) => None,
            Step::Poll(records) => Some(records),
        });
        one.into_iter().chain(steps).flatten()
    }
}

/// Everything that was sent, with its operation.
pub fn sends(entries: &[Entry]) -> impl Iterator<Item = (&Operation, &Send)> {
    let operations = entries.iter().filter_map(|entry| match entry {
        Entry::Op(operation) => Some(operation),
        _ => None,
    });
    operations.flat_map(|operation| operation.sends().map(move |send| (operation, send)))
}
