//! `LogService`: producing and fetching.

use super::group_wire::topic_id;
use super::{Context, consume, now_ms, produce_stream};
use crate::limits::{Connection, Held, connection_of, held_until_encoded};
use crate::metrics::{Kind, Requests};
use crate::{deadline, payload};
use ottla_commitlog::format::ValidBatch;
use ottla_grpc::{Answers, Messages, answer};
use ottla_metadata::controller::INTERNAL_TOPIC_PREFIX;
use ottla_proto::v1::log_service_server::LogService;
use ottla_proto::v1::{self, ErrorReason, PayloadFormat, fetch_response};
use ottla_proto::{ApiError, MAX_GRPC_MESSAGE_BYTES, TopicId};
use ottla_replication::{Acks, Fetched, ProduceTicket, Reading, Replicas};
use ottla_trace::{Side, Span, Tracer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a fetch that names no bound.
const DEFAULT_FETCH_BYTES: usize = 1024 * 1024;

/// Bytes that one fetch is given at most (one batch may exceed it): bounds the
/// memory of an answer.
const MAX_FETCH_BYTES: usize = ottla_proto::MAX_BATCH_BYTES;

/// What a caller is told to wait that does not take its answers.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// The service.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) context: Context,
    pub(crate) replicas: Replicas,
    pub(crate) requests: Arc<Requests>,
    pub(crate) tracer: Tracer,
}

/// What stands in internal topics is the nodes' own.
fn check_public(topic: &str) -> Result<(), ApiError> {
    if topic.starts_with(INTERNAL_TOPIC_PREFIX) {
        let message = format!("`{topic}` is internal: only nodes change what is in it");
        return Err(ApiError::new(ErrorReason::InvalidTopicName, message));
    }
    Ok(())
}

/// A request as it was checked, before it joins its partition's queue.
pub(crate) struct Checked {
    topic: String,
    partition: u32,
    batch: ValidBatch,
    acks: Acks,
    pub(crate) deadline: Instant,
    span: Span,
}

/// A request that has its place in the order of its partition.
pub(crate) struct Enqueued {
    ticket: ProduceTicket,
    span: Span,
}

impl Log {
    pub(crate) fn check(
        &self,
        request: v1::ProduceRequest,
        deadline: Instant,
    ) -> Result<Checked, ApiError> {
        let acks = match v1::Acks::try_from(request.acks) {
            Ok(v1::Acks::Unspecified | v1::Acks::All) => Acks::All,
            Ok(v1::Acks::Leader) => Acks::Leader,
            Ok(v1::Acks::None) => Acks::None,
            Err(_) => {
                return Err(ApiError::new(
                    ErrorReason::InvalidAcks,
                    format!("acks {} is unknown: none, leader or all", request.acks),
                ));
            }
        };
        check_public(&request.topic)?;
        let batch = payload::batch(request.payload, now_ms())?;
        let span = self.span(&request.trace_parent, &request.topic, request.partition, &batch);
        let (topic, partition) = (request.topic, request.partition);
        Ok(Checked { topic, partition, batch, acks, deadline, span })
    }

    /// The span of a write, from now until it is answered. None for most.
    fn span(&self, trace_parent: &str, topic: &str, partition: u32, batch: &ValidBatch) -> Span {
        if trace_parent.is_empty() {
            return Span::default();
        }
        let mut span = self.tracer.below(trace_parent, "produce", Side::Server);
        if span.is_recorded() {
            span.set("messaging.system", "ottla");
            span.set("messaging.destination.name", topic.to_owned());
            span.set("messaging.destination.partition.id", partition.to_string());
            span.set("messaging.batch.message_count", i64::from(batch.header().record_count));
        }
        span
    }

    /// Puts the request into its partition's queue, in order.
    pub(crate) async fn enqueue(&self, request: Checked) -> Result<Enqueued, ApiError> {
        let Checked { topic, partition, batch, acks, deadline, mut span } = request;
        let trace_parent = span.traceparent();
        let queued =
            self.replicas.produce_traced(&topic, partition, batch, acks, deadline, trace_parent);
        match queued.await {
            Ok(ticket) => Ok(Enqueued { ticket, span }),
            Err(error) => {
                span.fail(&error);
                Err(error)
            }
        }
    }

