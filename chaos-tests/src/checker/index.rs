//! A history as the checks read it: names are numbers, and what was sent and polled
//! stands in flat lists.

use crate::history::{Call, Entry, HistoryError, Operation, Outcome, Records, Run, Send, Step};
use indexmap::IndexSet;
use std::ops::Range;

/// A key, a process or a value, by its place in the list of all.
pub(super) type Id = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Send, poll or transaction.
    Data(&'static str),
    Assign,
    Subscribe,
    Seek,
    Crash,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Data(name) => name,
            Self::Assign => "assign",
            Self::Subscribe => "subscribe",
            Self::Seek => "seek",
            Self::Crash => "crash",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) line: u64,
    pub(super) process: Id,
    pub(super) what: What,
    pub(super) outcome: Outcome,
    pub(super) start: u64,
    pub(super) end: u64,
    /// After the line that begins the final reading.
    pub(super) is_final: bool,
    sends: Range<usize>,
    polls: Range<usize>,
    keys: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) value: Id,
    pub(super) offset: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Polled {
    pub(super) value: Id,
    pub(super) offset: u64,
}

/// A value of a key, and who wrote it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// The operation; none for a value that nobody sent.
    pub(super) by: Option<usize>,
    pub(super) offset: Option<u64>,
    /// An operation that is `ok` polled it.
    pub(super) ok_read: bool,
}

#[derive(Default)]
pub(super) struct Index {
    pub(super) run: Run,
    /// In the order of the lines.
    pub(super) ops: Vec<Op>,
    pub(super) has_final: bool,
    pub(super) processes: IndexSet<String>,
    pub(super) keys: IndexSet<String>,
    values: IndexSet<(Id, Box<str>)>,
    written: Vec<Written>,
    sent: Vec<Sent>,
    polled: Vec<Polled>,
    /// Of assign, subscribe and seek; of all others, those of a rebalance.
    named: Vec<Id>,
}

fn id(place: usize, line: u64) -> Result<Id, HistoryError> {
    let why = "more names or values than can be told apart".to_owned();
    Id::try_from(place).map_err(|_| HistoryError::Invalid { line, why })
}

impl Index {
    pub(super) fn add(&mut self, line: u64, entry: &Entry) -> Result<(), HistoryError> {
        let invalid = |why: &str| Err(HistoryError::Invalid { line, why: why.to_owned() });
        match entry {
            Entry::Run(run) if line == 1 => self.run = run.clone(),
            Entry::Run(_) => return invalid("only the first line may tell of the run"),
            Entry::Final(_) if self.has_final => return invalid("a second final reading"),
            Entry::Final(_) => self.has_final = true,
            Entry::Op(op) if op.end < op.start => return invalid("ended before it began"),
            Entry::Op(op) => self.add_operation(line, op)?,
            // Only for the report.
            Entry::Fault(_) | Entry::FaultEnd(_) => {}
        }
        Ok(())
    }

    fn add_operation(&mut self, line: u64, op: &Operation) -> Result<(), HistoryError> {
        let (sends, polls, keys) = (self.sent.len(), self.polled.len(), self.named.len());
        let what = match &op.call {
            Call::Send(send) => {
                self.send(line, op, send)?;
                What::Data("send")
            }
            Call::Poll(records) => {
                self.poll(line, op, records)?;
                What::Data("poll")
            }
            Call::Txn(steps) => {
                for step in steps {
                    match step {
                        Step::Send(send) => self.send(line, op, send)?,
                        Step::Poll(records) => self.poll(line, op, records)?,
                    }
                }
                What::Data("txn")
            }
            Call::Assign(keys) => self.name(line, keys, What::Assign)?,
            Call::Subscribe(keys) => self.name(line, keys, What::Subscribe)?,
            Call::Seek { key, .. } => self.name(line, [key], What::Seek)?,
            Call::Crash => What::Crash,
        };
        if matches!(what, What::Data(_)) {
            self.name(line, &op.rebalanced, what)?;
        }
        let process = id(self.processes.insert_full(op.process.clone()).0, line)?;
        self.ops.push(Op {
            line,
            process,
            what,
            outcome: op.outcome,
            start: op.start,
            end: op.end,
            is_final: self.has_final,
            sends: sends..self.sent.len(),
            polls: polls..self.polled.len(),
            keys: keys..self.named.len(),
        });
        Ok(())
    }

