//! Talking to the coordinator of a group, wherever it is.
//!
//! Not its job: trying again what changes something. Who asks knows what may be said twice.

use crate::backoff::{Backoff, Deadline};
use crate::channel::Connection;
use crate::client::{Asked, QUESTION_TIMEOUT, with_timeout};
use crate::{Client, ClientError, HostPort};
use ottla_proto::v1::{self, ErrorReason as R};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Response, Status};

/// Other nodes asked at once because the one asked said so: more are a circle.
const REDIRECTS: u32 = 3;

/// How long one request may take. A node answers once the write is committed, and while
/// another takes over there is none: then it is better to ask again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(super) struct CoordinatorLink {
    client: Client,
    group: Arc<str>,
    known: Arc<Mutex<Option<HostPort>>>,
}

impl CoordinatorLink {
    pub(super) fn new(client: Client, group: Arc<str>) -> Self {
        Self { client, group, known: Arc::default() }
    }

    /// Once.
    pub(super) async fn heartbeat(
        &self,
        request: v1::HeartbeatRequest,
    ) -> Result<v1::HeartbeatResponse, ClientError> {
        let deadline = Deadline::after(ATTEMPT_TIMEOUT);
        let call = |connection: Connection, timeout| {
            let request = with_timeout(request.clone(), timeout);
            async move { connection.groups().heartbeat(request).await }
        };
        self.ask(deadline, call).await
    }

    /// Once.
    pub(super) async fn commit(
        &self,
        request: v1::CommitOffsetsRequest,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let call = |connection: Connection, timeout| {
            let request = with_timeout(request.clone(), timeout);
            async move { connection.groups().commit_offsets(request).await }
        };
        self.ask(deadline, call).await.map(drop)
    }

    /// Once.
    pub(super) async fn offsets(
        &self,
        partitions: Vec<v1::TopicPartitions>,
        deadline: Deadline,
    ) -> Result<v1::FetchOffsetsResponse, ClientError> {
        let request = v1::FetchOffsetsRequest { group: self.group.to_string(), partitions };
        let call = |connection: Connection, timeout| {
            let request = with_timeout(request.clone(), timeout);
            async move { connection.groups().fetch_offsets(request).await }
        };
        self.ask(deadline, call).await
    }

    /// Of every partition that the group has committed for; with other tries until the
    /// deadline.
    pub(super) async fn offsets_of_all(
        &self,
        deadline: Deadline,
    ) -> Result<v1::FetchOffsetsResponse, ClientError> {
        let mut backoff = Backoff::default();
        loop {
            match self.offsets(Vec::new(), deadline).await {
                Err(error) if error.is_retriable() && !deadline.is_over() => {
                    deadline.sleep(backoff.next()).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks the coordinator, or whoever it says is that. After anything else that it says
    /// it is looked for anew.
    async fn ask<T, F>(
        &self,
        deadline: Deadline,
        call: impl Fn(Connection, Duration) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut redirects = 0;
        loop {
            let endpoint = self.find(deadline).await?;
            let patience = deadline.remaining().min(ATTEMPT_TIMEOUT);
            let answer = self.client.attempt(&endpoint, patience, |c| call(c, patience)).await;
            let error = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(error) => error,
            };
            let hint = error.api().and_then(|api| api.leader.as_ref());
            let elsewhere = hint.map(|leader| HostPort::new(leader.host.clone(), leader.port));
            let is_moved = error.is_transport() || error.is(R::NotCoordinator);
            if is_moved || error.is_retriable() {
                *self.known.lock() = elsewhere.clone().filter(|other| *other != endpoint);
            }
            if !error.is(R::NotCoordinator) || elsewhere.is_none() || redirects == REDIRECTS {
                return Err(error);
            }
            redirects += 1;
        }
    }

    async fn find(&self, deadline: Deadline) -> Result<HostPort, ClientError> {
        if let Some(known) = self.known.lock().clone() {
            return Ok(known);
        }
        let what = format!("finding the coordinator of group {}", self.group);
        let ask = |connection: Connection, timeout: Duration| {
            let request = v1::FindCoordinatorRequest { group: self.group.to_string() };
            let request = with_timeout(request, timeout);
            async move { Ok(Ok(connection.groups().find_coordinator(request).await?.into_inner())) }
        };
        // The first question ever has a topic created.
        let deadline = if deadline.remaining() < QUESTION_TIMEOUT {
            Deadline::after(QUESTION_TIMEOUT)
        } else {
            deadline
        };
        let found = self.client.ask_any(&what, deadline, Asked::ToTell, ask).await?;
        let endpoint = found.endpoint.as_ref().and_then(HostPort::from_wire);
        let endpoint = endpoint.ok_or_else(|| {
            ClientError::UnexpectedAnswer("a coordinator without an address".to_owned())
        })?;
        *self.known.lock() = Some(endpoint.clone());
        Ok(endpoint)
    }
}