    /// Waits for what its `acks` promises.
    pub(crate) async fn finish(
        &self,
        Enqueued { ticket, mut span }: Enqueued,
    ) -> Result<v1::ProduceResponse, ApiError> {
        let produced = ticket.wait().await.inspect_err(|error| span.fail(error))?;
        Ok(v1::ProduceResponse {
            header: self.context.header(),
            base_offset: produced.base_offset,
            record_count: produced.record_count,
            log_end_offset: produced.end_offset,
            leader_epoch: produced.leader_epoch.0,
        })
    }

    /// That the name is still that of the topic that the reader means.
    fn check_same(&self, wanted: &Wanted) -> Result<(), ApiError> {
        let Some(meant) = wanted.topic_id else { return Ok(()) };
        let images = self.replicas.images();
        let image = images.borrow();
        // A name that nobody has is told by who looks for the partition.
        match image.topic_by_name(&wanted.topic) {
            Some(found) if found.id != meant => {
                let message =
                    format!("topic {:?} is not the one that was read: deleted since", wanted.topic);
                Err(ApiError::new(ErrorReason::UnknownTopic, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads batches and shapes them as asked; at most `limit` records where
    /// they are decoded. Returns the payload, what it holds, and what remains.
    pub(crate) async fn read(&self, wanted: &Wanted) -> Result<Read, ApiError> {
        let read = self.read_uncounted(wanted).await;
        match &read {
            Ok(read) => self.requests.fetched(read.bytes, read.records),
            Err(error) => self.requests.failed(Kind::Fetch, error),
        }
        read
    }

    async fn read_uncounted(&self, wanted: &Wanted) -> Result<Read, ApiError> {
        self.check_same(wanted)?;
        let (found, held) = self.find(wanted).await?;
        // Ids are never used again: what was so before and after was so in between.
        self.check_same(wanted)?;
        let (payload, bytes, count, next) = match wanted.format {
            Format::Batches => {
                let (count, next) = payload::extent(&found.batches, wanted.offset)?;
                let bytes = found.batches.len();
                (fetch_response::Payload::RecordBatches(found.batches), bytes, count, next)
            }
            Format::Records => {
                let (records, next) =
                    payload::records(&found.batches, wanted.offset, wanted.max_records)?;
                let count = records.len() as u64;
                let set = v1::ConsumedRecordSet { records };
                let bytes = prost::Message::encoded_len(&set);
                (fetch_response::Payload::Records(set), bytes, count, next)
            }
        };
        let response = v1::FetchResponse {
            header: self.context.header(),
            high_watermark: found.high_watermark,
            log_start_offset: found.log_start,
            leader_epoch: found.leader_epoch.0,
            next_offset: next,
            payload: Some(payload),
        };
        Ok(Read { response, bytes, records: count, held })
    }

    /// What is there, with room for it on its connection.
    async fn find(&self, wanted: &Wanted) -> Result<(Fetched, Option<Held>), ApiError> {
        let Wanted { topic, partition, offset, max_bytes, wait, .. } = wanted;
        let (partition, offset, max_bytes, wait) = (*partition, *offset, *max_bytes, *wait);
        let reading = Reading { topic, partition, offset, max_bytes, wait };
        let mut held = None;
        let room = async {
            held = room_for(wanted).await?;
            Ok::<(), ApiError>(())
        };
        let found = if wanted.allow_follower {
            self.replicas.fetch_nearby_when(reading, room).await?
        } else {
            self.replicas.fetch_when(reading, room).await?
        };
        let spare = max_bytes.saturating_sub(found.batches.len());
        Ok((found, held.map(|held| held.but_for(spare))))
    }
}

/// Room for as much as may be read.
async fn room_for(wanted: &Wanted) -> Result<Option<Held>, ApiError> {
    let Some(connection) = &wanted.connection else { return Ok(None) };
    let (answers, bytes) = (connection.answers(), wanted.max_bytes);
    if let Some(held) = answers.try_hold(bytes) {
        return Ok(Some(held));
    }
    let Some(until) = wanted.until else { return Ok(Some(answers.hold(bytes).await)) };
    let held = answers.hold_until(bytes, until).await;
    held.map(Some).ok_or_else(|| {
        let message = "this connection has not taken the answers that wait for it";
        ApiError::new(ErrorReason::Overloaded, message).with_retry_after(FULL_RETRY)
    })
}

/// The shape asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Records,
    Batches,
}

impl Format {
    pub(crate) fn of(number: i32) -> Result<Self, ApiError> {
        match PayloadFormat::try_from(number) {
            Ok(PayloadFormat::Unspecified | PayloadFormat::Records) => Ok(Self::Records),
            Ok(PayloadFormat::RecordBatches) => Ok(Self::Batches),
            Err(_) => Err(ApiError::new(
                ErrorReason::InvalidRequest,
                format!("payload format {number} is unknown"),
            )),
        }
    }
}

/// One read as it was asked for.
pub(crate) struct Wanted {
    /// Where the answer goes, if that is counted.
    pub(crate) connection: Option<Arc<Connection>>,
    /// When it has to go; otherwise whenever there is room.
    pub(crate) until: Option<Instant>,
    pub(crate) topic: String,
    /// The one that is meant, if another may have its name by now.
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) max_bytes: usize,
    pub(crate) max_records: u64,
    pub(crate) wait: Duration,
    pub(crate) format: Format,
    pub(crate) allow_follower: bool,
}

/// One read as it was answered.
pub(crate) struct Read {
    pub(crate) response: v1::FetchResponse,
    pub(crate) bytes: usize,
    pub(crate) records: u64,
    /// Room on the connection, until it is encoded.
    pub(crate) held: Option<Held>,
}

#[tonic::async_trait]
impl LogService for Log {
    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let started = Instant::now();
        let deadline = deadline::of(request.metadata(), request.get_ref().timeout_ms);
        let outcome = async {
            let request = self.check(request.into_inner(), deadline)?;
            self.finish(self.enqueue(request).await?).await
        };
        let outcome = outcome.await;
        self.requests.produced(started.elapsed(), &outcome);
        Ok(Response::new(outcome?))
    }

    type ProduceStreamStream = Answers<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let requests = Messages::of_request(request, MAX_GRPC_MESSAGE_BYTES);
        let answers = produce_stream::serve(self.clone(), requests);
        Ok(answer(answers, MAX_GRPC_MESSAGE_BYTES))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let latest = deadline::of(request.metadata(), 0);
        let connection = connection_of(&request);
        let request = request.into_inner();
        let wanted = Wanted {
            connection,
            until: Some(latest),
            topic_id: topic_id(&request.topic_id)?,
            topic: request.topic,
            partition: request.partition,
            offset: request.offset,
            max_bytes: match request.max_bytes {
                0 => DEFAULT_FETCH_BYTES,
                n => (n as usize).min(MAX_FETCH_BYTES),
            },
            max_records: u64::MAX,
            wait: Duration::from_millis(request.max_wait_ms.into())
                .min(latest.saturating_duration_since(Instant::now())),
            format: Format::of(request.format)?,
            allow_follower: request.allow_follower,
        };
        let Read { response, held, .. } = self.read(&wanted).await?;
        Ok(held_until_encoded(response, held))
    }

    type ConsumeStream = Answers<v1::ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let connection = connection_of(&request);
        let answers = consume::serve(self.clone(), connection, request.into_inner());
        Ok(answer(answers, MAX_GRPC_MESSAGE_BYTES))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let deadline = deadline::of(request.metadata(), request.get_ref().timeout_ms);
        let v1::DeleteRecordsRequest { topic, partition, before_offset, .. } = request.into_inner();
        check_public(&topic)?;
        let low_watermark =
            self.replicas.delete_records(&topic, partition, before_offset, deadline).await?;
        let header = self.context.header();
        Ok(Response::new(v1::DeleteRecordsResponse { header, low_watermark }))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let request = request.into_inner();
        let position = v1::OffsetPosition::try_from(request.position)
            .ok()
            .and_then(|position| match position {
                v1::OffsetPosition::Unspecified => None,
                v1::OffsetPosition::Earliest => Some(ottla_replication::OffsetPosition::Earliest),
                v1::OffsetPosition::Latest => Some(ottla_replication::OffsetPosition::Latest),
                v1::OffsetPosition::Timestamp => {
                    Some(ottla_replication::OffsetPosition::Timestamp(request.timestamp_ms))
                }
                v1::OffsetPosition::Offset => {
                    Some(ottla_replication::OffsetPosition::Offset(request.offset))
                }
            })
            .ok_or_else(|| {
                ApiError::new(
                    ErrorReason::InvalidRequest,
                    format!(
                        "position {} is unknown: earliest, latest, timestamp or offset",
                        request.position
                    ),
                )
            })?;
        let found = self
            .replicas
            .list_offset(&request.topic, request.partition, position, deadline)
            .await?;
        Ok(Response::new(v1::ListOffsetsResponse {
            header: self.context.header(),
            offset: found.offset,
            leader_epoch: found.leader_epoch.0,
            timestamp_ms: found.timestamp_ms,
            high_watermark: found.high_watermark,
        }))
    }
}
