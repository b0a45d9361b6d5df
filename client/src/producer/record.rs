//! A record on its way out, and what becomes of it.

use crate::{ClientError, RecordHeader};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use ottla_proto::v1;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Records with equal keys go to the same partition. `None` differs from empty.
    pub key: Option<Bytes>,
    /// `None`, which differs from empty, is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// Headers, in order; names may repeat.
    pub headers: Vec<RecordHeader>,
    /// Milliseconds since the Unix epoch, not negative. `None`: now.
    pub timestamp_ms: Option<i64>,
    /// Where to, whatever the key. `None`: by key, or, without one, wherever a
    /// batch is being filled.
    pub partition: Option<u32>,
}

impl ProducerRecord {
    /// A record with nothing but a value.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record with key and value.
    pub fn keyed(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::value(value) }
    }
}

/// When a record counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Not waited for. Nothing is known about the record, not even its offset.
    None,
    /// On the leader. Lost if the leader is.
    Leader,
    /// On every in-sync replica, and at least `min.insync.replicas` of them.
    #[default]
    All,
}

impl Acks {
    pub(crate) fn to_wire(self) -> v1::Acks {
        match self {
            Self::None => v1::Acks::None,
            Self::Leader => v1::Acks::Leader,
            Self::All => v1::Acks::All,
        }
    }
}

/// Where a record has ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// Its offset there, for ever. `None` with [`Acks::None`].
    pub offset: Option<u64>,
}

/// What became of a batch: the offset of its first record.
pub(super) type BatchOutcome = Result<Option<u64>, ClientError>;

/// The outcome of a batch as every record in it waits for it.
pub(super) type SharedOutcome = Shared<oneshot::Receiver<BatchOutcome>>;

/// Resolves when the fate of one record is known. May be dropped: the record
/// is sent nevertheless.
#[derive(Debug)]
pub struct Delivery {
    partition: u32,
    /// Position in its batch.
    index: u64,
    outcome: SharedOutcome,
}

impl Delivery {
    pub(super) fn new(partition: u32, index: u64, outcome: SharedOutcome) -> Self {
        Self { partition, index, outcome }
    }

    /// The partition the record goes to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(self.outcome.poll_unpin(cx));
        Poll::Ready(match outcome {
            Ok(Ok(base)) => {
                let offset = base.map(|base| base + self.index);
                Ok(Delivered { partition: self.partition, offset })
            }
            Ok(Err(error)) => Err(error),
            // The producer was dropped, perhaps while the batch was on its way.
            Err(_) => Err(ClientError::MaybeWritten(Box::new(ClientError::Closed))),
        })
    }
}

/// Why [`super::TopicProducer::try_send`] did not take a record.
#[derive(Clone, Debug)]
pub enum TrySendReason {
    /// The buffer is full at the moment.
    Full,
    /// The record can never be sent like this.
    Refused(ClientError),
}

/// A record that was not taken, handed back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", match .reason {
    TrySendReason::Full => "the producer's buffer is full".to_owned(),
    TrySendReason::Refused(error) => error.to_string(),
})]
pub struct TrySendError {
    /// The record.
    pub record: ProducerRecord,
    /// Why.
    pub reason: TrySendReason,
}
