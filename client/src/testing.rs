//! Nodes that speak the protocol and keep everything in memory, for tests of
//! this library: they follow a script of failures a real cluster shows rarely.

pub(crate) mod groups;
mod metadata;
mod producers;
mod topics;

use crate::{Client, ClientOptions, HostPort};
use bytes::Bytes;
use groups::Coordinator;
use ottla_commitlog::format::{BatchHeader, BatchOptions, NewRecord, decode_records, encode_batch};
use ottla_proto::{ApiError, Leader, LeaderEpoch, NodeId, v1};
use parking_lot::Mutex;
use producers::Producers;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use v1::ErrorReason as R;
use v1::group_service_server::GroupServiceServer;
use v1::log_service_server::{LogService, LogServiceServer};
use v1::metadata_service_server::MetadataServiceServer;
use v1::producer_service_server::ProducerServiceServer;
use v1::topic_service_server::TopicServiceServer;

/// The one topic there is.
pub(crate) const TOPIC: &str = "orders";

/// A batch as it lies in a log.
pub(crate) fn batch_at(base_offset: u64, values: &[&str]) -> Bytes {
    let records: Vec<NewRecord> = values
        .iter()
        .map(|value| NewRecord {
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..NewRecord::default()
        })
        .collect();
    let mut batch = encode_batch(&records, &BatchOptions::default()).expect("records");
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch.freeze()
}

/// What happens to one produce request.
#[derive(Clone, Debug)]
pub(crate) enum Produce {
    /// As it should be.
    Write,
    /// Refused; nothing is written.
    Refuse(ApiError),
    /// Written, but answered with an error.
    WriteThenFail(ApiError),
    /// Written, but the stream breaks before the answer.
    WriteThenBreak,
    /// The stream breaks; nothing is written.
    Break,
}

/// What happens to one consume stream.
#[derive(Clone, Debug)]
pub(crate) enum Consume {
    /// Refused when it is opened.
    Refuse(ApiError),
    /// Broken after this many messages.
    BreakAfter(usize),
}

#[derive(Default)]
pub(crate) struct State {
    endpoints: Vec<HostPort>,
    /// Leading node and leader epoch of each partition, as the nodes know it.
    pub(crate) leaders: Vec<(Option<u64>, u32)>,
    /// As GetMetadata tells it, if that lags behind.
    pub(crate) stale_leaders: Option<Vec<(Option<u64>, u32)>>,
    pub(crate) logs: Vec<Vec<Bytes>>,
    /// What is known of producers, for each partition.
    pub(crate) producers: Vec<Producers>,
    /// Producer ids that were given away.
    pub(crate) producer_ids: i64,
    /// Why none are given away, if so.
    pub(crate) no_producer_ids: Option<ApiError>,
    /// Outcomes of the next requests; then all goes well.
    pub(crate) produce: VecDeque<Produce>,
    pub(crate) consume: VecDeque<Consume>,
    pub(crate) list_offsets: VecDeque<ApiError>,
    /// Produce requests that came, by node.
    pub(crate) produced_to: Vec<u64>,
    /// GetMetadata calls that came.
    pub(crate) metadata_calls: usize,
    /// Consume streams that were accepted: the node, and whether a follower would do.
    pub(crate) consumed_from: Vec<(u64, bool)>,
    /// Messages of consume streams after the first.
    pub(crate) credit_messages: usize,
    /// Bytes that consume streams were sent.
    pub(crate) bytes_sent: u64,
    /// The first offset that is still there, of every partition.
    pub(crate) log_start: u64,
    pub(crate) topic_is_gone: bool,
    /// The topic that has the name. GetMetadata always tells of the first one.
    pub(crate) topic_id: [u8; 16],
    /// Those who lead have not heard of the topic.
    pub(crate) leaders_lag: bool,
    /// From this offset on every partition holds no record any more.
    pub(crate) empty_from: Option<u64>,
    pub(crate) coordinator: Coordinator,
}

/// Nodes 1, 2, …, and what they share.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) state: Arc<Mutex<State>>,
    /// The node that answers no produce requests and tells watchers nothing at
    /// the moment, if one.
    pub(crate) held: watch::Sender<Option<u64>>,
    /// Counts changes of leaders that watchers are told of.
    changes: watch::Sender<u64>,
}

