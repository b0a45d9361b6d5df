//! Judges a history: what each client was told and saw, against what any log of any
//! order of events could have given it.
//!
//! The anomalies are those of Jepsen's Kafka workload, and two of its own for histories
//! that promise more (docs/history-format.md). A pure function of the history, close to
//! linear. Not its job: how the history was made.

mod cycles;
mod figures;
mod index;
mod log;
mod order;
mod values;
mod verdict;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub use figures::{Lag, Tally, Unavailable};
pub use verdict::{Anomaly, Kind, SHOWN, Verdict};

use crate::history::{Entry, HistoryError};
use index::Index;
use log::Logs;
use verdict::Found;

/// Judges a history in memory; lines are the places of its entries, counted from 1.
///
/// # Errors
/// [`HistoryError::Invalid`], if it is none.
pub fn check<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Verdict, HistoryError> {
    let mut index = Index::default();
    for (entry, line) in entries.into_iter().zip(1..) {
        index.add(line, entry)?;
    }
    Ok(judge(&index))
}

/// Judges a history that comes line by line, as [`crate::history::read`] gives it.
///
/// # Errors
/// If it is none.
pub fn check_lines(
    lines: impl IntoIterator<Item = Result<(u64, Entry), HistoryError>>,
) -> Result<Verdict, HistoryError> {
    let mut index = Index::default();
    for line in lines {
        let (line, entry) = line?;
        index.add(line, &entry)?;
    }
    Ok(judge(&index))
}

fn judge(index: &Index) -> Verdict {
    let logs = Logs::new(index);
    let mut found = Found::default();
    values::check(index, &logs, &mut found);
    order::check(index, &logs, &mut found);
    cycles::check(index, &logs, &mut found);
    figures::verdict(index, &logs, found)
}
