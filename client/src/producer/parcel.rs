//! A batch under way: what is sent of it, and what stood in its way so far.

use super::pipeline::{Answer, Fate};
use super::queue::Batch;
use super::record::BatchOutcome;
use crate::ClientError;
use crate::backoff::Deadline;
use crate::client::obstacle;
use bytes::Bytes;
use ottla_commitlog::format::{BatchOptions, Compression, ProducerSequence, encode_batch};
use ottla_proto::v1::ErrorReason as R;
use ottla_trace::{Side, Span, Tracer};
use std::time::Duration;

/// Time that another attempt must have. With less its answer would be that time
/// is over, which says less than the error at hand, and is less certain.
const LEAST_RETRY: Duration = Duration::from_millis(100);

/// A batch that its worker has taken out of the queue.
pub(super) struct Parcel {
    batch: Batch,
    pub(super) deadline: Deadline,
    /// As it was sent last.
    encoded: Option<(Option<ProducerSequence>, Bytes)>,
    pub(super) attempts: u32,
    /// Its records are counted as having been in doubt.
    pub(super) doubted: bool,
    /// Its records are counted as possible duplicates.
    pub(super) counted: bool,
    span: Span,
    last: Option<ClientError>,
}

impl Parcel {
    pub(super) fn new(batch: Batch, deadline: Deadline) -> Self {
        Self {
            batch,
            deadline,
            encoded: None,
            attempts: 0,
            doubted: false,
            counted: false,
            span: Span::default(),
            last: None,
        }
    }

    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The bytes to send: the same for the same sequences.
    pub(super) fn encode(
        &mut self,
        compression: Compression,
        producer: Option<ProducerSequence>,
    ) -> Result<Bytes, ClientError> {
        if let Some((sequence, bytes)) = &self.encoded
            && *sequence == producer
        {
            return Ok(bytes.clone());
        }
        let options = BatchOptions { compression, producer, ..BatchOptions::default() };
        let bytes = encode_batch(&self.batch.records, &options)
            .map_err(|error| ClientError::InvalidArgument(error.to_string()))?
            .freeze();
        self.encoded = Some((producer, bytes.clone()));
        Ok(bytes)
    }

    /// Too little time is left for another attempt; the first needs no more than some.
    pub(super) fn is_late(&self) -> bool {
        let least = if self.attempts == 0 { Duration::from_nanos(1) } else { LEAST_RETRY };
        self.deadline.remaining() < least
    }

    /// Remembers what stood in the way; that time was over is not that.
    pub(super) fn hindered_by(&mut self, error: ClientError) {
        self.last = Some(obstacle(error, self.last.take()));
    }

    /// What stands in the way of others stood in its own way too.
    pub(super) fn hindered_if_never(&mut self, trouble: &ClientError) {
        self.last.get_or_insert_with(|| trouble.clone());
    }

    /// Why it was not written in time.
    pub(super) fn late(&self, what: String, fate: Fate) -> ClientError {
        ClientError::DeadlineExceeded {
            what,
            within: self.deadline.within(),
            indefinite: fate == Fate::InDoubt,
            last: self.last.clone().map(Box::new),
        }
    }

    /// What stood in the way last, never more certain than all attempts allow.
    pub(super) fn failure(&self, fate: Fate) -> ClientError {
        let error = self.last.clone().unwrap_or(ClientError::Closed);
        match fate {
            Fate::InDoubt if !error.is_indefinite() => ClientError::MaybeWritten(Box::new(error)),
            _ => error,
        }
    }

    /// The span of its way, as nodes are told of it; it begins with the first of them.
    pub(super) fn trace_parent(&mut self, tracer: &Tracer, topic: &str, partition: u32) -> String {
        if self.attempts == 0 {
            self.span = tracer.root("send", Side::Producer);
        }
        if !self.span.is_recorded() {
            return String::new();
        }
        if self.attempts == 0 {
            let records = i64::try_from(self.batch.records.len()).unwrap_or(i64::MAX);
            self.span.set("messaging.system", "ottla");
            self.span.set("messaging.destination.name", topic.to_owned());
            self.span.set("messaging.destination.partition.id", partition.to_string());
            self.span.set("messaging.batch.message_count", records);
        }
        self.span.traceparent()
    }

    pub(super) fn complete(mut self, outcome: BatchOutcome) {
        if let Err(error) = &outcome {
            self.span.fail(error);
        }
        self.batch.complete(outcome);
    }
}

/// What an error says about the batch that was sent.
pub(super) fn answer_of(error: &ClientError) -> Answer {
    if let ClientError::Api(api) = error {
        match api.reason {
            R::OutOfOrderSequence => {
                let expected = api.metadata.get("expected").and_then(|text| text.parse().ok());
                return Answer::OutOfOrder { expected };
            }
            R::InvalidProducerEpoch => return Answer::Fenced,
            _ => {}
        }
    }
    match (error.is_indefinite(), error.is_retriable()) {
        (true, retriable) => Answer::InDoubt { retriable },
        (false, true) => Answer::NotNow,
        (false, false) => Answer::Never,
    }
}
