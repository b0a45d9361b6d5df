//! Facts, written down.

use crate::groups::FactRecord;
use bytes::Bytes;
use ottla_commitlog::format::{self, BatchOptions, FormatError, NewRecord, ValidBatch};
use ottla_metadata::controller::GROUPS_TOPIC;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, LeaderEpoch, MAX_BATCH_BYTES, PartitionId};
use ottla_replication::Replicas;
use std::time::Duration;
use tokio::time::Instant;

/// How long a write may take to be committed. Members are more patient (a session), and
/// whoever takes over afterwards reads what became of it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes facts in one batch, all or none, and waits until they are committed.
///
/// # Errors
/// They are not, or nobody knows: what was decided since is to be forgotten.
pub(crate) async fn write(
    replicas: &Replicas,
    id: PartitionId,
    epoch: LeaderEpoch,
    facts: Vec<FactRecord>,
    wall_ms: u64,
) -> Result<(), ApiError> {
    let batch = encode(facts, wall_ms).map_err(|error| {
        ApiError::new(R::Internal, format!("facts of groups cannot be written: {error}"))
    })?;
    let deadline = Instant::now() + COMMIT_TIMEOUT;
    let ticket = replicas.produce_in((GROUPS_TOPIC, id.index), epoch, batch, deadline).await?;
    ticket.wait().await.map(drop)
}

fn encode(facts: Vec<FactRecord>, wall_ms: u64) -> Result<ValidBatch, FormatError> {
    let timestamp_ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    let record = |(key, value): FactRecord| {
        let (key, value) = (Some(Bytes::from(key)), value.map(Bytes::from));
        NewRecord { key, value, headers: Vec::new(), timestamp_ms }
    };
    let records: Vec<NewRecord> = facts.into_iter().map(record).collect();
    let batch = format::encode_batch(&records, &BatchOptions::default())?;
    ValidBatch::new(batch, MAX_BATCH_BYTES)
}
