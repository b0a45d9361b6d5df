//! Request and reply over two topics: a request says where its reply goes, and under which
//! id.

use super::ProcessingError;
use crate::{
    Client, ClientError, ConsumedRecord, Consumer, Producer, ProducerRecord, Record, RecordHeader,
    StartPosition, TopicPartition, TopicProducer,
};
use bytes::Bytes;
use ottla_proto::RequestId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Header with what a reply belongs to.
pub const CORRELATION_ID: &str = "correlation-id";

/// Header with the topic for the reply.
pub const REPLY_TO: &str = "reply-to";

type Waiting = Arc<Mutex<HashMap<Bytes, oneshot::Sender<Record>>>>;

/// Sends requests, and waits for their replies.
pub struct Requester {
    requests: TopicProducer,
    reply_to: String,
    waiting: Waiting,
    listener: JoinHandle<()>,
}

impl Requester {
    /// Requests go to one topic, replies come in another, which other requesters may use,
    /// too: each takes its own.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC.
    pub async fn start(
        client: &Client,
        producer: &Producer,
        requests: &str,
        replies: &str,
    ) -> Result<Self, ProcessingError> {
        let requests = producer.topic(requests).await?;
        let mut builder = Consumer::builder(client);
        for partition in 0..client.partitions(replies).await? {
            // From before the first request on.
            let end = client.offset_of(replies, partition, StartPosition::End).await?;
            let partition = TopicPartition::new(replies, partition);
            builder = builder.assign_at(partition, StartPosition::Offset(end));
        }
        let consumer = builder.build().await?;
        let waiting = Waiting::default();
        let listener = tokio::spawn(listen(consumer, Arc::clone(&waiting)));
        Ok(Self { requests, reply_to: replies.to_owned(), waiting, listener })
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// `NoReply`: the request may have been carried out, or may be yet.
    pub async fn request(
        &self,
        mut record: ProducerRecord,
        within: Duration,
    ) -> Result<Record, ProcessingError> {
        let id = Bytes::from(RequestId::random().0.to_string());
        record.headers.push(header(CORRELATION_ID, id.clone()));
        record.headers.push(header(REPLY_TO, self.reply_to.clone().into()));
        let (reply, replied) = oneshot::channel();
        self.waiting.lock().insert(id.clone(), reply);
        let _forgets = Forgets(&self.waiting, &id);
        let exchange = async {
            self.requests.send(record).await?.await?;
            Ok(replied.await.map_err(|_| ClientError::Closed)?)
        };
        timeout(within, exchange).await.unwrap_or(Err(ProcessingError::NoReply(within)))
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Nobody waits any more.
struct Forgets<'a>(&'a Waiting, &'a Bytes);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(self.1);
    }
}

async fn listen(consumer: Consumer, waiting: Waiting) {
    loop {
        match consumer.next_record().await {
            Ok(Some(record)) => {
                let reply =
                    value_of(&record, CORRELATION_ID).and_then(|id| waiting.lock().remove(&id));
                if let Some(reply) = reply {
                    // Fails when nobody waits for it any more.
                    let _ = reply.send(record.record);
                }
            }
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "replies"),
        }
    }
}

/// Answers requests, one after the other, until the consumer is closed. A record that asks
/// for no reply is handled, and gets none.
///
/// # Errors
/// The handler's, or a reply that could not be written.
pub async fn respond<E, F>(
    consumer: &Consumer,
    producer: &Producer,
    mut handle: impl FnMut(ConsumedRecord) -> F,
) -> Result<(), ProcessingError>
where
    E: std::fmt::Display,
    F: Future<Output = Result<Bytes, E>>,
{
    while let Some(record) = consumer.next_record().await? {
        let (id, to) = (value_of(&record, CORRELATION_ID), value_of(&record, REPLY_TO));
        let (partition, offset) = (record.partition.clone(), record.offset);
        let answer = handle(record).await.map_err(|error| ProcessingError::Handler {
            partition,
            offset,
            cause: error.to_string(),
        })?;
        let to = to.and_then(|to| String::from_utf8(to.to_vec()).ok());
        if let (Some(id), Some(to)) = (id, to) {
            let mut reply = ProducerRecord::value(answer);
            reply.headers.push(header(CORRELATION_ID, id));
            producer.topic(&to).await?.send(reply).await?.await?;
        }
    }
    Ok(())
}

fn header(name: &'static str, value: Bytes) -> RecordHeader {
    RecordHeader { name: Bytes::from_static(name.as_bytes()), value: Some(value) }
}

fn value_of(record: &Record, name: &str) -> Option<Bytes> {
    record.headers.iter().find(|header| header.name == name)?.value.clone()
}
