//! Gathers the entries of a run from clients that run at the same time.

use super::{Call, Entry, Fault, FaultEnd, Final, Operation, Outcome, Run};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Time since the start of a run as histories have it. A run ends before five centuries
/// have passed.
#[must_use]
pub fn nanos(since_start: Duration) -> u64 {
    u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX)
}

/// A history that is being made. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Entry>>>);

impl Recorder {
    /// Of a run.
    #[must_use]
    pub fn new(run: Run) -> Self {
        Self(Arc::new(Mutex::new(vec![Entry::Run(run)])))
    }

    /// An operation has ended.
    pub fn operation(
        &self,
        process: &str,
        (start, end): (Duration, Duration),
        call: Call,
        outcome: Outcome,
        error: Option<String>,
    ) {
        let (process, rebalanced) = (process.to_owned(), Vec::new());
        let (start, end) = (nanos(start), nanos(end));
        let operation = Operation { process, start, end, outcome, error, call, rebalanced };
        self.0.lock().push(Entry::Op(operation));
    }

    /// A fault begins. Returns what it is ended by.
    pub fn fault(&self, at: Duration, name: &str, detail: &str) -> u64 {
        let mut entries = self.0.lock();
        let id = entries.len() as u64;
        let (name, detail) = (name.to_owned(), detail.to_owned());
        entries.push(Entry::Fault(Fault { id, at: nanos(at), name, detail }));
        id
    }

    /// A fault is over.
    pub fn fault_end(&self, at: Duration, id: u64) {
        self.0.lock().push(Entry::FaultEnd(FaultEnd { id, at: nanos(at) }));
    }

    /// The final reading begins.
    pub fn begin_final(&self, at: Duration) {
        self.0.lock().push(Entry::Final(Final { at: nanos(at) }));
    }

    /// What there is so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().clone()
    }
}
