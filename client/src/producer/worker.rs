//! Sends the batches of one partition to its leader, wherever that is, until each is
//! written, refused for good, or out of time.
//!
//! Not its job: which batch is sent when, and under which sequence: that is
//! `pipeline`. Here are connections, waits, errors and time.

use super::identities::Identities;
use super::link::{Link, Links};
use super::parcel::{Parcel, answer_of};
use super::pipeline::{self, Answer, BatchId, Fate, Pipeline, Rules};
use super::queue::{Batch, PartitionQueue};
use super::{Acks, ProducerOptions, Stats};
use crate::backoff::Deadline;
use crate::client::ANSWER_GRACE;
use crate::leader::{FoundLeader, LeaderSearch};
use crate::metadata::LeaderLookup;
use crate::{Client, ClientError};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use ottla_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use v1::produce_request::Payload;

/// What the workers of one producer share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) options: ProducerOptions,
    pub(super) links: Links,
    pub(super) identities: Identities,
    pub(super) stats: Stats,
}

impl Context {
    fn rules(&self) -> Rules {
        let acks = self.options.acks;
        Rules {
            idempotent: self.options.idempotent && acks != Acks::None,
            retry_in_doubt: self.options.retry_indefinite,
            lossy: acks == Acks::Leader,
        }
    }
}

/// Runs until the queue is closed and empty.
pub(super) async fn run(context: Arc<Context>, topic: Arc<str>, queue: Arc<PartitionQueue>) {
    let mut worker = Worker {
        context: &context,
        topic: &topic,
        queue: &queue,
        pipeline: Pipeline::new(context.rules()),
        parcels: BTreeMap::new(),
        trouble: None,
    };
    while let Some(batch) = queue.next().await {
        worker.admit(batch);
        Box::pin(worker.deliver()).await;
    }
}

struct Worker<'a> {
    context: &'a Context,
    topic: &'a str,
    queue: &'a PartitionQueue,
    pipeline: Pipeline,
    /// What is in the pipeline, the oldest first.
    parcels: BTreeMap<BatchId, Parcel>,
    /// What stood in the way of the batches before, if anything still does.
    trouble: Option<ClientError>,
}

type Outcome = Result<v1::ProduceResponse, ClientError>;
type Answers<'a> = FuturesUnordered<BoxFuture<'a, (BatchId, Outcome)>>;

/// How a leg ended, with nothing unanswered.
enum Ended {
    /// This leader or stream is not the right one any more, or there is nothing to do.
    Outdated,
    /// Something failed: what first, or what says who leads.
    Failed(ClientError),
}

impl<'a> Worker<'a> {
    fn admit(&mut self, batch: Batch) {
        let deadline = Deadline::at(batch.opened, self.context.options.delivery_timeout);
        // Bounded by the format, far below.
        let records = u32::try_from(batch.records.len()).unwrap_or(u32::MAX);
        let id = self.pipeline.admit(records);
        self.parcels.insert(id, Parcel::new(batch, deadline));
    }

