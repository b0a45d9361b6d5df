//! The one place where every write to Raft's log and vote is done, one after another
//! in the order in which they were asked for: a thread, so that no blocking call sits
//! on an async worker and no vote overtakes an append. On a runtime of one thread, as
//! the simulation has it, a task.
//!
//! Appends that wait together share one fdatasync.

use super::log_files::{Encoded, LogFiles};
use super::types::{LogId, TypeConfig, Vote};
use openraft::storage::IOFlushed;
use std::io;
use std::sync::Arc;
use tokio::runtime::RuntimeFlavor;
use tokio::sync::{mpsc, oneshot, watch};

/// Writes waiting to be done. openraft waits for each but an append's
/// sync, so this bounds the appends that share one.
const QUEUED_WRITES: usize = 64;

/// One write.
pub(crate) enum Write {
    /// Answered when readable; the callback is called when durable.
    Append(Vec<Encoded>, IOFlushed<TypeConfig>),
    Vote(Vote),
    Committed(Option<LogId>),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
}

struct Job {
    write: Write,
    done: oneshot::Sender<io::Result<()>>,
}

/// Where writes are handed in. The work ends when this is dropped and what
/// was handed in is done.
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

/// Completes when something that holds files open is gone.
pub(crate) struct Stopped(pub(crate) watch::Receiver<()>);

impl Stopped {
    pub(crate) async fn wait(mut self) {
        // Nothing is ever sent: the channel closes in the end.
        while self.0.changed().await.is_ok() {}
    }
}

impl Writer {
    pub(crate) fn start(files: Arc<LogFiles>) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel(QUEUED_WRITES);
        let mut worker = Worker { files, unsynced: Vec::new() };
        let alone = tokio::runtime::Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread);
        if alone {
            tokio::spawn(async move {
                while let Some(job) = queue.recv().await {
                    let work = move || {
                        worker.run(job, &mut queue);
                        (worker, queue)
                    };
                    let Ok(done) = ottla_host::blocking(work).await else { return };
                    (worker, queue) = done;
                }
            });
        } else {
            let work = move || {
                while let Some(job) = queue.blocking_recv() {
                    worker.run(job, &mut queue);
                }
            };
            std::thread::Builder::new().name("raft-log".to_owned()).spawn(work)?;
        }
        Ok(Self { jobs })
    }

    /// Hands in a write and waits until it is done.
    pub(crate) async fn write(&self, write: Write) -> io::Result<()> {
        let gone = || io::Error::other("the Raft log's writer has stopped");
        let (done, result) = oneshot::channel();
        self.jobs.send(Job { write, done }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

struct Worker {
    files: Arc<LogFiles>,
    unsynced: Vec<IOFlushed<TypeConfig>>,
}

impl Worker {
    /// Does one write and all that wait behind it, then syncs.
    fn run(&mut self, first: Job, queue: &mut mpsc::Receiver<Job>) {
        let mut next = Some(first);
        while let Some(Job { write, done }) = next {
            let result = self.write(write);
            // Nobody waits any more while Raft is being stopped.
            let _ = done.send(result);
            next = queue.try_recv().ok();
        }
        flush(&self.files, &mut self.unsynced);
    }

    fn write(&mut self, write: Write) -> io::Result<()> {
        let Write::Append(encoded, callback) = write else {
            flush(&self.files, &mut self.unsynced);
            return apply(&self.files, write);
        };
        match self.files.append(encoded) {
            Ok(()) => {
                self.unsynced.push(callback);
                Ok(())
            }
            Err(error) => {
                flush(&self.files, &mut self.unsynced);
                callback.io_completed(Err(io::Error::other(error.to_string())));
                Err(error)
            }
        }
    }
}

fn apply(files: &LogFiles, write: Write) -> io::Result<()> {
    match write {
        Write::Append(..) => unreachable!("appends are handled by the caller"),
        Write::Vote(vote) => files.save_vote(vote),
        Write::Committed(committed) => files.save_committed(committed),
        Write::TruncateAfter(last) => files.truncate_after(last),
        Write::Purge(upto) => files.purge(upto),
    }
}

/// One fdatasync for all appends so far, and then their callbacks.
fn flush(files: &LogFiles, unsynced: &mut Vec<IOFlushed<TypeConfig>>) {
    if unsynced.is_empty() {
        return;
    }
    let result = files.sync();
    for callback in unsynced.drain(..) {
        callback.io_completed(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        });
    }
}
