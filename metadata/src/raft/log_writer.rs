//! The thread that does every write to Raft's log and vote, one after another
//! in the order in which they were asked for, so that no blocking call sits on
//! an async worker and no vote overtakes an append.
//!
//! Appends that wait together share one fdatasync.

use super::log_files::{Encoded, LogFiles};
use super::types::{LogId, TypeConfig, Vote};
use openraft::storage::IOFlushed;
use std::io;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Writes waiting for the thread. openraft waits for each but an append's
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

/// Where writes are handed in. The thread ends when this is dropped and what
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
        let (jobs, queue) = mpsc::channel(QUEUED_WRITES);
        std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || run(&files, queue))?;
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

fn run(files: &LogFiles, mut queue: mpsc::Receiver<Job>) {
    let mut unsynced: Vec<IOFlushed<TypeConfig>> = Vec::new();
    loop {
        let job = match queue.try_recv() {
            Ok(job) => job,
            Err(_) => {
                flush(files, &mut unsynced);
                match queue.blocking_recv() {
                    Some(job) => job,
                    None => return,
                }
            }
        };
        let result = match job.write {
            Write::Append(encoded, callback) => match files.append(encoded) {
                Ok(()) => {
                    unsynced.push(callback);
                    Ok(())
                }
                Err(error) => {
                    flush(files, &mut unsynced);
                    callback.io_completed(Err(io::Error::other(error.to_string())));
                    Err(error)
                }
            },
            other => {
                flush(files, &mut unsynced);
                apply(files, other)
            }
        };
        // Nobody waits any more while Raft is being stopped.
        let _ = job.done.send(result);
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
