//! Administration of consumer groups. Any node may be asked: who does not coordinate a
//! group says so, and the next one is asked.

use crate::channel::Connection;
use crate::client::{Asked, with_timeout};
use crate::{Admin, Client, ClientError, HostPort};
use futures::future::try_join_all;
use ottla_proto::v1;
use std::time::Duration;
use tonic::Response;

/// How long one node may take to list its groups.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a reader is behind in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Where the partition ends: records below are committed.
    pub end: u64,
    /// Offsets from the first record that the reader has yet to read to the end; 0 if there
    /// is none, although the partition may end beyond where it goes on: what compaction or
    /// retention took away is no record.
    pub records: u64,
    /// When the first of them was written, in milliseconds since the Unix epoch, as its
    /// batch says; `None` if there is none.
    pub oldest_ms: Option<i64>,
}

impl Client {
    /// How far a reader is behind that goes on at `offset`.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC, UNKNOWN_PARTITION, or no leader answered in time.
    pub async fn lag(&self, topic: &str, partition: u32, offset: u64) -> Result<Lag, ClientError> {
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            position: v1::OffsetPosition::Offset.into(),
            offset,
            ..Default::default()
        };
        let what = format!("finding the lag of {topic}-{partition}");
        let call = |connection: Connection, timeout: Duration| {
            let request = with_timeout(request.clone(), timeout);
            async move { connection.log().list_offsets(request).await }
        };
        let answer = self.ask_leader(&what, topic, partition, self.deadline(), call).await?;
        let v1::ListOffsetsResponse { high_watermark, offset: next, timestamp_ms, .. } =
            answer.into_inner();
        let end = high_watermark
            .ok_or_else(|| ClientError::UnexpectedAnswer("no high watermark in it".to_owned()))?;
        let records = timestamp_ms.map_or(0, |_| end.saturating_sub(next));
        Ok(Lag { end, records, oldest_ms: timestamp_ms })
    }
}

impl Admin {
    /// All groups, by name.
    ///
    /// # Errors
    /// A node that is not fenced cannot be reached: its groups are unknown. One that is
    /// coordinates none.
    pub async fn list_groups(&self) -> Result<Vec<v1::ListedGroup>, ClientError> {
        let nodes = self.cluster_info().await?.nodes;
        let endpoints =
            nodes.iter().filter(|node| !node.fenced).filter_map(|n| n.endpoint.as_ref());
        let endpoints: Vec<HostPort> = endpoints.filter_map(HostPort::from_wire).collect();
        let asked = endpoints.iter().map(|endpoint| async {
            let request = with_timeout(v1::ListGroupsRequest {}, LIST_TIMEOUT);
            let call = |connection: Connection| async move {
                connection.groups().list_groups(request).await.map(Response::into_inner)
            };
            self.client().attempt(endpoint, LIST_TIMEOUT, call).await
        });
        let mut groups: Vec<_> =
            try_join_all(asked).await?.into_iter().flat_map(|answer| answer.groups).collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// A group: members, what they read, and how far it is.
    ///
    /// # Errors
    /// Such as UNKNOWN_GROUP.
    pub async fn describe_group(
        &self,
        group: &str,
    ) -> Result<v1::DescribeGroupResponse, ClientError> {
        let request = v1::DescribeGroupRequest { group: group.to_owned() };
        let call = |connection: Connection, request| async move {
            connection.groups().describe_group(request).await
        };
        self.ask("describing the group", Asked::ToTell, request, call).await
    }

    /// Sets how far a group without members is, all or none. Such a group need not be
    /// there yet.
    ///
    /// # Errors
    /// Such as GROUP_NOT_EMPTY, UNKNOWN_PARTITION.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: Vec<v1::OffsetCommit>,
    ) -> Result<(), ClientError> {
        let (group, member_id) = (group.to_owned(), None);
        let request = v1::CommitOffsetsRequest { group, member_id, member_epoch: 0, offsets };
        let call = |connection: Connection, request| async move {
            connection.groups().commit_offsets(request).await
        };
        // Said twice it is so once.
        self.ask("committing offsets", Asked::ToTell, request, call).await.map(drop)
    }

    /// Deletes a group that has no members, with its offsets.
    ///
    /// # Errors
    /// Such as UNKNOWN_GROUP, GROUP_NOT_EMPTY.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let request = v1::DeleteGroupRequest { group: group.to_owned() };
        let call = |connection: Connection, request| async move {
            connection.groups().delete_group(request).await
        };
        self.ask("deleting the group", Asked::ToChange, request, call).await.map(drop)
    }
}