impl Cluster {
    /// A cluster whose node 1 leads every partition.
    pub(crate) async fn start(nodes: u64, partitions: usize) -> Self {
        let (held, changes) = (watch::Sender::new(None), watch::Sender::new(0));
        let cluster = Self { state: Arc::default(), held, changes };
        {
            let mut state = cluster.state.lock();
            state.topic_id = groups::TOPIC_ID;
            state.leaders = vec![(Some(1), 1); partitions];
            state.logs = vec![Vec::new(); partitions];
            state.producers.resize_with(partitions, Producers::default);
        }
        for id in 1..=nodes {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            cluster.state.lock().endpoints.push(HostPort::new("127.0.0.1", port));
            let node = Node { id, cluster: cluster.clone() };
            let server = tonic::transport::Server::builder()
                .add_service(LogServiceServer::new(node.clone()))
                .add_service(ProducerServiceServer::new(node.clone()))
                .add_service(GroupServiceServer::new(node.clone()))
                .add_service(TopicServiceServer::new(node.clone()))
                .add_service(MetadataServiceServer::new(node));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        cluster
    }

    pub(crate) async fn client(&self) -> Client {
        let bootstrap = self.state.lock().endpoints.clone();
        Client::connect(&bootstrap, ClientOptions::default()).await.expect("the nodes are up")
    }

    /// Elects this leader in this epoch for every partition, and tells watchers.
    pub(crate) fn elect(&self, leader: Option<u64>, epoch: u32) {
        self.state.lock().leaders.fill((leader, epoch));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// What a partition holds.
    pub(crate) fn values(&self, partition: usize) -> Vec<String> {
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        self.state.lock().logs[partition].iter().map(text).collect()
    }

    pub(crate) fn write(&self, partition: usize, values: impl IntoIterator<Item = String>) {
        let values = values.into_iter().map(Bytes::from);
        self.state.lock().logs[partition].extend(values);
    }
}

#[derive(Clone)]
struct Node {
    id: u64,
    cluster: Cluster,
}

impl Node {
    fn check_leader(&self, partition: u32) -> Result<(), ApiError> {
        let state = self.cluster.state.lock();
        if state.topic_is_gone {
            return Err(ApiError::new(R::UnknownTopic, "it was deleted"));
        }
        if state.leaders_lag {
            return Err(ApiError::new(R::UnknownTopic, "there is none yet"));
        }
        let (leader, epoch) = state.leaders[partition as usize];
        if leader == Some(self.id) {
            return Ok(());
        }
        let hint = leader.map(|id| {
            let endpoint = &state.endpoints[id as usize - 1];
            let (node_id, epoch) = (NodeId(id), LeaderEpoch(epoch));
            Leader { node_id, epoch, host: endpoint.host().to_owned(), port: endpoint.port() }
        });
        Err(ApiError::new(R::NotLeader, "another node leads").with_leader(hint))
    }

    /// Err(None) breaks the stream.
    async fn append(
        &self,
        request: v1::ProduceRequest,
    ) -> Result<v1::ProduceResponse, Option<ApiError>> {
        self.cluster.state.lock().produced_to.push(self.id);
        self.check_leader(request.partition).map_err(Some)?;
        let script = self.cluster.state.lock().produce.pop_front();
        match script {
            Some(Produce::Refuse(error)) => return Err(Some(error)),
            Some(Produce::Break) => return Err(None),
            _ => {}
        }
        let mut held = self.cluster.held.subscribe();
        held.wait_for(|held| *held != Some(self.id)).await.expect("the cluster lives");
        let Some(v1::produce_request::Payload::RecordBatch(batch)) = request.payload else {
            return Err(Some(ApiError::new(R::InvalidRequest, "no batch")));
        };
        let records: Vec<_> =
            decode_records(&batch).collect::<Result<_, _>>().expect("a good batch");
        let partition = request.partition as usize;
        let mut state = self.cluster.state.lock();
        let end = state.logs[partition].len() as u64;
        let producer = BatchHeader::parse(&batch).expect("a good batch").producer();
        let known = match producer {
            Some(producer) => {
                state.producers[partition].admit(producer, records.len() as i32, end)?
            }
            None => None,
        };
        let log = &mut state.logs[partition];
        if known.is_none() {
            log.extend(records.iter().map(|record| record.value.clone().unwrap_or_default()));
        }
        match script {
            Some(Produce::WriteThenFail(error)) => Err(Some(error)),
            Some(Produce::WriteThenBreak) => Err(None),
            _ => Ok(v1::ProduceResponse {
                base_offset: Some(known.unwrap_or(end)),
                record_count: records.len() as u32,
                log_end_offset: Some(log.len() as u64),
                ..Default::default()
            }),
        }
    }

    fn check_offset(&self, partition: u32, offset: u64) -> Result<(), ApiError> {
        let state = self.cluster.state.lock();
        let log = state.log_start..=state.logs[partition as usize].len() as u64;
        if log.contains(&offset) {
            return Ok(());
        }
        Err(ApiError::new(R::OffsetOutOfRange, "not there")
            .with("log_start_offset", state.log_start))
    }

    fn read(&self, partition: u32, offset: u64) -> v1::ConsumeResponse {
        /// Records of one message.
        const RECORDS: usize = 10;
        let state = self.cluster.state.lock();
        let log = &state.logs[partition as usize];
        let from = (offset as usize).min(log.len());
        let records = state.empty_from.map_or(log.len(), |empty| log.len().min(empty as usize));
        let to = match records {
            records if from < records => (from + RECORDS).min(records),
            _ => log.len(),
        };
        let from = if to > records { to } else { from };
        // As from a real log: a batch may begin before the offset asked for.
        let base = if to > from { from.saturating_sub(1) } else { from };
        let values: Vec<_> =
            log[base..to].iter().map(|v| std::str::from_utf8(v).expect("text")).collect();
        let batches = if values.is_empty() { Bytes::new() } else { batch_at(base as u64, &values) };
        v1::ConsumeResponse {
            high_watermark: log.len() as u64,
            next_offset: to as u64,
            payload: Some(v1::consume_response::Payload::RecordBatches(batches)),
            ..Default::default()
        }
    }
}

type BoxStream<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl LogService for Node {
    async fn produce(
        &self,
        _: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("the library uses the stream"))
    }

    type ProduceStreamStream = BoxStream<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        use v1::produce_stream_response::Outcome;
        let (answers, outgoing) = mpsc::channel(64);
        let (node, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let outcome = match node.append(request.request.unwrap_or_default()).await {
                    Ok(response) => Outcome::Response(response),
                    Err(Some(error)) => Outcome::Error(error.into()),
                    Err(None) => {
                        let _ = answers.send(Err(Status::unavailable("broken"))).await;
                        return;
                    }
                };
                let correlation_id = request.correlation_id;
                let answer = v1::ProduceStreamResponse { correlation_id, outcome: Some(outcome) };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        self.check_leader(request.partition)?;
        let read = self.read(request.partition, request.offset);
        let Some(v1::consume_response::Payload::RecordBatches(batches)) = read.payload else {
            return Err(Status::internal("reads give batches"));
        };
        Ok(Response::new(v1::FetchResponse {
            high_watermark: read.high_watermark,
            next_offset: read.next_offset,
            payload: Some(v1::fetch_response::Payload::RecordBatches(batches)),
            ..Default::default()
        }))
    }

    type ConsumeStream = BoxStream<v1::ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        let start = first.start.unwrap_or_default();
        if !start.allow_follower {
            self.check_leader(start.partition)?;
        }
        let of_another = start.topic_id != self.cluster.state.lock().topic_id[..];
        if !start.topic_id.is_empty() && of_another {
            return Err(ApiError::new(R::UnknownTopic, "deleted since").into());
        }
        let script = self.cluster.state.lock().consume.pop_front();
        let mut budget = match script {
            Some(Consume::Refuse(error)) => return Err(error.into()),
            Some(Consume::BreakAfter(messages)) => messages,
            None => usize::MAX,
        };
        self.check_offset(start.partition, start.offset)?;
        self.cluster.state.lock().consumed_from.push((self.id, start.allow_follower));
        let (answers, outgoing) = mpsc::channel(64);
        let node = self.clone();
        tokio::spawn(async move {
            let (mut records, mut bytes) = (first.add_credit_records, first.add_credit_bytes);
            let mut position = start.offset;
            loop {
                while records > 0 && bytes > 0 {
                    if budget == 0 {
                        let _ = answers.send(Err(Status::unavailable("broken"))).await;
                        return;
                    }
                    let answer = node.read(start.partition, position);
                    if answer.next_offset == position {
                        break;
                    }
                    budget -= 1;
                    let taken = answer.next_offset - position;
                    let length = match &answer.payload {
                        Some(v1::consume_response::Payload::RecordBatches(bytes)) => bytes.len(),
                        _ => 0,
                    } as u64;
                    node.cluster.state.lock().bytes_sent += length;
                    records = records.saturating_sub(taken);
                    bytes = bytes.saturating_sub(length);
                    position = answer.next_offset;
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                let Ok(Some(more)) = requests.message().await else { return };
                node.cluster.state.lock().credit_messages += 1;
                records += more.add_credit_records;
                bytes += more.add_credit_bytes;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn delete_records(
        &self,
        _request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let request = request.into_inner();
        self.check_leader(request.partition)?;
        let mut state = self.cluster.state.lock();
        if let Some(error) = state.list_offsets.pop_front() {
            return Err(error.into());
        }
        let offset = match request.position() {
            v1::OffsetPosition::Latest => state.logs[request.partition as usize].len() as u64,
            _ => state.log_start,
        };
        Ok(Response::new(v1::ListOffsetsResponse { offset, ..Default::default() }))
    }
}
