//! The records of one partition that wait to be sent, gathered into batches.
//!
//! Not its job: sending. One worker takes batches out at the other end.

use super::pipeline::MAX_UNANSWERED;
use super::record::{BatchOutcome, Delivery, SharedOutcome};
use crate::ClientError;
use futures::FutureExt;
use ottla_commitlog::format::{HEADER_LEN, NewRecord};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until};

/// A record with what it takes up.
pub(super) struct Entry {
    pub(super) record: NewRecord,
    /// Most bytes it adds to a batch.
    pub(super) encoded: usize,
    /// Its share of the producer's buffer, given back when its batch is done.
    pub(super) memory: OwnedSemaphorePermit,
}

/// Records that are sent, and succeed or fail, together.
pub(super) struct Batch {
    pub(super) records: Vec<NewRecord>,
    /// When the first record came: linger and delivery timeout count from here.
    pub(super) opened: Instant,
    encoded: usize,
    sealed: bool,
    memory: OwnedSemaphorePermit,
    outcome: SharedOutcome,
    reply: oneshot::Sender<BatchOutcome>,
}

impl Batch {
    fn new(entry: Entry) -> Self {
        let (reply, outcome) = oneshot::channel();
        Self {
            encoded: HEADER_LEN + entry.encoded,
            records: vec![entry.record],
            opened: Instant::now(),
            sealed: false,
            memory: entry.memory,
            outcome: outcome.shared(),
            reply,
        }
    }

    /// Tells every record of the batch, and frees its memory.
    pub(super) fn complete(self, outcome: BatchOutcome) {
        // Fails when nobody waits for any of these records, which is their right.
        let _ = self.reply.send(outcome);
        drop(self.memory);
    }
}

/// The queue of one partition.
pub(super) struct PartitionQueue {
    partition: u32,
    /// Largest batch, in encoded bytes.
    batch_bytes: usize,
    linger: Duration,
    state: Mutex<State>,
    /// Rung when the worker may have something to do.
    bell: Notify,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    /// Outcomes of the batches that the worker has taken out last, those that it has
    /// not completed among them.
    taken: VecDeque<SharedOutcome>,
    closed: bool,
}

impl PartitionQueue {
    pub(super) fn new(partition: u32, batch_bytes: usize, linger: Duration) -> Self {
        let state = Mutex::default();
        Self { partition, batch_bytes, linger, state, bell: Notify::new() }
    }

    pub(super) fn partition(&self) -> u32 {
        self.partition
    }

    /// Appends a record, behind all that were appended before.
    pub(super) fn append(&self, entry: Entry) -> Delivery {
        let mut state = self.state.lock();
        let fits =
            |batch: &Batch| !batch.sealed && batch.encoded + entry.encoded <= self.batch_bytes;
        if let Some(batch) = state.batches.back_mut() {
            if fits(batch) {
                let index = batch.records.len() as u64;
                batch.encoded += entry.encoded;
                batch.records.push(entry.record);
                batch.memory.merge(entry.memory);
                return Delivery::new(self.partition, index, batch.outcome.clone());
            }
            batch.sealed = true;
            self.bell.notify_one();
        }
        let batch = Batch::new(entry);
        let delivery = Delivery::new(self.partition, 0, batch.outcome.clone());
        if state.closed {
            // Dropping its sender would say "perhaps written"; it was not.
            batch.complete(Err(ClientError::Closed));
            return delivery;
        }
        state.batches.push_back(batch);
        self.bell.notify_one();
        delivery
    }

