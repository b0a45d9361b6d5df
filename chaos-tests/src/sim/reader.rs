//! Readers of a simulated cluster: some follow a partition, near one node after the
//! other, while things go wrong; some read all of it once nothing is wrong any more.

use super::load::{Shared, now, rack};
use crate::history::{Call, Outcome, Records};
use anyhow::Context as _;
use ottla_client::{Client, ClientError, PartitionReader, ReadBatch, ReaderOptions, StartPosition};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// After so long a reader that follows goes on near another node: several times in a run.
const MOVES_ON_AFTER: Duration = Duration::from_secs(3);

/// How long a reader that follows looks for somebody who answers.
const RECOVERY: Duration = Duration::from_secs(3);

/// Before a reader that could not begin tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) name: String,
}

impl Reader {
    async fn open(
        &self,
        node: u64,
        from: StartPosition,
        recovery_timeout: Option<Duration>,
    ) -> Result<PartitionReader, ClientError> {
        let defaults = ReaderOptions::default();
        let options = ReaderOptions {
            rack: Some(rack(node)),
            recovery_timeout: recovery_timeout.unwrap_or(defaults.recovery_timeout),
            ..defaults
        };
        PartitionReader::open(&self.client, &self.topic, self.partition, from, options).await
    }

    fn key(&self) -> String {
        super::load::key(&self.topic, self.partition)
    }

    /// Everything committed, from the replica on a node, or from the leader where that
    /// one cannot serve.
    pub(super) async fn read_all(&self, node: u64) -> anyhow::Result<()> {
        let begun = now();
        let end = self.client.offset_of(&self.topic, self.partition, StartPosition::End).await?;
        let mut reader = self.open(node, StartPosition::Start, None).await?.read_until(end);
        let mut records = Vec::new();
        while let Some(batch) = reader.next_batch().await? {
            records.extend(values(batch)?);
        }
        let assign = Call::Assign(vec![self.key()]);
        self.shared.recorder.operation(&self.name, (begun, begun), assign, Outcome::Ok, None);
        self.polled(begun, records);
        Ok(())
    }

    fn polled(&self, begun: Duration, records: Records) {
        let call = Call::Poll([(self.key(), records)].into());
        self.shared.recorder.operation(&self.name, (begun, now()), call, Outcome::Ok, None);
    }

    fn failed(&self, begun: Duration, error: &ClientError) {
        let (call, error) = (Call::Poll(BTreeMap::new()), Some(error.to_string()));
        self.shared.recorder.operation(&self.name, (begun, now()), call, Outcome::Info, error);
    }
}

/// Reads from the start and then whatever comes, from one replica after the other. Never
/// ends by itself.
pub(super) async fn follow(reader: Reader, nodes: u64) -> anyhow::Result<()> {
    let mut position = 0;
    for near in 0.. {
        let (node, from) = (near % nodes + 1, StartPosition::Offset(position));
        let mut open = match reader.open(node, from, Some(RECOVERY)).await {
            Ok(open) => open,
            Err(_) => {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        let until = Instant::now() + MOVES_ON_AFTER;
        while Instant::now() < until {
            let begun = now();
            match timeout(MOVES_ON_AFTER, open.next_batch()).await {
                Ok(Ok(Some(batch))) => {
                    position = batch.next_offset;
                    reader.polled(begun, values(batch)?);
                }
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => {
                    reader.failed(begun, &error);
                    break;
                }
            }
        }
    }
    Ok(())
}

fn values(batch: ReadBatch) -> anyhow::Result<Records> {
    let value = |record: ottla_client::Record| {
        let value = record.value.context("the writers write no tombstones")?;
        Ok((record.offset, String::from_utf8(value.to_vec())?))
    };
    batch.records.into_iter().map(value).collect()
}
