//! What the nodes know of idempotent producers, as real ones do
//! (`commitlog/src/producers`).

use super::{Node, R};
use ottla_commitlog::format::ProducerSequence;
use ottla_proto::{ApiError, v1};
use std::collections::{HashMap, VecDeque};
use tonic::{Request, Response, Status};
use v1::producer_service_server::ProducerService;

/// Batches that are known again.
const WINDOW: usize = 5;

/// A batch of a producer: first sequence, records, first offset.
type Known = (i32, i32, u64);

/// The producers of one partition: epoch and last batches.
#[derive(Default)]
pub(crate) struct Producers(HashMap<i64, (i16, VecDeque<Known>)>);

impl Producers {
    /// Whether a batch may be appended at `end`; if it is there already, where.
    pub(super) fn admit(
        &mut self,
        producer: ProducerSequence,
        records: i32,
        end: u64,
    ) -> Result<Option<u64>, ApiError> {
        let ProducerSequence { id, epoch, base_sequence: first } = producer;
        if let Some((known, window)) = self.0.get(&id) {
            if epoch < *known {
                return Err(ApiError::new(R::InvalidProducerEpoch, "a newer one is known"));
            }
            let same = |batch: &&Known| epoch == *known && (batch.0, batch.1) == (first, records);
            if let Some((_, _, offset)) = window.iter().find(same) {
                return Ok(Some(*offset));
            }
            let next = window.back().map_or(0, |(first, records, _)| first + records);
            let expected = if epoch == *known { next } else { 0 };
            if first != expected {
                let error = ApiError::new(R::OutOfOrderSequence, "another one follows");
                return Err(error.with("expected", expected).with("got", first));
            }
        }
        let (known, window) = self.0.entry(id).or_default();
        if *known != epoch {
            window.clear();
        }
        *known = epoch;
        window.push_back((first, records, end));
        if window.len() > WINDOW {
            window.pop_front();
        }
        Ok(None)
    }

    /// Somebody else takes all ids over.
    pub(crate) fn steal(&mut self) {
        for (epoch, window) in self.0.values_mut() {
            *epoch += 1;
            window.clear();
        }
    }
}

#[tonic::async_trait]
impl ProducerService for Node {
    async fn init_producer_id(
        &self,
        _request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let mut state = self.cluster.state.lock();
        if let Some(error) = &state.no_producer_ids {
            return Err(error.clone().into());
        }
        state.producer_ids += 1;
        let producer_id = state.producer_ids;
        Ok(Response::new(v1::InitProducerIdResponse {
            header: None,
            producer_id,
            producer_epoch: 0,
        }))
    }
}