    /// Batches that wait here.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().batches.len()
    }

    /// Whether a batch takes more records.
    pub(super) fn is_filling(&self) -> bool {
        self.state.lock().batches.back().is_some_and(|batch| !batch.sealed)
    }

    /// The next batch once it is full, has lingered, or is wanted at once.
    /// `None` when the queue is closed and empty. For one worker.
    pub(super) async fn next(&self) -> Option<Batch> {
        loop {
            let ready_at = {
                let mut state = self.state.lock();
                match state.batches.front() {
                    None if state.closed => return None,
                    None => None,
                    Some(batch) => {
                        let ready_at = batch.opened + self.linger;
                        if batch.sealed || state.closed || ready_at <= Instant::now() {
                            let batch = state.batches.pop_front();
                            if state.taken.len() == MAX_UNANSWERED {
                                state.taken.pop_front();
                            }
                            state.taken.extend(batch.as_ref().map(|batch| batch.outcome.clone()));
                            return batch;
                        }
                        Some(ready_at)
                    }
                }
            };
            match ready_at {
                None => self.bell.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = self.bell.notified() => {}
                    }
                }
            }
        }
    }

    /// Ends the filling of the current batch and returns what to wait for
    /// until everything appended so far is done.
    pub(super) fn flush(&self) -> Vec<SharedOutcome> {
        let mut state = self.state.lock();
        let mut outcomes: Vec<_> = state.taken.iter().cloned().collect();
        for batch in &mut state.batches {
            batch.sealed = true;
            outcomes.push(batch.outcome.clone());
        }
        self.bell.notify_one();
        outcomes
    }

    /// Takes no more records. What is queued is still sent.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_commitlog::format::encoded_record_len;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    const LINGER: Duration = Duration::from_millis(5);

    fn entry(buffer: &Arc<Semaphore>, text: &'static str) -> Entry {
        let record = NewRecord { value: Some(text.into()), ..NewRecord::default() };
        let encoded = encoded_record_len(&record);
        let permits = u32::try_from(encoded).expect("small");
        let memory = buffer.clone().try_acquire_many_owned(permits).expect("room");
        Entry { record, encoded, memory }
    }

    fn queue(batch_bytes: usize) -> (PartitionQueue, Arc<Semaphore>) {
        (PartitionQueue::new(0, batch_bytes, LINGER), Arc::new(Semaphore::new(1 << 20)))
    }

    fn append(queue: &PartitionQueue, buffer: &Arc<Semaphore>, text: &'static str) -> Delivery {
        queue.append(entry(buffer, text))
    }

    fn values(batch: &Batch) -> Vec<&[u8]> {
        batch.records.iter().map(|r| r.value.as_deref().unwrap_or_default()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_lingers_for_company_and_no_longer() {
        let (queue, buffer) = queue(1 << 16);
        let start = Instant::now();
        append(&queue, &buffer, "a");
        append(&queue, &buffer, "b");
        let batch = queue.next().await.expect("open");
        assert_eq!(start.elapsed(), LINGER);
        assert_eq!(values(&batch), [b"a", b"b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_at_once_and_order_is_kept() {
        let one = {
            let buffer = Arc::new(Semaphore::new(1 << 20));
            HEADER_LEN + 2 * entry(&buffer, "a").encoded
        };
        let (queue, buffer) = queue(one);
        let start = Instant::now();
        for text in ["a", "b", "c", "d", "e"] {
            append(&queue, &buffer, text);
        }
        assert_eq!(values(&queue.next().await.expect("full")), [b"a", b"b"]);
        assert_eq!(values(&queue.next().await.expect("full")), [b"c", b"d"]);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(values(&queue.next().await.expect("lingered")), [b"e"]);
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn flush_waits_for_the_batch_under_way_and_those_queued() {
        let (queue, buffer) = queue(1 << 16);
        append(&queue, &buffer, "a");
        queue.flush();
        let under_way = queue.next().await.expect("flushed");
        append(&queue, &buffer, "b");
        let outcomes = queue.flush();
        append(&queue, &buffer, "later");
        assert_eq!(outcomes.len(), 2, "not the record that came after the flush");
        under_way.complete(Ok(Some(0)));
        let queued = queue.next().await.expect("flushed");
        assert_eq!(values(&queued), [b"b"]);
        queued.complete(Ok(Some(1)));
        for outcome in outcomes {
            outcome.await.expect("not dropped").expect("delivered");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_drains_and_refuses() {
        let (queue, buffer) = queue(1 << 16);
        append(&queue, &buffer, "a");
        queue.close();
        let late = append(&queue, &buffer, "late");
        let batch = queue.next().await.expect("what was queued");
        // The record came too late for a new batch but not for the one still open.
        assert_eq!(values(&batch), [&b"a"[..], b"late"]);
        assert!(queue.next().await.is_none());
        batch.complete(Ok(Some(7)));
        assert_eq!(late.await.expect("delivered").offset, Some(8));
        let refused = append(&queue, &buffer, "too late").await.expect_err("closed");
        assert!(matches!(refused, ClientError::Closed));
        assert_eq!(buffer.available_permits(), 1 << 20, "all memory is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_what_waits_and_what_is_being_filled() {
        let (queue, buffer) = queue(1 << 16);
        assert!(!queue.is_filling() && queue.waiting() == 0);
        append(&queue, &buffer, "a");
        assert!(queue.is_filling() && queue.waiting() == 1);
        queue.flush();
        assert!(!queue.is_filling() && queue.waiting() == 1);
    }
}
