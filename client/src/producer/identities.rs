//! The producer's ids: one for all its partitions, and another when a partition
//! cannot go on with it.

use crate::backoff::Deadline;
use crate::client::{Asked, with_timeout};
use crate::{Client, ClientError};
use ottla_proto::v1;
use tokio::sync::Mutex;

/// Gets producer ids from the cluster.
pub(super) struct Identities {
    client: Client,
    /// Held while the cluster is asked: partitions that need one share it.
    latest: Mutex<Option<i64>>,
}

impl Identities {
    pub(super) fn new(client: Client) -> Self {
        Self { client, latest: Mutex::default() }
    }

    /// An id that a partition which had `former` has not used yet.
    pub(super) async fn get(
        &self,
        former: Option<i64>,
        deadline: Deadline,
    ) -> Result<i64, ClientError> {
        let mut latest = self.latest.lock().await;
        if let Some(id) = *latest
            && Some(id) != former
        {
            return Ok(id);
        }
        let what = "getting a producer id";
        let ask = |connection: crate::channel::Connection, timeout| async move {
            let request = with_timeout(v1::InitProducerIdRequest {}, timeout);
            Ok(Ok(connection.producers().init_producer_id(request).await?.into_inner()))
        };
        // One that is given away and not heard of is lost, which costs nothing.
        let answer = self.client.ask_any(what, deadline, Asked::ToTell, ask).await?;
        Ok(*latest.insert(answer.producer_id))
    }
}
