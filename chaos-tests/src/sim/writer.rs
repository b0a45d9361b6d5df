//! Writers of a simulated cluster: unique values, one after the other, and what each was
//! told about them.

use super::load::{HEALED_WITHIN, Shared, TOPIC, key, now};
use super::trace;
use crate::history::{Call, Outcome, Send};
use anyhow::Context as _;
use ottla_client::{Acks, ClientError, Delivery, ProducerOptions, ProducerRecord, TopicProducer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// How long a writer waits for one record's fate. Longer than any window of a plan, so
/// that some writes outlive their fault, and short beside a run.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two records of a writer: some hundreds of records a run tell as much
/// as thousands, and take less.
const PAUSE: Duration = Duration::from_millis(10);

/// How a writer writes.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) acks: Acks,
    /// What is in doubt is sent again, as the leader would know it.
    pub(super) idempotent: bool,
    /// Values whose fate it awaits at the same time.
    pub(super) outstanding: usize,
}

impl Kind {
    pub(super) fn options(self) -> ProducerOptions {
        ProducerOptions {
            acks: self.acks,
            idempotent: self.idempotent,
            // Each value is there once or not at all, whatever its writer was told.
            retry_indefinite: self.idempotent,
            delivery_timeout: DELIVERY_TIMEOUT,
            ..ProducerOptions::default()
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    topic: TopicProducer,
    /// Faults are aimed at it.
    is_watched: bool,
    partition: u32,
    key: String,
    name: String,
    kind: Kind,
}

struct Sent {
    value: String,
    begun: Duration,
    over: bool,
    delivery: Delivery,
}

impl Writer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        topic: TopicProducer,
        (name, partition): (&str, u32),
        kind: Kind,
    ) -> Self {
        let (shared, key, is_watched) = (Arc::clone(shared), key(name, partition), name == TOPIC);
        let name = format!("writer of {key}");
        Self { shared, topic, is_watched, partition, key, name, kind }
    }

    /// Writes until nothing is wrong any more and a value that was sent after that is
    /// written.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut outstanding = VecDeque::new();
        let mut gives_up = None;
        for number in 0_u64.. {
            outstanding.push_back(self.send(number).await?);
            let over = self.shared.over.load(Relaxed);
            while outstanding.len() >= self.kind.outstanding || (over && !outstanding.is_empty()) {
                let Some(sent) = outstanding.pop_front() else { break };
                let sent_after = sent.over;
                match self.settle(sent).await {
                    Ok(()) if sent_after => return self.settle_all(outstanding).await,
                    Err(error) if sent_after => {
                        let gives_up = *gives_up.get_or_insert(Instant::now() + HEALED_WITHIN);
                        let late = Instant::now() >= gives_up;
                        anyhow::ensure!(!late, "{} takes no writes: {error}", self.key);
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn send(&self, number: u64) -> anyhow::Result<Sent> {
        let (value, begun) = (format!("{}/{number}", self.key), now());
        let over = self.shared.over.load(Relaxed);
        let value_of = ProducerRecord::value(value.clone());
        let record = ProducerRecord { partition: Some(self.partition), ..value_of };
        // Fails only for what no fault explains.
        let delivery = self.topic.send(record).await.context("a record is taken")?;
        Ok(Sent { value, begun, over, delivery })
    }

    async fn settle_all(&self, outstanding: VecDeque<Sent>) -> anyhow::Result<()> {
        for sent in outstanding {
            // Whatever it was: it is in the history.
            let _told = self.settle(sent).await;
        }
        Ok(())
    }

    async fn settle(&self, sent: Sent) -> Result<(), ClientError> {
        let told = sent.delivery.await;
        let is_promise = self.kind.acks == Acks::All;
        let outcome = match &told {
            Ok(_) if is_promise => Outcome::Ok,
            Err(error) if !error.is_indefinite() => Outcome::Fail,
            _ => Outcome::Info,
        };
        if self.is_watched && outcome == Outcome::Ok {
            self.shared.acknowledge(self.partition);
        }
        let offset = told.as_ref().ok().and_then(|d| d.offset).filter(|_| is_promise);
        let call = Call::Send(Send { key: self.key.clone(), value: sent.value, offset });
        trace::told(&format!("{call:?}: {outcome:?}"));
        let error = told.as_ref().err().map(ToString::to_string);
        let times = (sent.begun, now());
        self.shared.recorder.operation(&self.name, times, call, outcome, error);
        told.map(drop)
    }
}
