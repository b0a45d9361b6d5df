//! The one place where every write to Raft's log and vote is done, one after another
//! in the order in which they were asked for: a thread, so that no blocking call sits
//! on an async worker and no vote overtakes an append. On a runtime of one thread, as
//! the simulation has it, a task.
//!
//! Appends that wait together share one fdatasync.
//!
//! A full disk is waited for. To openraft every failed write is the end, and the node
//! would be without metadata until somebody restarts it; while it waits it is merely
//! silent, as behind a slow disk, and others lead.

use super::log_files::{Encoded, LogFiles};
use super::types::{LogId, TypeConfig, Vote};
use openraft::storage::IOFlushed;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::RuntimeFlavor;
use tokio::sync::{mpsc, oneshot, watch};

/// Writes waiting to be done. openraft waits for each but an append's
/// sync, so this bounds the appends that share one.
const QUEUED_WRITES: usize = 64;

/// Wait before a write for which there was no room is tried again: no load on a disk,
/// and soon beside the time in which somebody makes room.
const ROOM_AGAIN: Duration = Duration::from_millis(200);

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
    hurry: Hurry,
}

/// The node stops: nobody waits for room any more.
#[derive(Clone, Default)]
pub(crate) struct Hurry(Arc<AtomicBool>);

impl Hurry {
    pub(crate) fn up(&self) {
        self.0.store(true, Relaxed);
    }
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
        let hurry = Hurry::default();
        let mut worker = Worker { files, unsynced: Vec::new(), waits: false, hurry: hurry.clone() };
        let alone = tokio::runtime::Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread);
        if alone {
            tokio::spawn(async move {
                let mut first = None;
                loop {
                    if first.is_some() {
                        tokio::time::sleep(ROOM_AGAIN).await;
                    } else {
                        first = queue.recv().await;
                    }
                    let Some(job) = first.take() else { return };
                    let work = move || (worker.run(job, &mut queue), worker, queue);
                    let Ok(done) = ottla_host::blocking(work).await else { return };
                    (first, worker, queue) = done;
                }
            });
        } else {
            let work = move || {
                while let Some(job) = queue.blocking_recv() {
                    let mut first = worker.run(job, &mut queue);
                    while let Some(job) = first {
                        std::thread::sleep(ROOM_AGAIN);
                        first = worker.run(job, &mut queue);
                    }
                }
            };
            std::thread::Builder::new().name("raft-log".to_owned()).spawn(work)?;
        }
        Ok(Self { jobs, hurry })
    }

    /// To be told when the node stops.
    pub(crate) fn hurry(&self) -> Hurry {
        self.hurry.clone()
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
    /// For room.
    waits: bool,
    hurry: Hurry,
}

impl Worker {
    /// Does one write and all that wait behind it, then syncs. Returns the first for
    /// which there is no room: to be tried again, before all others.
    fn run(&mut self, first: Job, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let mut next = Some(first);
        while let Some(Job { mut write, done }) = next {
            let result = self.write(&mut write);
            if let Err(error) = &result {
                if error.kind() == io::ErrorKind::StorageFull && !self.hurry.0.load(Relaxed) {
                    if !std::mem::replace(&mut self.waits, true) {
                        tracing::warn!(%error, "no room for metadata; waiting for it");
                    }
                    flush(&self.files, &mut self.unsynced);
                    return Some(Job { write, done });
                }
                self.fail(write, error);
            } else if let Write::Append(_, callback) = write {
                self.unsynced.push(callback);
            }
            if std::mem::take(&mut self.waits) {
                tracing::info!("there is room for metadata again");
            }
            // Nobody waits any more while Raft is being stopped.
            let _ = done.send(result);
            next = queue.try_recv().ok();
        }
        flush(&self.files, &mut self.unsynced);
        None
    }

    fn write(&mut self, write: &mut Write) -> io::Result<()> {
        if !matches!(write, Write::Append(..)) {
            flush(&self.files, &mut self.unsynced);
        }
        match write {
            Write::Append(encoded, _) => self.files.append(encoded),
            Write::Vote(vote) => self.files.save_vote(*vote),
            Write::Committed(committed) => self.files.save_committed(*committed),
            Write::TruncateAfter(last) => self.files.truncate_after(*last),
            Write::Purge(upto) => self.files.purge(*upto),
        }
    }

    fn fail(&mut self, write: Write, error: &io::Error) {
        if let Write::Append(_, callback) = write {
            flush(&self.files, &mut self.unsynced);
            callback.io_completed(Err(io::Error::other(error.to_string())));
        }
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