    fn name<'a>(
        &mut self,
        line: u64,
        keys: impl IntoIterator<Item = &'a String>,
        what: What,
    ) -> Result<What, HistoryError> {
        for key in keys {
            let key = id(self.keys.insert_full(key.clone()).0, line)?;
            self.named.push(key);
        }
        Ok(what)
    }

    fn value(&mut self, line: u64, key: &str, value: &str) -> Result<Id, HistoryError> {
        let key = match self.keys.get_index_of(key) {
            Some(known) => known,
            None => self.keys.insert_full(key.to_owned()).0,
        };
        let (value, new) = self.values.insert_full((id(key, line)?, value.into()));
        if new {
            self.written.push(Written::default());
        }
        id(value, line)
    }

    fn send(&mut self, line: u64, op: &Operation, send: &Send) -> Result<(), HistoryError> {
        let value = self.value(line, &send.key, &send.value)?;
        let written = &mut self.written[value as usize];
        if let Some(before) = written.by {
            let before = self.ops.get(before).map_or(line, |op| op.line);
            let why = format!("{:?} was sent to {:?} in line {before}", send.value, send.key);
            return Err(HistoryError::Invalid { line, why });
        }
        written.by = Some(self.ops.len());
        // What was not done is nowhere, whatever its line says.
        written.offset = send.offset.filter(|_| op.outcome != Outcome::Fail);
        self.sent.push(Sent { value, offset: written.offset });
        Ok(())
    }

    fn poll<'a>(
        &mut self,
        line: u64,
        op: &Operation,
        records: impl IntoIterator<Item = (&'a String, &'a Records)>,
    ) -> Result<(), HistoryError> {
        for (key, records) in records {
            for (offset, value) in records {
                let value = self.value(line, key, value)?;
                self.written[value as usize].ok_read |= op.outcome == Outcome::Ok;
                self.polled.push(Polled { value, offset: *offset });
            }
        }
        Ok(())
    }

    pub(super) fn sends(&self, op: &Op) -> &[Sent] {
        &self.sent[op.sends.clone()]
    }

    pub(super) fn polls(&self, op: &Op) -> &[Polled] {
        &self.polled[op.polls.clone()]
    }

    /// Keys that an assign, subscribe or seek names; of all others those that came or
    /// went in a rebalance.
    pub(super) fn named(&self, op: &Op) -> &[Id] {
        &self.named[op.keys.clone()]
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (Id, Written)> {
        (0..).zip(self.written.iter().copied())
    }

    pub(super) fn written(&self, value: Id) -> Written {
        self.written[value as usize]
    }

    pub(super) fn writer(&self, value: Id) -> Option<&Op> {
        self.written(value).by.map(|op| &self.ops[op])
    }

    pub(super) fn key_of(&self, value: Id) -> Id {
        self.values[value as usize].0
    }

    pub(super) fn text(&self, value: Id) -> &str {
        &self.values[value as usize].1
    }

    /// It was done, as far as anybody can know: it says so, or what it wrote was read.
    pub(super) fn is_committed(&self, op: &Op) -> bool {
        match op.outcome {
            Outcome::Ok => true,
            Outcome::Fail => false,
            Outcome::Info => self.sends(op).iter().any(|sent| self.written(sent.value).ok_read),
        }
    }

    /// Operations in the order in which they were started.
    pub(super) fn by_start(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.ops.len()).collect();
        order.sort_by_key(|op| self.ops[*op].start);
        order
    }
}