    fn search(&self) -> Option<LeaderSearch<'a>> {
        let deadline = self.parcels.first_key_value()?.1.deadline;
        let (client, partition) = (&self.context.client, self.queue.partition());
        Some(LeaderSearch::new(client, self.topic, partition, deadline))
    }

    /// Until the fate of everything that was taken in is known.
    async fn deliver(&mut self) {
        let mut search = None;
        loop {
            self.give_up_late();
            // One that goes on has learnt how long to wait.
            let Some(fresh) = self.search() else { return };
            let trying = match search.take().filter(|_| self.trouble.is_some()) {
                Some(trying) => fresh.instead_of(trying),
                None => fresh,
            };
            let trying = search.insert(trying);
            let ended = self.leg(trying).await;
            for (id, fate) in self.pipeline.end_leg() {
                self.fail(id, fate);
            }
            let error = match ended {
                Ok(Ended::Outdated) => continue,
                Ok(Ended::Failed(error)) => {
                    self.give_up_late();
                    let (topic, partition) = (self.topic, self.queue.partition());
                    tracing::debug!(topic, partition, %error, "trying again");
                    trying.failed(&error).await.err()
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                self.give_up(&error);
                search = None;
            }
        }
    }

    /// Sends to one leader as long as that goes well.
    ///
    /// # Errors
    /// Nothing was sent, and waiting longer does not help those that wait.
    async fn leg(&mut self, search: &mut LeaderSearch<'a>) -> Result<Ended, ClientError> {
        let leader = search.find().await?;
        if let Some(former) = self.pipeline.needs_identity() {
            let id = self.context.identities.get(former, search.deadline()).await?;
            self.pipeline.identify(id);
        }
        let link = match self.context.links.get(&leader.endpoint).await {
            Ok(link) => link,
            Err(error) => {
                self.hindered(&error);
                return Ok(Ended::Failed(error));
            }
        };
        let mut answers = Answers::new();
        let mut failure = None;
        let mut closed = false;
        // A stream that ends as soon as it is open fails what is sent, which makes a pause.
        let mut begun = false;
        loop {
            let idle = answers.is_empty() && !self.pipeline.has_failed();
            if std::mem::replace(&mut begun, true) && idle && !self.leads(&leader, &link) {
                return Ok(Ended::Outdated);
            }
            self.send(&leader, &link, &mut answers, &mut failure).await;
            if self.pipeline.unanswered() == 0 {
                match failure {
                    Some(error) => return Ok(Ended::Failed(error)),
                    None if self.pipeline.needs_identity().is_some() => return Ok(Ended::Outdated),
                    None if closed && self.parcels.is_empty() => return Ok(Ended::Outdated),
                    None => {}
                }
            }
            tokio::select! {
                biased;
                Some((id, outcome)) = answers.next() => {
                    let broken = outcome.as_ref().err().filter(|error| error.is_transport()).cloned();
                    self.answered(id, outcome, &mut failure);
                    if let Some(broken) = broken {
                        self.leave(&link, &broken, &mut answers, &mut failure).await;
                    }
                }
                batch = self.queue.next(), if self.pipeline.wants() && !closed => match batch {
                    Some(batch) => self.admit(batch),
                    None => closed = true,
                }
            }
        }
    }

    /// Whether a leg that has nothing unanswered may go on.
    fn leads(&self, leader: &FoundLeader, link: &Link) -> bool {
        let known = self.context.client.metadata().leader(self.topic, self.queue.partition());
        link.is_open() && matches!(known, LeaderLookup::Known(known) if known == *leader)
    }

    /// Sends all that may be sent now.
    async fn send(
        &mut self,
        leader: &FoundLeader,
        link: &Link,
        answers: &mut Answers<'a>,
        failure: &mut Option<ClientError>,
    ) {
        while let Some(send) = self.pipeline.next() {
            let request = match self.request(send) {
                Ok(request) => request,
                Err(error) => {
                    self.answered(send.id, Err(error), failure);
                    continue;
                }
            };
            let patience = self.parcels[&send.id].deadline.remaining() + ANSWER_GRACE;
            match link.submit(request).await {
                Ok(pending) => {
                    let (client, topic) = (&self.context.client, self.topic);
                    let (leader, partition, id) = (leader.clone(), self.queue.partition(), send.id);
                    let answer = async move {
                        let answer = pending.within(patience);
                        (id, client.while_leading(topic, partition, &leader, answer).await)
                    };
                    answers.push(answer.boxed());
                }
                Err(error) => self.answered(send.id, Err(error), failure),
            }
        }
    }

    fn request(&mut self, send: pipeline::Send) -> Result<v1::ProduceRequest, ClientError> {
        let options = &self.context.options;
        let parcel = self.parcels.get_mut(&send.id).expect("what is sent was admitted");
        let batch = parcel.encode(options.compression, send.sequence)?;
        if parcel.attempts > 0 {
            self.context.stats.retried();
        }
        if send.in_doubt && !std::mem::replace(&mut parcel.doubted, true) {
            self.context.stats.doubted(parcel.batch().records.len());
        }
        if send.maybe_again && !std::mem::replace(&mut parcel.counted, true) {
            self.context.stats.maybe_duplicated(parcel.batch().records.len());
        }
        let partition = self.queue.partition();
        let trace_parent = parcel.trace_parent(&options.tracer, self.topic, partition);
        parcel.attempts += 1;
        let remaining = parcel.deadline.remaining().as_millis();
        Ok(v1::ProduceRequest {
            topic: self.topic.to_owned(),
            partition,
            acks: options.acks.to_wire().into(),
            // 0 would mean the node's default.
            timeout_ms: u32::try_from(remaining).unwrap_or(u32::MAX).max(1),
            payload: Some(Payload::RecordBatch(batch)),
            trace_parent,
        })
    }

    fn answered(&mut self, id: BatchId, outcome: Outcome, failure: &mut Option<ClientError>) {
        let error = match outcome {
            Ok(response) => {
                self.trouble = None;
                if self.pipeline.answered(id, Answer::Written).is_some()
                    && let Some(parcel) = self.parcels.remove(&id)
                {
                    self.context.stats.acknowledged(&parcel.batch().records);
                    parcel.complete(Ok(response.base_offset));
                }
                return;
            }
            Err(error) => error,
        };
        if let Some(parcel) = self.parcels.get_mut(&id) {
            parcel.hindered_by(error.clone());
        }
        if let Some(fate) = self.pipeline.answered(id, answer_of(&error)) {
            self.fail(id, fate);
        }
        self.trouble = Some(error.clone());
        let leads_on = |error: &ClientError| error.api().is_some_and(|api| api.leader.is_some());
        if failure.as_ref().is_none_or(|first| !leads_on(first) && leads_on(&error)) {
            *failure = Some(error);
        }
    }

    /// Gives up a stream that broke or keeps silent, but not the answers it brought.
    async fn leave(
        &mut self,
        link: &Link,
        broken: &ClientError,
        answers: &mut Answers<'a>,
        failure: &mut Option<ClientError>,
    ) {
        while let Some(Some((id, outcome))) = answers.next().now_or_never() {
            self.answered(id, outcome, failure);
        }
        answers.clear();
        self.hindered(broken);
        for (id, fate) in self.pipeline.lost() {
            self.fail(id, fate);
        }
        self.context.links.discard(link).await;
    }

    /// Remembers for all that nothing could be sent, or no answer will come.
    fn hindered(&mut self, error: &ClientError) {
        for parcel in self.parcels.values_mut() {
            parcel.hindered_by(error.clone());
        }
        self.trouble = Some(error.clone());
    }

    /// Fails what has no time left for another attempt.
    fn give_up_late(&mut self) {
        let late = self.parcels.iter().filter(|(_, parcel)| parcel.is_late());
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(fate) = self.pipeline.give_up(id) else { continue };
            let Some(mut parcel) = self.parcels.remove(&id) else { continue };
            if let Some(trouble) = &self.trouble {
                parcel.hindered_if_never(trouble);
            }
            let what = format!("delivery to {}-{}", self.topic, self.queue.partition());
            let error = parcel.late(what, fate);
            self.complete_failed(parcel, error);
        }
    }

    /// Takes note that there is no leader to be had: fails what is out of time, or, if
    /// time is not the reason, everything.
    fn give_up(&mut self, error: &ClientError) {
        self.hindered(error);
        self.give_up_late();
        let timed_out = matches!(error, ClientError::DeadlineExceeded { .. });
        if timed_out || (error.is_retriable() && !error.is_unknown()) {
            return;
        }
        for id in self.parcels.keys().copied().collect::<Vec<_>>() {
            if let Some(fate) = self.pipeline.give_up(id) {
                self.fail(id, fate);
            }
        }
        self.trouble = None;
    }

    fn fail(&mut self, id: BatchId, fate: Fate) {
        let Some(parcel) = self.parcels.remove(&id) else { return };
        let error = parcel.failure(fate);
        self.complete_failed(parcel, error);
    }

    fn complete_failed(&self, parcel: Parcel, error: ClientError) {
        let (topic, partition) = (self.topic, self.queue.partition());
        let records = parcel.batch().records.len();
        tracing::debug!(topic, partition, records, %error, "batch failed");
        self.context.stats.failed(records);
        parcel.complete(Err(error));
    }
}
