//! Batches of a partition as they lie on its leader's disk, wherever it goes.
//!
//! The client library decodes what it reads; a backup wants the bytes. So this asks
//! leaders itself. It only reads: whatever went wrong, it can be asked again.

use anyhow::Context as _;
use bytes::Bytes;
use ottla_client::{Client, HostPort, StartPosition, v1};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::v1::fetch_response::Payload;
use ottla_proto::v1::log_service_client::LogServiceClient;
use ottla_proto::{
    ApiError, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, HTTP2_STREAM_WINDOW_BYTES,
    MAX_GRPC_MESSAGE_BYTES,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// Bytes of one answer: with the partitions read at once it bounds the memory.
const FETCH_BYTES: u32 = 4 * 1024 * 1024;

/// How long a leader may wait for records. There are some: it only has to hear that they
/// are committed, if it has just become leader.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// Longest wait for one answer. Then the leader is looked for anew.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Before a leader that refused, or is not there, is asked again.
const PAUSE: Duration = Duration::from_millis(100);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A partition that is being copied, while it goes on.
pub(super) trait Log {
    /// Where it ends: records below are committed.
    async fn end(&mut self) -> anyhow::Result<u64>;

    /// What lies at an offset below that.
    async fn fetch(&mut self, offset: u64) -> anyhow::Result<Fetched>;
}

/// Connections to nodes, shared by all partitions that are read.
pub(super) struct Nodes {
    client: Client,
    open: Mutex<BTreeMap<HostPort, LogServiceClient<Channel>>>,
    /// How long a partition may have no leader that answers.
    patience: Duration,
}

impl Nodes {
    pub(super) fn new(client: Client, patience: Duration) -> Self {
        Self { client, open: Mutex::default(), patience }
    }

    /// Connected when it is first used, and again when it broke.
    fn get(&self, node: &HostPort) -> anyhow::Result<LogServiceClient<Channel>> {
        if let Some(known) = self.open.lock().get(node) {
            return Ok(known.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{node}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .connect_lazy();
        let client =
            LogServiceClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES);
        self.open.lock().insert(node.clone(), client.clone());
        Ok(client)
    }

    async fn leader(&self, topic: &str, partition: u32) -> anyhow::Result<Option<HostPort>> {
        let metadata = self.client.admin().metadata(&[topic.to_owned()]).await?;
        let partitions = metadata.topics.first().map(|topic| &topic.partitions);
        let leader = partitions.and_then(|all| all.get(partition as usize)?.leader_id);
        let node = metadata.nodes.iter().find(|node| Some(node.node_id) == leader);
        let endpoint = node.and_then(|node| node.endpoint.as_ref());
        Ok(endpoint.and_then(|at| Some(HostPort::new(&*at.host, u16::try_from(at.port).ok()?))))
    }
}

/// One partition.
pub(super) struct Source<'a> {
    nodes: &'a Nodes,
    topic: &'a str,
    topic_id: Bytes,
    partition: u32,
    /// Who answered last, or was named as who leads.
    leader: Option<HostPort>,
}

/// What lies at an offset.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Whole batches, the first of which may begin below it.
    Batches { batches: Bytes, next_offset: u64 },
    /// Nothing any more: the log starts here by now.
    StartsAt(u64),
}

impl<'a> Source<'a> {
    pub(super) fn new(nodes: &'a Nodes, topic: &'a str, topic_id: Bytes, partition: u32) -> Self {
        Self { nodes, topic, topic_id, partition, leader: None }
    }

    /// Asks once. The inner error is what may pass.
    async fn attempt(&mut self, offset: u64) -> anyhow::Result<Result<Fetched, String>> {
        let leader = match self.leader.take() {
            Some(leader) => leader,
            None => match self.nodes.leader(self.topic, self.partition).await? {
                Some(leader) => leader,
                None => return Ok(Err("it has no leader".to_owned())),
            },
        };
        let mut client = self.nodes.get(&leader)?;
        let error = match timeout(ATTEMPT, client.fetch(self.request(offset))).await {
            Ok(Ok(answer)) => {
                self.leader = Some(leader);
                return read(answer.into_inner(), offset);
            }
            Ok(Err(status)) => ApiError::from_status(&status),
            Err(_) => return Ok(Err(format!("no answer from {leader} within {ATTEMPT:?}"))),
        };
        if let Some(start) = starts_above(&error, offset) {
            return Ok(Ok(Fetched::StartsAt(start)));
        }
        // INTERNAL is also what a broken connection is told as. And who has just become
        // leader may not know yet that the offset is committed.
        let may_pass =
            error.is_retriable() || matches!(error.reason, R::Internal | R::OffsetOutOfRange);
        if !may_pass {
            let place = format!("{}-{} at offset {offset}", self.topic, self.partition);
            return Err(ottla_client::ClientError::from(error)).context(place);
        }
        self.leader = error.leader.as_ref().map(|leader| HostPort::new(&*leader.host, leader.port));
        Ok(Err(error.to_string()))
    }

    fn request(&self, offset: u64) -> v1::FetchRequest {
        v1::FetchRequest {
            topic: self.topic.to_owned(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            offset,
            max_bytes: FETCH_BYTES,
            max_wait_ms: u32::try_from(MAX_WAIT.as_millis()).unwrap_or(u32::MAX),
            format: v1::PayloadFormat::RecordBatches.into(),
            allow_follower: false,
        }
    }
}

impl Log for Source<'_> {
    async fn end(&mut self) -> anyhow::Result<u64> {
        let end = StartPosition::End;
        Ok(self.nodes.client.offset_of(self.topic, self.partition, end).await?)
    }

    async fn fetch(&mut self, offset: u64) -> anyhow::Result<Fetched> {
        let started = Instant::now();
        loop {
            let failed = match self.attempt(offset).await? {
                Ok(fetched) => return Ok(fetched),
                Err(failed) => failed,
            };
            if started.elapsed() >= self.nodes.patience {
                let (topic, partition, waited) = (self.topic, self.partition, self.nodes.patience);
                let waited = humantime::format_duration(waited);
                anyhow::bail!(
                    "{topic}-{partition} cannot be read from offset {offset} on for {waited}: {failed}"
                );
            }
            sleep(PAUSE).await;
        }
    }
}

fn read(answer: v1::FetchResponse, offset: u64) -> anyhow::Result<Result<Fetched, String>> {
    let batches = match answer.payload {
        None => Bytes::new(),
        Some(Payload::RecordBatches(batches)) => batches,
        Some(Payload::Records(_)) => anyhow::bail!("a node sent records instead of batches"),
    };
    let next_offset = answer.next_offset;
    if next_offset <= offset {
        // Who has just become leader does not know yet how far the log is committed.
        return Ok(Err(format!("committed up to {}", answer.high_watermark)));
    }
    Ok(Ok(Fetched::Batches { batches, next_offset }))
}

/// Where the log starts, if an offset is not there because it starts above it.
fn starts_above(error: &ApiError, offset: u64) -> Option<u64> {
    let start = error.metadata.get("log_start_offset")?.parse().ok()?;
    (error.reason == R::OffsetOutOfRange && start > offset).then_some(start)
}
