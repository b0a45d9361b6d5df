//! Sends the batches of one partition, one after another, until each is
//! written, refused for good, or out of time.
//!
//! At most one batch of a partition is under way: with a second one, a retry
//! of the first would change their order.

use super::link::Links;
use super::queue::{Batch, PartitionQueue};
use super::record::BatchOutcome;
use super::{ProducerOptions, Stats};
use crate::backoff::Deadline;
use crate::client::{ANSWER_GRACE, obstacle};
use crate::leader::{FoundLeader, LeaderSearch};
use crate::{Client, ClientError};
use bytes::Bytes;
use ottla_commitlog::format::{BatchOptions, encode_batch};
use ottla_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use v1::produce_request::Payload;

/// Time that another attempt must have. With less its answer would be that time
/// is over, which says less than the error at hand, and is less certain.
const LEAST_RETRY: Duration = Duration::from_millis(100);

/// What the workers of one producer share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) options: ProducerOptions,
    pub(super) links: Links,
    pub(super) stats: Stats,
}

/// Runs until the queue is closed and empty.
pub(super) async fn run(context: Arc<Context>, topic: Arc<str>, queue: Arc<PartitionQueue>) {
    let worker = Worker { context: &context, topic: &topic, partition: queue.partition() };
    while let Some(batch) = queue.next().await {
        let outcome = Box::pin(worker.deliver(&batch)).await;
        let (topic, partition, records) = (&*topic, queue.partition(), batch.records.len());
        match &outcome {
            Ok(_) => context.stats.acknowledged(&batch.records),
            Err(error) => {
                tracing::debug!(topic, partition, records, %error, "batch failed");
                context.stats.failed(records);
            }
        }
        batch.complete(outcome);
    }
}

struct Worker<'a> {
    context: &'a Context,
    topic: &'a str,
    partition: u32,
}

impl Worker<'_> {
    async fn deliver(&self, batch: &Batch) -> BatchOutcome {
        let options = &self.context.options;
        let encoding = BatchOptions { compression: options.compression, ..BatchOptions::default() };
        let encoded = encode_batch(&batch.records, &encoding)
            .map_err(|error| ClientError::InvalidArgument(error.to_string()))?
            .freeze();
        let deadline = Deadline::at(batch.opened, options.delivery_timeout);
        let mut search =
            LeaderSearch::new(&self.context.client, self.topic, self.partition, deadline);
        let mut history = History::default();
        loop {
            let leader = match search.find().await {
                Ok(leader) => leader,
                Err(error) => return Err(history.conclude(self, error, deadline)),
            };
            let error = match self.attempt(&leader, &encoded, deadline).await {
                Ok(response) => return Ok(response.base_offset),
                Err(error) => error,
            };
            if error.is_indefinite() {
                if !options.retry_indefinite {
                    return Err(error);
                }
                history.maybe_written = true;
            }
            if !error.is_retriable() || deadline.remaining() < LEAST_RETRY {
                return Err(history.conclude(self, error, deadline));
            }
            let (topic, partition) = (self.topic, self.partition);
            tracing::debug!(topic, partition, leader = %leader.endpoint, %error, "trying again");
            self.context.stats.retried();
            if let Err(error) = search.failed(&error).await {
                return Err(history.conclude(self, error, deadline));
            }
            if deadline.remaining() < LEAST_RETRY {
                return Err(history.conclude(self, error, deadline));
            }
            if history.maybe_written && !history.counted {
                history.counted = true;
                self.context.stats.maybe_duplicated(batch.records.len());
            }
            history.last = Some(error);
        }
    }

    async fn attempt(
        &self,
        leader: &FoundLeader,
        batch: &Bytes,
        deadline: Deadline,
    ) -> Result<v1::ProduceResponse, ClientError> {
        let link = self.context.links.get(&leader.endpoint).await?;
        let patience = deadline.remaining();
        let request = v1::ProduceRequest {
            topic: self.topic.to_owned(),
            partition: self.partition,
            acks: self.context.options.acks.to_wire().into(),
            // 0 would mean the node's default.
            timeout_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX).max(1),
            payload: Some(Payload::RecordBatch(batch.clone())),
        };
        let answer = link.produce(request, patience + ANSWER_GRACE);
        let client = &self.context.client;
        let outcome = client.while_leading(self.topic, self.partition, leader, answer).await;
        if outcome.as_ref().is_err_and(ClientError::is_transport) {
            self.context.links.discard(&link).await;
        }
        outcome
    }
}

/// The attempts to deliver one batch so far.
#[derive(Default)]
struct History {
    /// One of them may have been applied.
    maybe_written: bool,
    /// Its records are counted as possible duplicates.
    counted: bool,
    last: Option<ClientError>,
}

impl History {
    /// The error to report: never more certain than the attempts allow, and
    /// naming what stood in the way rather than that time is over.
    fn conclude(self, worker: &Worker<'_>, error: ClientError, deadline: Deadline) -> ClientError {
        let out_of_time = error.is_retriable() && deadline.remaining() < LEAST_RETRY;
        if out_of_time && !error.is_unknown() {
            let indefinite = self.maybe_written || error.is_indefinite();
            return ClientError::DeadlineExceeded {
                what: format!("delivery to {}-{}", worker.topic, worker.partition),
                within: deadline.within(),
                indefinite,
                last: Some(Box::new(obstacle(error, self.last))),
            };
        }
        if self.maybe_written && !error.is_indefinite() {
            return ClientError::MaybeWritten(Box::new(error));
        }
        error
    }
}
